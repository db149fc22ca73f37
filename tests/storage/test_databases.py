"""Databases are made aside and renamed; an unusable one is set aside with its companions."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lab.storage import databases


def make_table(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE runs (id)")
        database.execute("INSERT INTO runs VALUES (1)")
        database.commit()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "storage" / "own.db"
    yield file
    assert not list(file.parent.glob(".partial-*"))


@pytest.mark.reported
def test_a_database_appears_complete_or_not_at_all(file: Path) -> None:
    def fail_half_way(partial: Path) -> None:
        make_table(partial)
        assert not file.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        databases.create_database(file, fail_half_way)
    assert list(file.parent.iterdir()) == []
    databases.create_database(file, make_table)
    assert databases.count_rows(file, {"runs": "true"}) == 1


def test_what_a_killed_process_has_left_is_not_used(file: Path) -> None:
    file.parent.mkdir()
    make_table(file.parent / ".partial-own.db")
    (file.parent / ".partial-own.db-journal").write_bytes(b"a journal of the killed process")
    databases.create_database(file, make_table)
    assert [each.name for each in file.parent.iterdir()] == ["own.db"]
    assert databases.count_rows(file, {"runs": "true"}) == 1


def test_a_database_that_another_process_makes_meanwhile_is_kept(file: Path) -> None:
    def be_second(partial: Path) -> None:
        make_table(partial)

    file.parent.mkdir()
    make_table(file)
    before = file.read_bytes()
    databases.create_database(file, be_second)
    assert file.read_bytes() == before


def test_an_unusable_database_is_renamed_and_never_replaced(file: Path) -> None:
    file.parent.mkdir()
    for content in (b"first", b"second"):
        file.write_bytes(content)
        file.with_name("own.db-journal").write_bytes(content)
        databases.set_aside(file)
    assert {each.name: each.read_bytes() for each in file.parent.iterdir()} == {
        "own.db.set-aside-1": b"first",
        "own.db.set-aside-1-journal": b"first",
        "own.db.set-aside-2": b"second",
        "own.db.set-aside-2-journal": b"second",
    }


def test_a_locked_database_is_not_damaged(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_TIMEOUT", 0.01)
    file.parent.mkdir()
    make_table(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert not databases.is_damaged(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)
    assert databases.is_damaged(file)
    file.write_text("no database, and longer than the header of one would be" * 10)
    assert databases.is_damaged(file)
