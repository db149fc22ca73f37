"""`MlflowSync` with an unavailable MLflow: nothing is lost, duplicated or out of order."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from experiments import as_recorded
from sqlalchemy import Engine, event

from lab.config.experiment import Experiment, Job, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Value
from lab.loading.search_space import build_trial
from lab.storage import record, regular_files
from lab.storage.provenance import Provenance
from lab.tracking import frames, sync
from lab.tracking.client import StoreError, default_uri
from lab.tracking.store import MlflowStore
from lab.tracking.sync import MlflowSync

pytestmark = pytest.mark.usefixtures("unsynced")
METRIC = "detect/bigram/auroc"
BASE: dict[str, Value] = {
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
    return Outcome(state=state, reason="", rows=rows, started_at=1e9, seconds=9.0, busy=8.0)


def write_ended(folder: Path, end: Outcome) -> None:
    record.write_queued(folder, TRIAL)
    for row in end.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, end)


@dataclass
class StubStore:
    """Tracking store that records its calls in order and can be made unavailable."""

    available: bool = True
    calls: list[tuple[str, int, State | None, int]] = field(default_factory=list)
    attempts: int = 0

    def _check(self) -> None:
        self.attempts += 1
        if not self.available:
            raise StoreError("no MLflow server responds")

    def sync(
        self,
        job: Job,
        fingerprint: str,  # noqa: ARG002
        state: State,
        rows: tuple[MetricRow, ...] = (),
        outcome: Outcome | None = None,
        provenance: tuple[Provenance, ...] = (),  # noqa: ARG002
        blocks: dict[str, list[float]] | None = None,  # noqa: ARG002
    ) -> None:
        self._check()
        assert (outcome is None) == (state in {"queued", "running"})
        self.calls.append(("sync", job.number, state, len(rows)))

    def delete_run(self, job: Job, fingerprint: str) -> None:  # noqa: ARG002
        self._check()
        self.calls.append(("delete_run", job.number, None, 0))


@dataclass
class Clock:
    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sync, "time", clock)
    return clock


@pytest.fixture
def stub() -> StubStore:
    return StubStore()


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def syncer(stub: StubStore, clock: Clock, messages: list[str]) -> MlflowSync:
    return MlflowSync(cast("MlflowStore", stub), messages.append, as_recorded)


def test_record_is_copied_at_once_if_the_store_is_available(
    syncer: MlflowSync, stub: StubStore, tmp_path: Path, messages: list[str]
) -> None:
    record.write_queued(tmp_path, TRIAL)
    syncer.submit(job(0), tmp_path)
    record.begin_record(tmp_path, TRIAL)
    record.append_row(tmp_path, row(0))
    syncer.submit(job(0), tmp_path)
    record.write_outcome(tmp_path, outcome(row(0)))
    syncer.submit(job(0), tmp_path)
    syncer.flush()
    states = ["queued", "running", "finished"]
    assert stub.calls == [("sync", 0, state, n) for state, n in zip(states, (0, 1, 1), strict=True)]
    assert messages == []


def test_record_that_ends_before_its_end_is_handled_has_its_outcome_in_the_sweep(
    stub: StubStore, clock: Clock, messages: list[str], tmp_path: Path
) -> None:
    """A stored run that has finished is not changed any more."""

    def judge(_: Job, outcome: Outcome) -> Outcome:
        return replace(outcome, state="stopped")

    syncer = MlflowSync(cast("MlflowStore", stub), messages.append, judge)
    write_ended(tmp_path, outcome(row(0), row(4)))
    syncer.submit(job(0), tmp_path)  # for a new evaluation
    assert stub.calls == [("sync", 0, "stopped", 2)]


def test_records_are_copied_in_order_once_the_store_is_available_again(
    syncer: MlflowSync, stub: StubStore, clock: Clock, messages: list[str], tmp_path: Path
) -> None:
    stub.available = False
    order = [3, 0, 2, 1]
    for number in order:
        record.write_queued(tmp_path / str(number), TRIAL)
        syncer.submit(job(number), tmp_path / str(number))
        clock.now += 20
    write_ended(tmp_path / "0", outcome(row(0), row(4)))
    syncer.submit(job(0), tmp_path / "0")
    assert stub.calls == []
    stub.available = True
    clock.now += 20
    syncer.copy_pending()
    states = {0: "finished"}
    assert [(number, state) for _, number, state, _ in stub.calls] == [
        (number, states.get(number, "queued")) for number in order
    ]
    syncer.flush()
    assert len(stub.calls) == len(order)
    assert len(messages) == 2
    assert messages[0].startswith("MLflow is not available; trials continue")
    assert messages[0].endswith("no MLflow server responds")
    assert messages[1] == "MLflow is available again"


def test_records_are_copied_once_if_the_store_fails_halfway(
    syncer: MlflowSync, stub: StubStore, clock: Clock, tmp_path: Path
) -> None:
    stub.available = False
    for number in range(4):
        write_ended(tmp_path / str(number), outcome(row(0)))
        syncer.submit(job(number), tmp_path / str(number))
    stub.available, check, requests_left = True, stub._check, [2]

    def fail_at_limit() -> None:
        requests_left[0] -= 1
        stub.available = requests_left[0] >= 0
        check()

    stub._check = fail_at_limit  # type: ignore[method-assign]
    clock.now += 20
    syncer.copy_pending()
    assert [number for _, number, _, _ in stub.calls] == [0, 1]
    requests_left[0] = 100
    clock.now += 20
    syncer.copy_pending()
    assert [number for _, number, _, _ in stub.calls] == [0, 1, 2, 3]


def test_unavailable_store_is_retried_at_intervals_and_reported_once(
    syncer: MlflowSync, stub: StubStore, clock: Clock, messages: list[str], tmp_path: Path
) -> None:
    stub.available = False
    record.write_queued(tmp_path, TRIAL)
    for _ in range(600):  # a minute of a running sweep
        syncer.submit(job(0), tmp_path)
        syncer.copy_pending()
        clock.now += 0.1
    assert 2 <= stub.attempts <= 7
    assert len(messages) == 1


@pytest.mark.parametrize("available", [True, False])
def test_run_of_a_fresh_record_is_deleted_once_before_it_is_stored(
    syncer: MlflowSync, stub: StubStore, clock: Clock, tmp_path: Path, available: bool
) -> None:
    stub.available = available
    record.write_queued(tmp_path, TRIAL)
    syncer.submit(job(0), tmp_path, fresh=True)
    syncer.submit(job(0), tmp_path)
    stub.available = True
    clock.now += 20
    write_ended(tmp_path, outcome(row(0)))
    syncer.submit(job(0), tmp_path)
    assert [call[0] for call in stub.calls].count("delete_run") == 1
    assert stub.calls[0][0] == "delete_run"
    assert stub.calls[-1] == ("sync", 0, "finished", 1)


def test_run_is_not_deleted_twice_if_the_store_fails_after_the_deletion(
    syncer: MlflowSync,
    stub: StubStore,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delete_run = stub.delete_run

    def delete_run_and_fail(job: Job, fingerprint: str) -> None:
        delete_run(job, fingerprint)
        stub.available = False

    monkeypatch.setattr(stub, "delete_run", delete_run_and_fail, raising=False)
    record.write_queued(tmp_path, TRIAL)
    syncer.submit(job(0), tmp_path, fresh=True)
    stub.available = True
    clock.now += 20
    syncer.copy_pending()
    assert [call[0] for call in stub.calls] == ["delete_run", "sync"]


def test_deferred_records_are_copied_after_submitted_ones_and_for_half_a_second_a_call(
    syncer: MlflowSync, stub: StubStore, clock: Clock, tmp_path: Path
) -> None:
    noted: list[int] = []
    check = stub._check

    def take_time() -> None:
        clock.now += 0.2
        check()

    stub._check = take_time  # type: ignore[method-assign]
    for number in range(13):
        write_ended(tmp_path / str(number), outcome(row(0)))
    for number in range(12):
        syncer.defer(job(number), tmp_path / str(number), copied=partial(noted.append, number))
    assert stub.calls == []
    syncer.submit(job(12), tmp_path / "12")
    copied = [number for _, number, _, _ in stub.calls]
    assert copied == [12, 0, 1]
    assert noted == [0, 1]
    syncer.copy_pending()
    assert [number for _, number, _, _ in stub.calls] == [*copied, 2, 3, 4]
    shares: list[float] = []
    syncer.flush(shares.append)
    assert [number for _, number, _, _ in stub.calls] == [12, *range(12)]
    assert noted == list(range(12))
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1


def test_deferred_records_are_kept_while_the_store_is_not_available(
    syncer: MlflowSync, stub: StubStore, clock: Clock, tmp_path: Path
) -> None:
    noted: list[int] = []
    write_ended(tmp_path, outcome(row(0)))
    stub.available = False
    syncer.defer(job(0), tmp_path, copied=partial(noted.append, 0))
    syncer.copy_pending()
    assert (stub.calls, noted) == ([], [])
    stub.available = True
    clock.now += 20
    syncer.copy_pending()
    assert stub.calls == [("sync", 0, "finished", 1)]
    assert noted == [0]


def test_settle_waits_for_the_store(
    syncer: MlflowSync,
    stub: StubStore,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.available = False
    write_ended(tmp_path, outcome(row(0)))
    syncer.submit(job(0), tmp_path)
    available_at = clock.now + 60

    def sleep(seconds: float) -> None:
        clock.now += seconds
        stub.available = clock.now >= available_at

    monkeypatch.setattr(clock, "sleep", sleep, raising=False)
    syncer.flush()
    assert [call[2] for call in stub.calls] == ["finished"]


def test_settle_raises_one_line_if_the_store_stays_unavailable(
    syncer: MlflowSync,
    stub: StubStore,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync, "_TIMEOUT", 30.0)
    start = clock.now
    stub.available = False
    write_ended(tmp_path, outcome(row(0)))
    syncer.submit(job(0), tmp_path)
    with pytest.raises(StoreError, match="run the same command again") as caught:
        syncer.flush()
    assert "\n" not in str(caught.value)
    assert "no MLflow server responds" in str(caught.value)
    assert 30 <= clock.now - start <= 35


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
def short_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let MLflow wait 50 ms for a locked database instead of 20 s."""

    def shorten(*arguments: Any) -> tuple[str, Any]:
        _, _, statement, parameters, *_ = arguments
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), parameters

    connect = sqlite3.dbapi2.connect  # SQLAlchemy's
    monkeypatch.setattr("sqlite3.dbapi2.connect", partial(connect, timeout=0.05))
    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


def test_no_record_is_lost_while_the_database_is_locked(
    tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch, short_lock_timeout: None
) -> None:
    monkeypatch.setattr(sync, "_RETRY_INTERVAL", 0.0)
    uri, folders = default_uri(tmp_path), [tmp_path / name for name in "abc"]
    store = MlflowStore(uri, tmp_path / "artifacts")
    store.begin(experiment("locked"), {}, {})
    syncer = MlflowSync(store, messages.append, as_recorded)
    record.write_queued(folders[0], TRIAL)
    syncer.submit(job(0), folders[0])
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        write_ended(folders[0], outcome(row(0), row(4)))
        syncer.submit(job(0), folders[0])
        assert len(messages) == 1
        assert "locked" in messages[0]
        other.rollback()
    write_ended(folders[1], outcome(row(0), state="failed"))
    syncer.submit(job(1), folders[1])
    syncer.flush()
    store.close("finished", {})
    trials = frames.load_frames(uri, "locked").trials.sort_values("repeat")
    assert list(trials["state"]) == ["finished", "failed"]
    assert list(frames.load_frames(uri, "locked").curves["step"]) == [0, 4, 0]
    assert messages[1:] == ["MLflow is available again"]


def test_record_that_ends_while_it_is_copied_is_stored_as_running_or_complete(
    tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial ends before the read of each file of the record in turn."""
    uri = default_uri(tmp_path)
    store = MlflowStore(uri, tmp_path / "artifacts")
    store.begin(experiment("early"), {}, {})
    syncer, open_binary = MlflowSync(store, messages.append, as_recorded), regular_files.open_binary
    reads, ended_early = 0, set[int]()

    def open_after_end(file: Path) -> BinaryIO:
        nonlocal reads
        number = len(ended_early)
        if file.parent == tmp_path / str(number):
            if reads == number:
                ended_early.add(number)
                record.append_row(file.parent, row(4))
                record.write_outcome(file.parent, outcome(row(0), row(4)))
            reads += 1
        return open_binary(file)

    for number in count():
        folder, reads = tmp_path / str(number), 0
        record.begin_record(folder, TRIAL)
        record.append_row(folder, row(0))
        with monkeypatch.context() as patch:
            patch.setattr(regular_files, "open_binary", open_after_end)
            syncer.submit(job(number), folder)
        if number not in ended_early:
            break
    assert len(ended_early) > 2
    trials = frames.load_frames(uri, "early").trials.set_index("number")
    assert set(trials["state"]) == {"running", "finished"}
    assert set(trials["slot/busy_seconds"][trials["state"] == "finished"]) == {8.0}
    for number in ended_early:
        syncer.submit(job(number), tmp_path / str(number))
    record.write_outcome(folder, outcome(row(0)))
    syncer.submit(job(number + 1), folder)
    store.close("finished", {})
    table = frames.load_frames(uri, "early")
    assert set(table.trials["state"]) == {"finished"}
    assert set(table.trials["slot/busy_seconds"]) == {8.0}
    steps = table.curves.groupby("number")["step"].apply(list)
    assert list(steps) == [[0, 4]] * len(ended_early) + [[0]]
    assert messages == []
