"""The tracking store with a real MLflow on SQLite: no duplicates, no losses, one-line errors."""

import dataclasses
import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from experiments import JOB, METRIC, WIDTH, as_recorded, experiment, outcome, row

from lab.config.experiment import Job
from lab.config.labels import label
from lab.config.metrics import finetuned, untrained_name
from lab.config.results import Outcome, State
from lab.reporting import score_table, stats, tables
from lab.storage import record
from lab.storage.provenance import current_provenance
from lab.tracking import frames, tags
from lab.tracking.client import StoreError, connect_client, default_uri
from lab.tracking.store import MlflowStore
from lab.tracking.sync import MlflowSync

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store_folder = tmp_path_factory.mktemp("store")
    connect_client(default_uri(store_folder))  # one for all tests: the schema takes seconds
    return store_folder


@pytest.fixture
def uri(folder: Path) -> str:
    return default_uri(folder)


def begin_sweep(uri: str, folder: Path, name: str) -> MlflowStore:
    store = MlflowStore(uri, folder / "artifacts")
    facts = {"last_command.commit": "abc"}
    store.begin(experiment(name), facts, {tags.SPACE_FILE: "question: Does it?\n"})
    return store


def store_trial(store: MlflowStore, end: Outcome, job: Job = JOB) -> None:
    """Store a trial from its start to its end."""
    store.sync(job, "f0", "queued")
    store.sync(job, "f0", "running", end.rows[:1])
    store.sync(job, "f0", end.state, end.rows, end)


def search_trials(uri: str, name: str) -> list[object]:
    client = connect_client(uri)
    experiment_id = client.get_experiment_by_name(name).experiment_id
    return list(client.search_runs([experiment_id], "tags.`lab.kind` = 'trial'"))


def test_frames_have_the_values_that_were_stored(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "back")
    store_trial(store, outcome(row(0), row(40, **{"train/loss": 3.5}), row(80)))
    store.close("finished", {"slots": 2.0, "wall_seconds": math.nan})
    read = frames.load_frames(uri, "back")
    assert read.sweep["question"] == "Does it?"
    assert json.loads(read.sweep["search"])["sampler"] == "qmc"
    assert read.sweep["last_command.commit"] == "abc"
    assert read.sweep["state"] == "finished"
    assert read.measures == {"slots": 2.0, "trials": 1.0}
    assert read.texts == {"space.yaml": "question: Does it?\n"}
    trial = read.trials.iloc[0]
    assert (trial["cell"], trial["repeat"], trial[WIDTH], trial["objective.kind"]) == (
        "width 0.25",
        1,
        0.25,
        "electra",
    )
    assert (trial["score"], trial["untrained"], trial["train/loss"]) == (0.58, 0.5, 3.5)
    assert trial["achieved"] == pytest.approx(0.2)
    assert trial["slot/seconds"] == 9.0
    assert list(read.curves["step"]) == [0, 40, 80]
    assert read.reference == "width 0.5"  # the default width; the base does not set it


def test_blocks_of_the_test_set_are_in_the_frames(uri: str, folder: Path) -> None:
    record_folder = folder / "records" / "f0"
    rows = (row(0), row(40))
    record.begin_record(record_folder, JOB.trial)
    record.write_rows(record_folder, rows)
    blocks = {METRIC: [0.0125, -3.21e-06], "probe/pos/accuracy": [1e-3, -1e-3]}
    blocks |= {untrained_name(METRIC): [2e-3, -2e-3]}
    # Only the ranking metric is compared with its value at step 0.
    needless = {untrained_name("probe/pos/accuracy"): [0.5, -0.5]}
    record.write_blocks(record_folder, blocks | needless)
    record.write_outcome(record_folder, outcome(*rows))
    sync = MlflowSync(begin_sweep(uri, folder, "blocks"), print, as_recorded)
    sync.submit(JOB, record_folder)
    read = frames.load_frames(uri, "blocks")
    assert read.blocks == {(JOB.number, name): values for name, values in blocks.items()}
    assert not any("blocks" in str(column) for column in read.trials)


def read_history(uri: str, run: str, name: str) -> list[tuple[int, float]]:
    """Return step and value of each point of a metric."""
    return [(p.step, p.value) for p in connect_client(uri).get_metric_history(run, name)]


def test_scores_and_training_losses_are_also_stored_over_compute(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "axes")
    values = {"probe/pos/accuracy": 0.7, "pairs/own/accuracy": 0.6, "train/loss": 3.5}
    rows = (row(0), row(40, **values), row(80, **values, **{"health/replacement_rate": 0.1}))
    store_trial(store, outcome(*rows))
    (run,) = search_trials(uri, "axes")
    run_id, names = run.info.run_id, (METRIC, *values)
    for name in names:
        copies = [(int(r["spent/flops"] / 1e9), r[name]) for r in rows if name in r]
        assert read_history(uri, run_id, f"by_gflops/{name}") == copies
    by_tokens = read_history(uri, run_id, f"by_ktokens/{METRIC}")
    assert by_tokens == [(int(r["spent/tokens"] / 1e3), r[METRIC]) for r in rows]
    copied = {name.partition("/")[2] for name in run.data.metrics if name.startswith("by_")}
    assert copied == set(names)


def test_copies_for_other_axes_are_no_scores_of_the_frames(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "copies")
    store_trial(store, outcome(row(0), row(40, **{"train/loss": 3.5})))
    read = frames.load_frames(uri, "copies")
    assert list(read.curves["step"]) == [0, 40]
    for table in (read.curves, read.trials):
        assert not [name for name in table if str(name).startswith("by_")]


def test_row_with_more_values_than_a_request_allows_is_stored(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "wide")
    values = {f"pairs/category-{number}/accuracy": number / 1e3 for number in range(1_100)}
    store_trial(store, outcome(row(0), row(40, **values), row(80)))
    curves = frames.load_frames(uri, "wide").curves.set_index("step")
    assert list(curves.index) == [0, 40, 80]
    assert dict(curves.loc[40, list(values)]) == values


def test_sweep_started_again_after_a_kill_duplicates_no_runs_or_points(
    uri: str, folder: Path
) -> None:
    first = begin_sweep(uri, folder, "killed")
    first.sync(JOB, "f0", "queued")
    first.sync(JOB, "f0", "running", [row(0), row(40)])
    del first  # as if killed: the trial has no outcome and the sweep is not closed
    again = begin_sweep(uri, folder, "killed")
    again.sync(JOB, "f0", "queued", [row(0), row(40)])
    again.sync(JOB, "f0", "running", [row(0), row(40), row(80)])
    store_trial(again, outcome(row(0), row(40), row(80), row(120)))
    again.close("finished", {})
    read = frames.load_frames(uri, "killed")
    assert len(search_trials(uri, "killed")) == len(read.trials) == 1
    assert list(read.trials["state"]) == ["finished"]
    (run,) = search_trials(uri, "killed")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert [point.step for point in points] == [0, 40, 80, 120]


def test_finished_trial_is_not_changed(uri: str, folder: Path) -> None:
    for score in (0.5, 0.9):
        store = begin_sweep(uri, folder, "done")
        store_trial(store, outcome(row(0), row(40) | {METRIC: score}))
        store.close("finished", {})
    assert list(frames.load_frames(uri, "done").trials["score"]) == [0.5]


def test_traceback_of_a_failed_trial_is_an_artifact_of_its_run(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "traceback")
    failed = outcome(row(0), state="failed", reason="KeyError: 'boom'")
    text = "Traceback (most recent call last):\nKeyError: 'boom'"
    store_trial(store, dataclasses.replace(failed, traceback=text))
    (run,) = search_trials(uri, "traceback")
    local = connect_client(uri).download_artifacts(run.info.run_id, "traceback.txt")
    assert Path(local).read_text(encoding="utf-8") == text


def test_failed_trial_that_runs_again_replaces_its_result(uri: str, folder: Path) -> None:
    for end in (outcome(row(0), state="failed", reason="out of memory"), outcome(row(0), row(40))):
        store = begin_sweep(uri, folder, "retry")
        store_trial(store, end)
    trials = frames.load_frames(uri, "retry").trials
    assert list(trials["state"]) == ["finished"]
    assert list(trials["reason"]) == [""]


STATUS: dict[State, str] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "infeasible": "KILLED",
}


def write_record(folder: Path, state: State) -> Path:
    """Write a record with the given state and return its folder."""
    record.write_queued(folder, JOB.trial)
    if state != "queued":
        record.begin_record(folder, JOB.trial)
        record.append_row(folder, row(0))
    if state not in {"queued", "running"}:
        record.write_outcome(folder, outcome(row(0), state=state, reason="because"))
    return folder


@pytest.mark.parametrize("state", get_args(State))
def test_state_in_mlflow_equals_the_state_of_the_record(
    uri: str, folder: Path, tmp_path: Path, state: State
) -> None:
    name = f"state-{state}"
    sync = MlflowSync(begin_sweep(uri, folder, name), pytest.fail, as_recorded)
    sync.submit(JOB, write_record(tmp_path / "f0", state))
    (run,) = search_trials(uri, name)
    assert record.read_state(tmp_path / "f0") == run.data.tags["lab.state"] == state
    assert run.info.status == STATUS[state]
    assert run.data.tags["lab.reason"] == ("" if state in {"queued", "running"} else "because")


@pytest.mark.parametrize("state", ["stopped", "interrupted", "failed"])
def test_run_of_a_trial_that_continues_is_reopened(
    uri: str, folder: Path, tmp_path: Path, state: State
) -> None:
    name = f"again-{state}"
    sync = MlflowSync(begin_sweep(uri, folder, name), pytest.fail, as_recorded)
    for now in (state, "queued", "running"):
        sync.submit(JOB, write_record(tmp_path / "f0", now))
        (run,) = search_trials(uri, name)
        assert run.info.status == STATUS[now]
        assert run.data.tags["lab.state"] == now
    assert run.data.tags["lab.reason"] == ""


class Killed(BaseException):
    """Simulated kill of the driver by a signal."""


WRITES = ("create_run", "log_batch", "update_run", "set_terminated")


@pytest.mark.parametrize("after", range(12))
def test_run_is_complete_after_the_driver_was_killed_at_any_request(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Parameters, points, status and tags are stored in the end, each exactly once."""
    name, rows = f"cut-{after}", (row(0), row(40), row(80))
    first, requests_left = begin_sweep(uri, folder, name), [after]

    def kill_at_limit(write: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if requests_left[0] == 0:
                raise Killed
            requests_left[0] -= 1
            return write(*args, **kwargs)

        return call

    for write in WRITES:
        monkeypatch.setattr(first._client, write, kill_at_limit(getattr(first._client, write)))
    try:
        store_trial(first, outcome(*rows))
    except Killed:
        store_trial(begin_sweep(uri, folder, name), outcome(*rows))
    else:
        assert after > 6
    (run,) = search_trials(uri, name)
    assert run.data.params[WIDTH] == "0.25"
    assert (run.info.status, run.data.tags["lab.state"]) == ("FINISHED", "finished")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert [point.step for point in points] == [0, 40, 80]


def test_driver_that_is_killed_while_it_replaces_a_trial_leaves_no_two_trials_of_one_number(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_trial(begin_sweep(uri, folder, "replaced"), outcome(row(0), row(40)))
    again = begin_sweep(uri, folder, "replaced")
    create_run = again._client.create_run

    def create_and_die(*args: object, **kwargs: object) -> object:
        create_run(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(again._client, "create_run", create_and_die)
    with pytest.raises(Killed):
        again.sync(JOB, "f1", "queued")
    stored = (run.data.tags for run in search_trials(uri, "replaced"))
    roles = {each["lab.fingerprint"]: each["lab.role"] for each in stored}
    assert roles == {"f0": "superseded", "f1": "repeat"}


@pytest.mark.parametrize("after", range(1, 5))
def test_no_value_is_lost_if_the_driver_is_killed_between_requests(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr("lab.tracking.store.BATCH", 6)
    name, wide = f"half-{after}", row(40, **{"train/loss": 3.5})
    first = begin_sweep(uri, folder, name)
    log_batch, requests_left = first._client.log_batch, [after]

    def log_or_kill(*args: object, **kwargs: object) -> object:
        requests_left[0] -= 1
        if requests_left[0] < 1:
            raise Killed
        return log_batch(*args, **kwargs)

    monkeypatch.setattr(first._client, "log_batch", log_or_kill)
    with pytest.raises(Killed):
        first.sync(JOB, "f0", "running", [row(0), wide])
    store_trial(begin_sweep(uri, folder, name), outcome(row(0), wide))
    (run,) = search_trials(uri, name)
    assert run.data.metrics.get("train/loss") == 3.5


class CountingClient:
    """MLflow client that counts its calls by method."""

    def __init__(self, client: object) -> None:
        self.client, self.calls = client, Counter[str]()

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.calls[name] += 1
            return getattr(self.client, name)(*args, **kwargs)

        return call


@pytest.mark.reported
def test_existing_runs_need_few_requests(uri: str, folder: Path) -> None:
    count, done = 120, outcome(row(0), row(40))
    store = begin_sweep(uri, folder, "many")
    store_trial(store, done)
    (run,) = search_trials(uri, "many")
    client = connect_client(uri)
    for number in range(1, count):
        run_tags = run.data.tags | {"lab.number": str(number)}
        client.create_run(run.info.experiment_id, tags=run_tags)
    again = MlflowStore(uri, folder / "artifacts")
    again._client = counted = CountingClient(again._client)
    again.begin(experiment("many"), {"last_command.commit": "abc"}, {})
    assert counted.calls.total() <= 6, counted.calls
    counted.calls.clear()
    for number in range(count):
        again.sync(dataclasses.replace(JOB, number=number), "f0", "finished", done.rows, done)
    assert counted.calls.total() == 0
    again.sync(dataclasses.replace(JOB, number=count), "f0", "queued")
    assert counted.calls["create_run"] == 1


@pytest.mark.reported
def test_ended_trial_is_stored_by_three_requests(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "three")
    store._client = counted = CountingClient(store._client)
    rows = [row(step, **{f"score/{name}": 0.5 for name in range(60)}) for step in range(10)]
    end, entry = outcome(*rows), current_provenance()
    for number in range(4):
        job = dataclasses.replace(JOB, number=number)
        store.sync(job, f"f{number}", "finished", end.rows, end, [entry], {METRIC: [0.1, -0.1]})
    once = Counter({"log_text": 1})  # the provenance, which all trials share
    expected = {"create_run": 4, "log_batch": 4, "set_terminated": 4}
    assert counted.calls == Counter(expected) + once
    read = frames.load_frames(uri, "three")
    assert list(read.trials["state"]) == ["finished"] * 4
    assert len(read.curves) == 40
    assert set(read.trials["commit"]) == {entry.commit}
    assert len(read.blocks) == 4


@pytest.mark.reported
def test_requests_of_a_report_do_not_grow_with_the_trials(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    store = begin_sweep(uri, folder, "few")
    for number in range(3):
        end = outcome(row(0), row(40))
        job = dataclasses.replace(JOB, number=number)
        store.sync(job, f"f{number}", "finished", end.rows, end)
        counted = CountingClient(connect_client(uri))
        with monkeypatch.context() as patch:
            patch.setattr(frames, "connect_client", lambda _, client=counted: client)
            assert len(frames.load_frames(uri, "few").trials) == number + 1
        counts.append(counted.calls.total())
    assert len(set(counts)) == 1


def test_forgotten_run_is_created_again(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "anew")
    store_trial(store, outcome(row(0), row(40)))
    store.delete_run(JOB, "f0")
    store.delete_run(JOB, "f0")
    assert search_trials(uri, "anew") == []
    store_trial(store, outcome(row(0), row(80)))
    (run,) = search_trials(uri, "anew")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert [point.step for point in points] == [0, 80]


def test_trial_that_paused_twice_while_the_store_was_away_has_all_its_points(
    uri: str, folder: Path
) -> None:
    store = begin_sweep(uri, folder, "paused")
    for rows in ((row(0), row(40)), (row(0), row(40), row(80)), (row(0), row(40), row(80))):
        end = outcome(*rows, state="stopped")
        store.sync(JOB, "f0", "stopped", rows, end)
    assert list(frames.load_frames(uri, "paused").curves["step"]) == [0, 40, 80]
    (run,) = search_trials(uri, "paused")
    seconds = connect_client(uri).get_metric_history(run.info.run_id, tags.SLOT_SECONDS)
    assert len(seconds) == 2


@pytest.mark.reported
def test_trial_that_begins_again_has_the_points_before_those_that_were_stored(
    uri: str, folder: Path
) -> None:
    store = begin_sweep(uri, folder, "again")
    store.sync(JOB, "f0", "running", [row(40)])
    store.sync(JOB, "f0", "running", [row(0)])
    store_trial(store, outcome(row(0), row(20), row(40), row(80)))
    assert list(frames.load_frames(uri, "again").curves["step"]) == [0, 20, 40, 80]
    (run,) = search_trials(uri, "again")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert sorted(point.step for point in points) == [0, 20, 40, 80]


def test_unfinished_trial_has_no_score(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "unfinished")
    store_trial(store, outcome(row(0), row(40), state="stopped"))
    assert frames.load_frames(uri, "unfinished").trials["score"].isna().all()


def test_values_that_are_not_finite_are_left_out(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "nan")
    store_trial(store, outcome(row(0), row(40) | {METRIC: math.nan, "train/loss": math.inf}))
    read = frames.load_frames(uri, "nan")
    assert "train/loss" not in read.curves
    assert list(read.curves[METRIC].isna()) == [False, True]


def test_changed_sweep_is_a_new_run_and_the_last_started_is_read(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "changed")
    store.close("finished", {})
    store.begin(experiment("changed", question="Another?"), {}, {})
    assert frames.load_frames(uri, "changed").sweep["question"] == "Another?"


def test_error_for_an_unknown_name_is_one_line_with_the_stored_names(
    uri: str, folder: Path
) -> None:
    begin_sweep(uri, folder, "known")
    with pytest.raises(frames.FramesError, match=r"^nothing: .*known") as caught:
        frames.load_frames(uri, "nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("foo://there", "must be sqlite:"),
        ("mlruns", "file stores"),
        ("file:///somewhere/mlruns", "file stores"),
        ("sqlite://", "no database file"),
        ("http://127.0.0.1:9", "no MLflow server responds"),
    ],
)
def test_error_for_an_unusable_uri_is_one_line(
    uri: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match=message) as caught:
        MlflowStore(uri, tmp_path)
    assert "\n" not in str(caught.value)


def test_error_for_an_unusable_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, and longer than its header would be" * 10)
    for bad in (tmp_path, tmp_path / "file", tmp_path / "file" / "mlflow.db"):
        with pytest.raises(StoreError) as caught:
            connect_client(f"sqlite:///{bad}")
        assert "\n" not in str(caught.value)


@pytest.mark.reported
def test_garbage_database_may_be_deleted_and_is_made_again(tmp_path: Path) -> None:
    uri, file = default_uri(tmp_path), tmp_path / "mlflow.db"
    file.write_bytes(b"garbage" * 1_000)
    advice = f"{file} may be moved away or deleted: lab.sweep makes it again"
    with pytest.raises(StoreError, match=re.escape(advice)):
        begin_sweep(uri, tmp_path, "garbage")
    with pytest.raises(StoreError, match=re.escape(advice)):
        frames.load_frames(uri, "garbage")
    file.unlink()
    store_trial(begin_sweep(uri, tmp_path, "garbage"), outcome(row(0), row(40)))
    assert list(frames.load_frames(uri, "garbage").trials["score"]) == [0.54]


def test_database_that_is_damaged_later_gives_the_same_advice(folder: Path, tmp_path: Path) -> None:
    store_trial(begin_sweep(default_uri(folder), folder, "spoilt"), outcome(row(0), row(40)))
    content = bytearray((folder / "mlflow.db").read_bytes())
    for page in range(8_192, len(content), 4_096):
        content[page : page + 64] = b"\xff" * 64
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(StoreError, match="may be moved away or deleted") as caught:
        frames.load_frames(default_uri(tmp_path), "spoilt")
    assert "\n" not in str(caught.value)


def test_error_for_a_locked_database_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_file = sqlite3.connect
    monkeypatch.setattr(
        "sqlite3.connect", lambda file, **kwargs: connect_file(file, **(kwargs | {"timeout": 0.05}))
    )
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            connect_client(default_uri(tmp_path))
        other.rollback()
    other.close()


def test_labels_are_short_unless_they_are_ambiguous() -> None:
    assert label({"optim.lr": 0.0015, "batch": 64}, {}) == "lr 0.0015, batch 64"
    ambiguous = label({"encoder.layers": 2, "other.layers": 4, "data": {"vocab": 512}}, {})
    assert ambiguous == 'encoder.layers 2, other.layers 4, data {"vocab": 512}'


def test_shared_device_is_marked_and_its_seconds_are_not_compared(uri: str, folder: Path) -> None:
    store = begin_sweep(uri, folder, "shared")
    shared = {"device": "NVIDIA H100", "shared": True}
    counts = {"spent/paper_flops": 1.0, "spent/six_n": 1.0}
    rows = [row(step, **counts) for step in (0, 40)]
    store_trial(store, dataclasses.replace(outcome(*rows), **shared))
    store.close("finished", {})
    read = frames.load_frames(uri, "shared")
    assert list(read.trials["shared"]) == [True]
    (line,) = tables.trial_table(read).rows
    assert "NVIDIA H100 (shared)" in line
    (compute,) = tables.compute_table(stats.compute_answer(read), stats.scored_trials(read)).rows
    assert compute[-1] == "not comparable (shared device)"


TOY = "finetune/toy"


def test_fine_tuning_scores_are_added_to_the_last_point(uri: str, folder: Path) -> None:
    """The last point is stored at the end of pre-training, before fine-tuning is scored."""
    store = begin_sweep(uri, folder, "tuned")
    store.sync(JOB, "f0", "running", (row(0), row(80)))
    more = {TOY: 0.75, f"{TOY}/low": 0.5, "finetune/flops": 1e9}
    done = outcome(row(0), row(80, **more))
    store.sync(JOB, "f0", "finished", done.rows, done)
    store.close("finished", {})
    read = frames.load_frames(uri, "tuned")
    assert {name: read.trials.iloc[0][name] for name in more} == more
    assert read.curves[TOY].tolist()[1:] == [0.75]
    assert read.trials.iloc[0]["spent/flops"] == row(80)["spent/flops"]


def test_report_lists_the_score_of_a_task_but_not_its_components(uri: str, folder: Path) -> None:
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment("ranked", metric=finetuned("toy")), {}, {})
    more = {TOY: 0.75, f"{TOY}/low": 0.5, f"{TOY}/high": 0.9, "finetune/seconds": 2.0}
    for number in range(2):
        job = dataclasses.replace(JOB, number=number, repeat=number + 1)
        store_trial(store, outcome(row(0), row(80, **more)), job)
    store.close("finished", {})
    read = frames.load_frames(uri, "ranked")
    assert read.metric == finetuned("toy")
    answer = stats.compute_answer(read)
    assert answer is not None
    assert answer.cells[0].score.mean == 0.75
    table = score_table.score_table(read, answer, stats.scored_trials(read))
    assert [(line[0], line[-1]) for line in table.rows if "finetune" in line[0]] == [
        (TOY, "ranking metric")
    ]
