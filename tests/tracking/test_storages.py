"""Sweeps of several storages in one tracking store: no run is shared, none is made twice."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from experiments import JOB, METRIC, experiment, outcome, row

from lab import report
from lab.config.results import State
from lab.reporting import conclusion, page, stats
from lab.storage.identity import read_identity, storage_identity
from lab.storage.mirror import LocalOnly
from lab.tracking import frames
from lab.tracking.client import connect_client, default_uri
from lab.tracking.store import MlflowStore

pytestmark = pytest.mark.usefixtures("unsynced")
LOCAL = LocalOnly()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store_folder = tmp_path_factory.mktemp("store")
    connect_client(default_uri(store_folder))
    return store_folder


@pytest.fixture
def uri(folder: Path) -> str:
    return default_uri(folder)


def begin(uri: str, folder: Path, name: str, storage: str) -> MlflowStore:
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(
        experiment(name), {"budget": '{"kind": "flops", "amount": 1e12}'}, {}, storage=storage
    )
    return store


def end_trial(store: MlflowStore, number: int, score: float, state: State = "finished") -> None:
    counts = {"spent/paper_flops": 1.0, "spent/six_n": 1.0}
    rows = (row(0, **counts), row(400, **counts) | {METRIC: score})
    end = outcome(*rows, state=state)
    job = dataclasses.replace(JOB, number=number, repeat=number)
    store.sync(job, f"f{number}", end.state, end.rows, end)


def children(uri: str, name: str) -> list[str]:
    client = connect_client(uri)
    found = client.get_experiment_by_name(name).experiment_id
    return [run.info.run_id for run in client.search_runs([found], "tags.`lab.kind` = 'trial'")]


@pytest.mark.reported
def test_same_sweep_from_two_storages_at_once_has_two_runs_and_two_reports(
    uri: str, folder: Path, tmp_path: Path
) -> None:
    stores = {storage: begin(uri, folder, "both", storage) for storage in ("a", "b")}
    for number in range(2):
        for score, store in enumerate(stores.values()):
            end_trial(store, number, 0.6 + 0.1 * score)
    for store in stores.values():
        store.close("finished", {})
    tables = {storage: frames.load_frames(uri, "both", storage=storage) for storage in stores}
    scores = {storage: list(table.trials["score"]) for storage, table in tables.items()}
    assert scores == {"a": [0.6, 0.6], "b": [0.7, 0.7]}
    for storage, table in tables.items():
        assert not table.trials["number"].duplicated().any()
        assert table.other_storages == 1
        page.write_report(table, tmp_path / storage)
        answer = stats.compute_answer(table)
        assert conclusion.write_headline(table, answer, stats.scored_trials(table)).answer


def test_sweep_of_a_storage_without_one_is_the_one_started_last(uri: str, folder: Path) -> None:
    for storage in ("a", "b"):
        end_trial(begin(uri, folder, "last", storage), 0, 0.6)
    assert len(frames.load_frames(uri, "last", storage="c").trials) == 1
    assert frames.load_frames(uri, "last").sweep["storage"] == "b"


def test_same_storage_continues_its_run(uri: str, folder: Path) -> None:
    for _ in range(2):
        end_trial(begin(uri, folder, "again", "a"), 0, 0.6)
    assert len(children(uri, "again")) == 1
    assert frames.load_frames(uri, "again").other_storages == 0


@pytest.mark.reported
def test_run_that_another_process_has_made_meanwhile_is_found_before_one_is_made(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.tracking.store._CURRENT", 0.0)
    first, second = (begin(uri, folder, "raced", "a") for _ in range(2))
    for store in (first, second):
        end_trial(store, 0, 0.6)
    assert len(children(uri, "raced")) == 1


@pytest.mark.reported
@pytest.mark.parametrize("state", ["finished", "failed"])
def test_duplicate_runs_of_a_trial_are_one_trial_in_the_frames(
    uri: str, folder: Path, state: State
) -> None:
    name = f"twice-{state}"
    first, second = (begin(uri, folder, name, "a") for _ in range(2))
    end_trial(first, 0, 0.6, state)
    end_trial(second, 0, 0.7)
    assert len(children(uri, name)) == 2
    table = frames.load_frames(uri, name)
    assert list(table.trials["state"]) == ["finished"]
    assert list(table.trials["score"]) == [0.6 if state == "finished" else 0.7]
    third = begin(uri, folder, name, "a")
    end_trial(third, 0, 0.9)
    assert list(frames.load_frames(uri, name).trials["score"]) == list(table.trials["score"])


def test_two_sweeps_that_create_the_same_experiment_at_once_use_one(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = MlflowStore(uri, folder / "artifacts")
    find = second._client.get_experiment_by_name
    answers = [None]  # as before the other sweep has created it
    monkeypatch.setattr(
        second._client,
        "get_experiment_by_name",
        lambda name: answers.pop() if answers else find(name),
    )
    begin(uri, folder, "created", "a")
    second.begin(experiment("created"), {}, {}, storage="b")
    assert frames.load_frames(uri, "created").other_storages == 1


def test_report_names_other_storages_and_takes_that_of_its_own(
    uri: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for storage, score in ((storage_identity(own, LOCAL), 0.6), ("other", 0.7)):
        end_trial(begin(uri, folder, "named", storage), 0, score)
    options = ["--tracking-uri", uri, "--reports", str(tmp_path / "reports")]
    assert report.main(["named", "--storage", str(own), *options]) == 0
    assert "from 1 more storage;" in capsys.readouterr().out
    assert ",0.6," in (tmp_path / "reports" / "named" / "trials.csv").read_text()


def test_identity_of_a_storage_is_drawn_once_and_moves_with_it(tmp_path: Path) -> None:
    storage, moved = tmp_path / "storage", tmp_path / "moved"
    storage.mkdir()
    assert read_identity(storage) == ""
    with ThreadPoolExecutor() as pool:
        drawn = set(pool.map(lambda _: storage_identity(storage, LOCAL), range(8)))
    storage.rename(moved)
    assert drawn == {read_identity(moved)} == {storage_identity(moved, LOCAL)}


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"0123'; --\n"])
def test_damaged_identity_is_drawn_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "id").write_bytes(content)
    assert read_identity(tmp_path) == ""
    drawn = storage_identity(tmp_path, LOCAL)
    assert len(drawn) == 16
    assert read_identity(tmp_path) == drawn
