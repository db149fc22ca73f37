"""The store, against a real MLflow on SQLite: nothing twice, nothing lost, errors in a line."""

import dataclasses
import math
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from experiments import JOB, METRIC, WIDTH, experiment, outcome, row

from lab.config.experiment import Job
from lab.config.labels import label
from lab.config.metrics import finetuned
from lab.config.results import Outcome, State
from lab.reporting import stats, tables
from lab.storage import record
from lab.tracking import frames
from lab.tracking.client import StoreError, connect_client, default_uri
from lab.tracking.store import MlflowStore
from lab.tracking.sync import MlflowSync

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("store")
    connect_client(default_uri(made))  # the schema takes seconds, so one for all tests
    return made


@pytest.fixture
def uri(folder: Path) -> str:
    return default_uri(folder)


def begun(uri: str, folder: Path, name: str) -> MlflowStore:
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment(name), {"commit": "abc"}, {"space.yaml": "question: Does it?\n"})
    return store


def ended(store: MlflowStore, how: Outcome, job: Job = JOB) -> None:
    """Bring the store up to a trial that ran from its start to its end."""
    store.sync(job, "f0", "queued")
    store.sync(job, "f0", "running", how.rows[:1])
    store.sync(job, "f0", how.state, how.rows, how)


def children(uri: str, name: str) -> list[object]:
    client = connect_client(uri)
    known = client.get_experiment_by_name(name).experiment_id
    return list(client.search_runs([known], "tags.`lab.kind` = 'trial'"))


def test_store_gives_back_what_was_written(uri: str, folder: Path) -> None:
    store = begun(uri, folder, "back")
    ended(store, outcome(row(0), row(40, **{"train/loss": 3.5}), row(80)))
    store.close("finished", {"slots": 2.0, "wall_seconds": math.nan})
    read = frames.load_frames(uri, "back")
    assert read.sweep["question"] == "Does it?"
    assert read.sweep["commit"] == "abc"
    assert read.sweep["state"] == "finished"
    assert read.measures == {"slots": 2.0}
    assert read.texts == {"space.yaml": "question: Does it?\n"}
    one = read.trials.iloc[0]
    assert (one["cell"], one["repeat"], one[WIDTH], one["objective.kind"]) == (
        "width 0.25",
        1,
        0.25,
        "electra",
    )
    assert (one["score"], one["untrained"], one["train/loss"]) == (0.58, 0.5, 3.5)
    assert one["achieved"] == pytest.approx(0.2)
    assert one["slot/seconds"] == 9.0
    assert list(read.curves["step"]) == [0, 40, 80]
    assert read.reference == "width 0.5"  # the default width, which the base does not spell


def test_score_is_also_stored_over_compute_and_data(uri: str, folder: Path) -> None:
    store = begun(uri, folder, "axes")
    ended(store, outcome(row(0), row(40)))
    client, (run,) = connect_client(uri), children(uri, "axes")
    steps = {
        name: [p.step for p in client.get_metric_history(run.info.run_id, f"{name}/{METRIC}")]
        for name in ("by_gflops", "by_ktokens")
    }
    assert steps == {"by_gflops": [0, 100], "by_ktokens": [0, 163]}


def test_killed_sweep_goes_on_without_doubling_runs_or_points(uri: str, folder: Path) -> None:
    first = begun(uri, folder, "killed")
    first.sync(JOB, "f0", "queued")
    first.sync(JOB, "f0", "running", [row(0), row(40)])
    del first  # killed: neither end nor close
    again = begun(uri, folder, "killed")
    again.sync(JOB, "f0", "queued", [row(0), row(40)])
    again.sync(JOB, "f0", "running", [row(0), row(40), row(80)])
    ended(again, outcome(row(0), row(40), row(80), row(120)))
    again.close("finished", {})
    read = frames.load_frames(uri, "killed")
    assert len(children(uri, "killed")) == len(read.trials) == 1
    assert list(read.trials["state"]) == ["finished"]
    (run,) = children(uri, "killed")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert [point.step for point in points] == [0, 40, 80, 120]


def test_finished_trial_is_left_as_it_is(uri: str, folder: Path) -> None:
    for score in (0.5, 0.9):
        store = begun(uri, folder, "done")
        ended(store, outcome(row(0), row(40) | {METRIC: score}))
        store.close("finished", {})
    assert list(frames.load_frames(uri, "done").trials["score"]) == [0.5]


def test_failed_trial_is_taken_up_again(uri: str, folder: Path) -> None:
    for end in (outcome(row(0), state="failed", reason="out of memory"), outcome(row(0), row(40))):
        store = begun(uri, folder, "retry")
        ended(store, end)
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
}


def recorded(folder: Path, state: State) -> Path:
    """Leave a record that stands at `state`."""
    record.write_queued(folder, JOB.trial)
    if state != "queued":
        record.begin_record(folder, JOB.trial)
        record.append_row(folder, row(0))
    if state not in {"queued", "running"}:
        record.write_outcome(folder, outcome(row(0), state=state, reason="because"))
    return folder


@pytest.mark.parametrize("state", get_args(State))
def test_state_in_mlflow_is_that_of_the_record(
    uri: str, folder: Path, tmp_path: Path, state: State
) -> None:
    name = f"state-{state}"
    kept = MlflowSync(begun(uri, folder, name), pytest.fail)
    kept.note(JOB, recorded(tmp_path / "f0", state))
    (run,) = children(uri, name)
    assert record.read_state(tmp_path / "f0") == run.data.tags["lab.state"] == state
    assert run.info.status == STATUS[state]
    assert run.data.tags["lab.reason"] == ("" if state in {"queued", "running"} else "because")


@pytest.mark.parametrize("state", ["stopped", "interrupted", "failed"])
def test_run_that_goes_on_is_open_again(
    uri: str, folder: Path, tmp_path: Path, state: State
) -> None:
    name = f"again-{state}"
    kept = MlflowSync(begun(uri, folder, name), pytest.fail)
    for now in (state, "queued", "running"):
        kept.note(JOB, recorded(tmp_path / "f0", now))
        (run,) = children(uri, name)
        assert run.info.status == STATUS[now]
        assert run.data.tags["lab.state"] == now
    assert run.data.tags["lab.reason"] == ""


class Killed(BaseException):
    """The driver is gone, as by a signal."""


WRITES = ("create_run", "log_batch", "update_run", "set_terminated")


@pytest.mark.parametrize("after", range(12))
def test_driver_killed_after_any_request_is_completed(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Params, points, status and tags are all there in the end, and once."""
    name, rows = f"cut-{after}", (row(0), row(40), row(80))
    first, left = begun(uri, folder, name), [after]

    def killing(write: Callable[..., object]) -> Callable[..., object]:
        def killed(*given: object, **named: object) -> object:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return write(*given, **named)

        return killed

    for write in WRITES:
        monkeypatch.setattr(first._client, write, killing(getattr(first._client, write)))
    try:
        ended(first, outcome(*rows))
    except Killed:
        ended(begun(uri, folder, name), outcome(*rows))
    else:
        assert after > 8
    (run,) = children(uri, name)
    assert run.data.params[WIDTH] == "0.25"
    assert (run.info.status, run.data.tags["lab.state"]) == ("FINISHED", "finished")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert [point.step for point in points] == [0, 40, 80]


@pytest.mark.parametrize("after", range(1, 5))
def test_driver_killed_between_the_requests_of_a_row_loses_none_of_it(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr("lab.tracking.store._BATCH", 6)
    name, wide = f"half-{after}", row(40, **{"train/loss": 3.5})
    first = begun(uri, folder, name)
    log, left = first._client.log_batch, [after]

    def killed(*given: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 1:
            raise Killed
        return log(*given, **named)

    monkeypatch.setattr(first._client, "log_batch", killed)
    with pytest.raises(Killed):
        first.sync(JOB, "f0", "running", [row(0), wide])
    ended(begun(uri, folder, name), outcome(row(0), wide))
    (run,) = children(uri, name)
    assert run.data.metrics.get("train/loss") == 3.5


class Counted:
    """A client that counts what it is asked."""

    def __init__(self, client: object) -> None:
        self.client, self.calls = client, Counter[str]()

    def __getattr__(self, name: str) -> Callable[..., object]:
        def asked(*given: object, **named: object) -> object:
            self.calls[name] += 1
            return getattr(self.client, name)(*given, **named)

        return asked


def test_runs_that_are_known_cost_a_handful_of_requests(uri: str, folder: Path) -> None:
    known, done = 120, outcome(row(0), row(40))
    store = begun(uri, folder, "many")
    ended(store, done)
    (run,) = children(uri, "many")
    client = connect_client(uri)
    for number in range(1, known):
        tags = run.data.tags | {"lab.number": str(number)}
        client.create_run(run.info.experiment_id, tags=tags)
    again = MlflowStore(uri, folder / "artifacts")
    again._client = counted = Counted(again._client)
    again.begin(experiment("many"), {"commit": "abc"}, {})
    assert counted.calls.total() <= 6, counted.calls
    counted.calls.clear()
    for number in range(known):
        again.sync(dataclasses.replace(JOB, number=number), "f0", "finished", done.rows, done)
    assert counted.calls.total() == 0
    again.sync(dataclasses.replace(JOB, number=known), "f0", "queued")
    assert counted.calls["create_run"] == 1


def test_run_that_is_forgotten_is_recorded_anew(uri: str, folder: Path) -> None:
    store = begun(uri, folder, "anew")
    ended(store, outcome(row(0), row(40)))
    store.forget(JOB, "f0")
    store.forget(JOB, "f0")
    assert children(uri, "anew") == []
    ended(store, outcome(row(0), row(80)))
    (run,) = children(uri, "anew")
    points = connect_client(uri).get_metric_history(run.info.run_id, METRIC)
    assert [point.step for point in points] == [0, 80]


def test_score_of_an_unfinished_trial_is_no_score(uri: str, folder: Path) -> None:
    store = begun(uri, folder, "unfinished")
    ended(store, outcome(row(0), row(40), state="stopped"))
    assert frames.load_frames(uri, "unfinished").trials["score"].isna().all()


def test_numbers_that_are_not_finite_are_left_out(uri: str, folder: Path) -> None:
    store = begun(uri, folder, "nan")
    ended(store, outcome(row(0), row(40) | {METRIC: math.nan, "train/loss": math.inf}))
    read = frames.load_frames(uri, "nan")
    assert "train/loss" not in read.curves
    assert list(read.curves[METRIC].isna()) == [False, True]


def test_changed_sweep_is_another_run_and_the_last_opened_is_read(uri: str, folder: Path) -> None:
    store = begun(uri, folder, "changed")
    store.close("finished", {})
    store.begin(experiment("changed", question="Another?"), {}, {})
    assert frames.load_frames(uri, "changed").sweep["question"] == "Another?"


def test_unknown_name_is_one_line_with_the_names_there_are(uri: str, folder: Path) -> None:
    begun(uri, folder, "known")
    with pytest.raises(frames.FramesError, match=r"^nothing: .*known") as caught:
        frames.load_frames(uri, "nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("foo://there", "write sqlite:"),
        ("mlruns", "file stores"),
        ("file:///somewhere/mlruns", "file stores"),
        ("sqlite://", "no database file"),
        ("http://127.0.0.1:9", "no MLflow server answers"),
    ],
)
def test_unreadable_uri_is_one_line(
    uri: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match=says) as caught:
        MlflowStore(uri, tmp_path)
    assert "\n" not in str(caught.value)


def test_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, and longer than its header would be" * 10)
    for bad in (tmp_path, tmp_path / "file", tmp_path / "file" / "mlflow.db"):
        with pytest.raises(StoreError) as caught:
            connect_client(f"sqlite:///{bad}")
        assert "\n" not in str(caught.value)


def test_locked_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect_file = sqlite3.connect
    monkeypatch.setattr(
        "sqlite3.connect", lambda file, **how: connect_file(file, **(how | {"timeout": 0.05}))
    )
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            connect_client(default_uri(tmp_path))
        other.rollback()
    other.close()


def test_labels_are_short_unless_they_collide() -> None:
    assert label({"optim.lr": 0.0015, "batch": 64}, {}) == "lr 0.0015, batch 64"
    collide = label({"encoder.layers": 2, "other.layers": 4, "data": {"vocab": 512}}, {})
    assert collide == 'encoder.layers 2, other.layers 4, data {"vocab": 512}'


def test_device_that_trials_share_is_marked_and_its_seconds_are_compared_with_none(
    uri: str, folder: Path
) -> None:
    store = begun(uri, folder, "shared")
    shared = {"device": "NVIDIA H100", "shared": True}
    counts = {"spent/paper_flops": 1.0, "spent/six_n": 1.0}
    rows = [row(step, **counts) for step in (0, 40)]
    ended(store, dataclasses.replace(outcome(*rows), **shared))
    store.close("finished", {})
    read = frames.load_frames(uri, "shared")
    assert list(read.trials["shared"]) == [True]
    (line,) = tables.trial_table(read).rows
    assert "NVIDIA H100 (shared)" in line
    (cost,) = tables.compute_table(stats.compute_answer(read), stats.scored_trials(read)).rows
    assert cost[-1] == "shared device"


TOY = "finetune/toy"


def test_scores_of_fine_tuning_reach_a_point_that_was_stored_before_them(
    uri: str, folder: Path
) -> None:
    """The last point is stored when pre-training ends, and has them once the trial has."""
    store = begun(uri, folder, "tuned")
    store.sync(JOB, "f0", "running", (row(0), row(80)))
    more = {TOY: 0.75, f"{TOY}/low": 0.5, "finetune/flops": 1e9}
    done = outcome(row(0), row(80, **more))
    store.sync(JOB, "f0", "finished", done.rows, done)
    store.close("finished", {})
    read = frames.load_frames(uri, "tuned")
    assert {name: read.trials.iloc[0][name] for name in more} == more
    assert read.curves[TOY].tolist()[1:] == [0.75]
    assert read.trials.iloc[0]["spent/flops"] == row(80)["spent/flops"]


def test_report_lists_the_score_of_a_task_and_not_its_parts(uri: str, folder: Path) -> None:
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment("ranked", metric=finetuned("toy")), {}, {})
    more = {TOY: 0.75, f"{TOY}/low": 0.5, f"{TOY}/high": 0.9, "finetune/seconds": 2.0}
    for number in range(2):
        job = dataclasses.replace(JOB, number=number, repeat=number + 1)
        ended(store, outcome(row(0), row(80, **more)), job)
    store.close("finished", {})
    read = frames.load_frames(uri, "ranked")
    assert read.metric == finetuned("toy")
    answer = stats.compute_answer(read)
    assert answer is not None
    assert answer.cells[0].score.mean == 0.75
    table = tables.score_table(read, answer, stats.scored_trials(read))
    assert [(line[0], line[-1]) for line in table.rows if "finetune" in line[0]] == [(TOY, "ranks")]
