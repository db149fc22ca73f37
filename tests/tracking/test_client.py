"""An MLflow database that a killed process has left incomplete is made again from the records."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lab.tracking.client import StoreError, connect_client, connect_writer, default_uri

pytestmark = pytest.mark.usefixtures("unsynced")

# States in which a killed process leaves the database: MLflow creates all tables and migrates them.
INCOMPLETE = {
    "killed before the last migration": ["UPDATE alembic_version SET version_num = '728d730b5ebd'"],
    "killed between the migrations": [
        "UPDATE alembic_version SET version_num = '728d730b5ebd'",
        "DROP TABLE issues",
    ],
    "killed before the version was written": ["DELETE FROM alembic_version", "DROP TABLE issues"],
}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("complete")
    connect_client(default_uri(folder))
    return folder / "mlflow.db"


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def prepare(complete: Path, folder: Path, *statements: str) -> str:
    """Copy the database, execute statements on it and return its URI."""
    folder.mkdir(exist_ok=True)
    shutil.copy(complete, folder / "mlflow.db")
    execute(folder / "mlflow.db", *statements)
    return default_uri(folder)


@pytest.mark.reported
def test_a_new_database_is_complete_when_it_appears(complete: Path) -> None:
    assert [file.name for file in complete.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.reported
@pytest.mark.parametrize("statements", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_an_incomplete_database_is_set_aside_and_made_again(
    complete: Path, tmp_path: Path, statements: list[str]
) -> None:
    uri, lines = prepare(complete, tmp_path, *statements), list[str]()
    client = connect_writer(uri, lines.append)
    assert client.create_experiment("works") is not None
    assert {file.name for file in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.set-aside-1"}
    (line,) = lines
    assert "set aside as mlflow.db.set-aside-1" in line
    assert "\n" not in line


def test_an_unusable_database_with_runs_is_refused_and_not_changed(
    complete: Path, tmp_path: Path
) -> None:
    uri = prepare(
        complete,
        tmp_path,
        *INCOMPLETE["killed before the last migration"],
        "INSERT INTO experiments (name) VALUES ('a sweep')",
    )
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(StoreError, match="out-of-date"):
        connect_writer(uri, print)
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_reader_changes_nothing(complete: Path, tmp_path: Path) -> None:
    uri = prepare(complete, tmp_path, *INCOMPLETE["killed before the last migration"])
    with pytest.raises(StoreError):
        connect_client(uri)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_the_message_for_a_damaged_database_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database, and longer than a header would be" * 10)
    with pytest.raises(StoreError, match=r"not a database; .*may be moved away or deleted"):
        connect_writer(default_uri(tmp_path), print)


def test_the_database_of_another_program_is_refused_and_not_changed(tmp_path: Path) -> None:
    execute(tmp_path / "mlflow.db", "CREATE TABLE cats (name)")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(StoreError, match="not an MLflow database"):
        connect_writer(default_uri(tmp_path), print)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"mlflow.db": before}
