"""The ledger: MLflow may be away, and nothing is lost, doubled or out of order."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event

from lab.config import trial as spec
from lab.config.experiment import Experiment, Job, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.loading.search_space import build_trial
from lab.storage import record
from lab.tracking import frames, sync
from lab.tracking.client import StoreError, default_uri
from lab.tracking.store import MlflowStore
from lab.tracking.sync import MlflowSync

pytestmark = pytest.mark.usefixtures("unsynced")
METRIC = "detect/bigram/auroc"
BASE: dict[str, spec.Value] = {
    "encoder": {"size": "tiny"},
    "objective": {"kind": "electra"},
    "budget": {"kind": "flops", "amount": 1e12},
}
TRIAL = build_trial(BASE, {})


def job(number: int) -> Job:
    return Job(number=number, role="repeat", cell={}, tuned={}, repeat=number, trial=TRIAL)


def row(step: int) -> MetricRow:
    spent = {f"spent/{kind}": float(step) for kind in ("steps", "tokens", "flops", "seconds")}
    return spent | {METRIC: 0.5 + step / 100}


def outcome(*rows: MetricRow, state: State = "finished") -> Outcome:
    return Outcome(state=state, reason="", rows=rows, began=1e9, seconds=9.0, busy=8.0)


def ended(folder: Path, how: Outcome) -> None:
    record.write_queued(folder, TRIAL)
    for row in how.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, how)


@dataclass
class Stub:
    """A store that keeps what it is told in order, and can fall silent."""

    silent: bool = False
    calls: list[tuple[str, int, State | None, int]] = field(default_factory=list)
    tries: int = 0

    def _answer(self) -> None:
        self.tries += 1
        if self.silent:
            raise StoreError("no MLflow server answers")

    def sync(
        self,
        job: Job,
        fingerprint: str,  # noqa: ARG002
        state: State,
        rows: tuple[MetricRow, ...] = (),
        outcome: Outcome | None = None,
    ) -> None:
        self._answer()
        assert (outcome is None) == (state in {"queued", "running"})
        self.calls.append(("sync", job.number, state, len(rows)))

    def forget(self, job: Job, fingerprint: str) -> None:  # noqa: ARG002
        self._answer()
        self.calls.append(("forget", job.number, None, 0))


@dataclass
class Clock:
    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(sync, "time", made)
    return made


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(stub: Stub, clock: Clock, said: list[str]) -> MlflowSync:
    return MlflowSync(cast("MlflowStore", stub), said.append)


def test_record_is_copied_at_once_where_the_store_answers(
    kept: MlflowSync, stub: Stub, tmp_path: Path, said: list[str]
) -> None:
    record.write_queued(tmp_path, TRIAL)
    kept.note(job(0), tmp_path)
    record.begin_record(tmp_path, TRIAL)
    record.append_row(tmp_path, row(0))
    kept.note(job(0), tmp_path)
    record.write_outcome(tmp_path, outcome(row(0)))
    kept.note(job(0), tmp_path)
    kept.settle()
    states = ["queued", "running", "finished"]
    assert stub.calls == [("sync", 0, state, n) for state, n in zip(states, (0, 1, 1), strict=True)]
    assert said == []


def test_what_a_silent_store_misses_is_copied_in_order_once_it_is_back(
    kept: MlflowSync, stub: Stub, clock: Clock, said: list[str], tmp_path: Path
) -> None:
    stub.silent = True
    order = [3, 0, 2, 1]
    for number in order:
        record.write_queued(tmp_path / str(number), TRIAL)
        kept.note(job(number), tmp_path / str(number))
        clock.now += 20
    ended(tmp_path / "0", outcome(row(0), row(4)))
    kept.note(job(0), tmp_path / "0")
    assert stub.calls == []
    stub.silent = False
    clock.now += 20
    kept.keep_up()
    states = {0: "finished"}
    assert [(number, state) for _, number, state, _ in stub.calls] == [
        (number, states.get(number, "queued")) for number in order
    ]
    kept.settle()
    assert len(stub.calls) == len(order)
    assert len(said) == 2
    assert said[0].startswith("trials go on")
    assert said[0].endswith("no MLflow server answers")
    assert said[1] == "MLflow is back"


def test_store_that_falls_silent_halfway_gets_the_rest_and_nothing_twice(
    kept: MlflowSync, stub: Stub, clock: Clock, tmp_path: Path
) -> None:
    stub.silent = True
    for number in range(4):
        ended(tmp_path / str(number), outcome(row(0)))
        kept.note(job(number), tmp_path / str(number))
    stub.silent, answer, left = False, stub._answer, [2]

    def falls_silent() -> None:
        left[0] -= 1
        stub.silent = left[0] < 0
        answer()

    stub._answer = falls_silent  # type: ignore[method-assign]
    clock.now += 20
    kept.keep_up()
    assert [number for _, number, _, _ in stub.calls] == [0, 1]
    left[0] = 100
    clock.now += 20
    kept.keep_up()
    assert [number for _, number, _, _ in stub.calls] == [0, 1, 2, 3]


def test_silent_store_is_asked_now_and_then_and_spoken_of_once(
    kept: MlflowSync, stub: Stub, clock: Clock, said: list[str], tmp_path: Path
) -> None:
    stub.silent = True
    record.write_queued(tmp_path, TRIAL)
    for _ in range(600):  # a minute of a running sweep
        kept.note(job(0), tmp_path)
        kept.keep_up()
        clock.now += 0.1
    assert 2 <= stub.tries <= 7
    assert len(said) == 1


@pytest.mark.parametrize("away", [False, True])
def test_run_that_is_recorded_anew_is_forgotten_once_and_first(
    kept: MlflowSync, stub: Stub, clock: Clock, tmp_path: Path, away: bool
) -> None:
    stub.silent = away
    record.write_queued(tmp_path, TRIAL)
    kept.note(job(0), tmp_path, fresh=True)
    kept.note(job(0), tmp_path)
    stub.silent = False
    clock.now += 20
    ended(tmp_path, outcome(row(0)))
    kept.note(job(0), tmp_path)
    assert [call[0] for call in stub.calls].count("forget") == 1
    assert stub.calls[0][0] == "forget"
    assert stub.calls[-1] == ("sync", 0, "finished", 1)


def test_store_that_falls_silent_after_it_has_forgotten_forgets_no_more(
    kept: MlflowSync, stub: Stub, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = stub.forget

    def and_falls_silent(job: Job, fingerprint: str) -> None:
        forget(job, fingerprint)
        stub.silent = True

    monkeypatch.setattr(stub, "forget", and_falls_silent, raising=False)
    record.write_queued(tmp_path, TRIAL)
    kept.note(job(0), tmp_path, fresh=True)
    stub.silent = False
    clock.now += 20
    kept.keep_up()
    assert [call[0] for call in stub.calls] == ["forget", "sync"]


def test_settle_waits_for_the_store(
    kept: MlflowSync, stub: Stub, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.silent = True
    ended(tmp_path, outcome(row(0)))
    kept.note(job(0), tmp_path)
    back = clock.now + 60

    def sleep(seconds: float) -> None:
        clock.now += seconds
        stub.silent = clock.now < back

    monkeypatch.setattr(clock, "sleep", sleep, raising=False)
    kept.settle()
    assert [call[2] for call in stub.calls] == ["finished"]


def test_settle_ends_in_one_line_where_the_store_never_comes_back(
    kept: MlflowSync, stub: Stub, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_PATIENCE", 30.0)
    began = clock.now
    stub.silent = True
    ended(tmp_path, outcome(row(0)))
    kept.note(job(0), tmp_path)
    with pytest.raises(StoreError, match="the same command copies them") as caught:
        kept.settle()
    assert "\n" not in str(caught.value)
    assert "no MLflow server answers" in str(caught.value)
    assert 30 <= clock.now - began <= 35


def experiment(name: str) -> Experiment:
    return Experiment(
        name=name,
        question="Does it?",
        metric=METRICS[METRIC],
        base=BASE,
        compare={},
        tune={},
        search=SearchConfig(seeds=3),
        resources=Resources(),
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let MLflow wait 50 ms for a locked database, in place of 20 s."""

    def sooner(*executed: Any) -> tuple[str, Any]:
        _, _, statement, parameters, *_ = executed
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), parameters

    connect = sqlite3.dbapi2.connect  # SQLAlchemy's
    monkeypatch.setattr("sqlite3.dbapi2.connect", partial(connect, timeout=0.05))
    event.listen(Engine, "before_cursor_execute", sooner, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", sooner)


def test_locked_database_loses_nothing(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(sync, "_AGAIN", 0.0)
    uri, folders = default_uri(tmp_path), [tmp_path / name for name in "abc"]
    store = MlflowStore(uri, tmp_path / "artifacts")
    store.begin(experiment("locked"), {}, {})
    kept = MlflowSync(store, said.append)
    record.write_queued(folders[0], TRIAL)
    kept.note(job(0), folders[0])
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        ended(folders[0], outcome(row(0), row(4)))
        kept.note(job(0), folders[0])
        assert len(said) == 1
        assert "locked" in said[0]
        other.rollback()
    ended(folders[1], outcome(row(0), state="failed"))
    kept.note(job(1), folders[1])
    kept.settle()
    store.close("finished", {})
    trials = frames.load_frames(uri, "locked").trials.sort_values("repeat")
    assert list(trials["state"]) == ["finished", "failed"]
    assert list(frames.load_frames(uri, "locked").curves["step"]) == [0, 4, 0]
    assert said[1:] == ["MLflow is back"]


def test_record_that_ends_while_it_is_copied_is_finished_with_its_outcome_or_not_yet(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the record's files was the last to be read before it ended."""
    uri = default_uri(tmp_path)
    store = MlflowStore(uri, tmp_path / "artifacts")
    store.begin(experiment("overtaken"), {}, {})
    kept, read_text = MlflowSync(store, said.append), Path.read_text
    reads, overtaken = 0, set[int]()

    def overtaking(file: Path, *how: Any, **named: Any) -> str:
        nonlocal reads
        number = len(overtaken)
        if file.parent == tmp_path / str(number):
            if reads == number:
                overtaken.add(number)
                record.append_row(file.parent, row(4))
                record.write_outcome(file.parent, outcome(row(0), row(4)))
            reads += 1
        return read_text(file, *how, **named)

    for number in count():
        folder, reads = tmp_path / str(number), 0
        record.begin_record(folder, TRIAL)
        record.append_row(folder, row(0))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", overtaking)
            kept.note(job(number), folder)
        if number not in overtaken:
            break
    assert len(overtaken) > 2
    once = frames.load_frames(uri, "overtaken").trials.set_index("number")
    assert set(once["state"]) == {"running", "finished"}
    assert set(once["slot/busy_seconds"][once["state"] == "finished"]) == {8.0}
    for number in overtaken:
        kept.note(job(number), tmp_path / str(number))
    record.write_outcome(folder, outcome(row(0)))
    kept.note(job(number + 1), folder)
    store.close("finished", {})
    table = frames.load_frames(uri, "overtaken")
    assert set(table.trials["state"]) == {"finished"}
    assert set(table.trials["slot/busy_seconds"]) == {8.0}
    steps = table.curves.groupby("number")["step"].apply(list)
    assert list(steps) == [[0, 4]] * len(overtaken) + [[0]]
    assert said == []
