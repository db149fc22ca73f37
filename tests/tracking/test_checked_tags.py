"""A tracking store that another program has changed is refused in one line, or reported."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from experiments import BASE, METRIC, WIDTH, experiment, outcome, row

from lab import report
from lab.config.experiment import Job, Range, SearchConfig
from lab.errors import UserError
from lab.loading.search_space import build_trial
from lab.reporting import page, stats
from lab.tracking import frames, stored_runs, tags
from lab.tracking.checked_tags import ChangedTagError, check_sweep, check_trials
from lab.tracking.client import connect_client, default_uri
from lab.tracking.store import MlflowStore
from lab.tracking.stored_runs import StoredData, StoredInfo, StoredRun

pytestmark = pytest.mark.usefixtures("unsynced")
LR = "optim.lr"
HOSTILE = (
    "",
    "x",
    "null",
    "[]",
    "{}",
    "[1]",
    "NaN",
    "-1",
    "1e999",
    "99999999999999999999",
    "9" * 5_000,
    '{"prior": 5}',
    '{"prior": [5]}',
    '"text"',
    '{"a": 1}',
    '{"a": [Infinity]}',
    '{"optim.lr": {}}',
    '{"optim.lr": NaN}',
    '{"objective.generator.width": 7}',
    "../../etc",
    "[" * 3_000,
)
SWEEP_TAGS = (
    "metric", "answer", "compare", "reference", "tune", "search", "opened", "state", "examples",
)  # fmt: skip
TRIAL_TAGS = (
    "number",
    "repeat",
    "cell",
    "tuned",
    "state",
    "role",
    "fingerprint",
    f"blocks.{METRIC}",
)
FREE = ("question", "reason", "device", "code", "commit", "masked", "command")  # any text is valid


def store_sweep(folder: Path) -> None:
    """Store a sweep of two settings, two rates each and two repeats, as its command does."""
    store = MlflowStore(default_uri(folder), folder / "artifacts")
    tune = {LR: Range(low=1e-3, high=1e-2, log=True)}
    store.begin(
        experiment("sweep", tune=tune, search=SearchConfig(trials=2, seeds=2)),
        {"budget": '{"kind": "flops"}', "command": "lab.sweep", tags.EXAMPLES: "{}"},
        {},
    )
    counts = {"spent/paper_flops": 1.0, "spent/six_n": 1.0}
    number = 0
    for width in (0.25, 0.5):
        for role, repeat, rate in (("search", 0, 2e-3), ("search", 0, 5e-3), ("repeat", 1, 2e-3),
                                   ("repeat", 2, 2e-3)):  # fmt: skip
            cell, tuned = {WIDTH: width}, {LR: rate}
            trial = build_trial(BASE, cell | tuned)
            job = Job(number=number, role=role, cell=cell, tuned=tuned, repeat=repeat, trial=trial)
            rows = (row(0, **counts), row(400, **counts) | {METRIC: 0.6 + number / 100})
            end = outcome(*rows)
            blocks = {METRIC: [0.001, -0.001]}
            store.sync(job, f"f{number}", end.state, end.rows, end, blocks=blocks)
            number += 1
    store.close("finished", {"slots": 2.0, "wall_seconds": 60.0})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a store with the sweep."""
    folder = tmp_path_factory.mktemp("stored")
    store_sweep(folder)
    return folder


@pytest.fixture
def changed(stored: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a copy of the store's database, in `tmp_path`."""
    shutil.copy(stored / "mlflow.db", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as database:
        yield database


def set_tag(database: sqlite3.Connection, name: str, value: str) -> None:
    """Set a tag of all runs that have it."""
    changed = database.execute("UPDATE tags SET value = ? WHERE key = ?", (value, name))
    assert changed.rowcount, name


def load_or_refuse(folder: Path) -> frames.SweepFrames | None:
    """Return the frames, or None if they are refused by a message of one line."""
    try:
        return frames.load_frames(default_uri(folder), "sweep")
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return None


@pytest.fixture(scope="module")
def runs(stored: Path) -> tuple[Any, list[Any]]:
    """Return the sweep's run and those of its trials, as MLflow has them."""
    client = connect_client(default_uri(stored))
    found = client.get_experiment_by_name("sweep").experiment_id
    (parent,) = client.search_runs([found], "tags.`lab.kind` = 'sweep'")
    children = stored_runs.read_children(client, default_uri(stored), found, parent.info.run_id)
    return parent, children


def with_tag(run: Any, name: str, value: str) -> StoredRun:
    """Return a copy of a run with another value of a tag."""
    data = StoredData(
        tags=dict(run.data.tags) | {f"lab.{name}": value},
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
    )
    return StoredRun(StoredInfo(run.info.run_id, run.info.start_time), data)


def is_refused(parent: Any, children: list[Any]) -> bool:
    """Return whether the runs are refused, by a message of one line with the remedy."""
    try:
        check_sweep(parent)
        check_trials(children, tags.remove_prefix(parent.data.tags))
    except ChangedTagError as error:
        message = str(error)
    else:
        return False
    assert "\n" not in message
    assert "run lab.sweep again" in message
    return True


def test_tags_that_the_lab_wrote_are_accepted(runs: tuple[Any, list[Any]]) -> None:
    assert not is_refused(*runs)


OBJECTS = {"{}", '{"a": 1}', '{"optim.lr": {}}', '{"objective.generator.width": 7}'}
ACCEPTED = {
    "search": OBJECTS,
    "examples": OBJECTS | {'{"prior": 5}', '{"prior": [5]}'},
    "fingerprint": {"x", "null", "NaN", "-1", "1e999", "99999999999999999999"},
    f"blocks.{METRIC}": {"[]", "[1]"},
    "tuned": {"{}"},
}


@pytest.mark.reported
@pytest.mark.parametrize("name", [*SWEEP_TAGS, *TRIAL_TAGS])
def test_tag_that_another_program_has_changed_is_refused(
    runs: tuple[Any, list[Any]], name: str
) -> None:
    parent, children = runs
    accepted = set()
    for value in HOSTILE:
        changed = (
            (with_tag(parent, name, value), children)
            if name in SWEEP_TAGS
            else (parent, [with_tag(children[0], name, value), *children[1:]])
        )
        if not is_refused(*changed):
            accepted.add(value)
    assert accepted == ACCEPTED.get(name, set())


def test_missing_tag_is_refused(changed: sqlite3.Connection, tmp_path: Path) -> None:
    changed.execute("DELETE FROM tags WHERE key = 'lab.cell'")
    assert load_or_refuse(tmp_path) is None


def test_any_text_is_reported_where_the_lab_writes_text(
    changed: sqlite3.Connection, tmp_path: Path
) -> None:
    for name, values in ACCEPTED.items():
        set_tag(changed, f"lab.{name}", min(values))
    for name in FREE:
        changed.execute(
            "UPDATE tags SET value = ? WHERE key = ?",
            ("<script>\x1b[31m\x00{}|\n" * 9, f"lab.{name}"),
        )
    table = load_or_refuse(tmp_path)
    assert table is not None
    page.write_report(table, tmp_path / "reports")


@pytest.mark.reported
@pytest.mark.parametrize(
    ("name", "value"),
    [(METRIC, 1e308), ("spent/flops", "text"), ("wall_seconds", 1e308), ("slots", -5.0)],
)
def test_metric_that_is_no_finite_number_is_refused(
    changed: sqlite3.Connection, tmp_path: Path, name: str, value: object
) -> None:
    for table in ("metrics", "latest_metrics"):
        changed.execute(f"UPDATE {table} SET value = ? WHERE key = ?", (value, name))  # noqa: S608
    assert load_or_refuse(tmp_path) is None


def test_evaluation_without_its_compute_is_refused(
    changed: sqlite3.Connection, tmp_path: Path
) -> None:
    changed.execute("DELETE FROM metrics WHERE key = 'spent/flops' AND step = 400")
    assert load_or_refuse(tmp_path) is None


@pytest.mark.reported
def test_report_warns_of_trials_whose_runs_were_deleted(
    changed: sqlite3.Connection, tmp_path: Path
) -> None:
    table = load_or_refuse(tmp_path)
    assert table is not None
    assert not any("tracking store" in flag for flag in stats.flag_trials(table, None))
    deleted = changed.execute(
        "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid IN"
        " (SELECT run_uuid FROM tags WHERE key = 'lab.fingerprint' AND value IN ('f3', 'f7'))"
    )
    assert deleted.rowcount == 2
    table = load_or_refuse(tmp_path)
    assert table is not None
    assert "2 of 8 trials have no run in the tracking store any more" in " ".join(
        stats.flag_trials(table, None)
    )


@pytest.mark.reported
def test_two_trials_with_one_number_are_named_until_the_sweep_runs_again(
    changed: sqlite3.Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (trial_runs(changed, name) for name in ("f0", "f1"))
    changed.execute("UPDATE tags SET value = '0' WHERE key = 'lab.number' AND value = '1'")
    options = ["--storage", str(tmp_path), "--reports", str(tmp_path / "reports")]
    assert report.main(["sweep", *options]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    for part in (first, second, "lab.number 0", "f0 and f1", "run the same lab.sweep command"):
        assert part in message, part
    store_sweep(tmp_path)
    trials = frames.load_frames(default_uri(tmp_path), "sweep").trials
    current = trials[trials["role"] != tags.SUPERSEDED]
    assert list(current["fingerprint"]) == [f"f{number}" for number in range(8)]
    assert list(current["number"]) == list(range(8))
    assert list(trials.loc[trials["role"] == tags.SUPERSEDED, "run_id"]) == [second]


def test_two_runs_of_one_trial_with_one_number_are_one_trial(
    changed: sqlite3.Connection, tmp_path: Path
) -> None:
    run = trial_runs(changed, "f3")
    for name, value in (("lab.number", "2"), ("lab.fingerprint", "f2")):
        changed.execute(
            "UPDATE tags SET value = ? WHERE key = ? AND run_uuid = ?", (value, name, run)
        )
    table = load_or_refuse(tmp_path)
    assert table is not None
    assert sorted(table.trials["fingerprint"]) == ["f0", "f1", "f2", "f4", "f5", "f6", "f7"]


def run_id(run: Any) -> str:
    return str(run.info.run_id)


def test_runs_and_points_of_a_database_are_those_that_the_client_reads(stored: Path) -> None:
    client = connect_client(default_uri(stored))
    found = client.get_experiment_by_name("sweep").experiment_id
    (parent,) = client.search_runs([found], "tags.`lab.kind` = 'sweep'")
    fast, slow = (
        sorted(stored_runs.read_children(client, uri, found, parent.info.run_id), key=run_id)
        for uri in (default_uri(stored), "http://127.0.0.1:9")
    )
    assert len(fast) == 8
    for one, other in zip(fast, slow, strict=True):
        assert one.info.run_id == other.info.run_id
        assert one.info.start_time == other.info.start_time
        assert dict(one.data.tags) == dict(other.data.tags)
        assert dict(one.data.params) == dict(other.data.params)
        assert dict(one.data.metrics) == dict(other.data.metrics)
    points = [
        sorted(stored_runs.read_points(client, uri, fast))
        for uri in (default_uri(stored), "http://127.0.0.1:9")
    ]
    assert points[0] == points[1]
    assert len(points[0]) == len(set(points[0])) > 100


def trial_runs(database: sqlite3.Connection, fingerprint: str) -> str:
    """Return the run of a trial."""
    (run,) = database.execute(
        "SELECT run_uuid FROM tags WHERE key = 'lab.fingerprint' AND value = ?", (fingerprint,)
    ).fetchone()
    return str(run)


CHANGES = {
    "last value": (
        "UPDATE latest_metrics SET value = 0.9 WHERE run_uuid = ? AND key = ?",
        METRIC,
        rf"the last value of metric {METRIC} is 0\.9, and at step 400 it is 0\.6",
    ),
    "deleted last value": (
        "DELETE FROM latest_metrics WHERE run_uuid = ? AND key = ?",
        METRIC,
        rf"the last value of metric {METRIC} is missing",
    ),
    "last point": (
        "UPDATE metrics SET value = 0.9 WHERE run_uuid = ? AND key = ? AND step = 400",
        METRIC,
        rf"the last value of metric {METRIC} is 0\.6, and at step 400 it is 0\.9",
    ),
    "cell": (
        "UPDATE tags SET value = '{\"objective.generator.width\": 0.5}'"
        " WHERE run_uuid = ? AND key = ?",
        "lab.cell",
        r"parameter objective.generator.width is '0\.25', and tag lab.cell has '0\.5'",
    ),
    "tuned": (
        "UPDATE tags SET value = '{\"optim.lr\": 0.005}' WHERE run_uuid = ? AND key = ?",
        "lab.tuned",
        r"parameter optim.lr is '0\.002', and tag lab.tuned has '0\.005'",
    ),
    "budget": (
        "UPDATE params SET value = 'abc' WHERE run_uuid = ? AND key = ?",
        "budget.amount",
        "parameter budget.amount is 'abc'",
    ),
    "start": (
        "UPDATE runs SET start_time = NULL WHERE run_uuid = ? AND ? != ''",
        "start_time",
        "it has no start time",
    ),
}


@pytest.mark.reported
@pytest.mark.parametrize(("change", "key", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_what_mlflow_stores_twice_must_agree(
    changed: sqlite3.Connection, tmp_path: Path, change: str, key: str, message: str
) -> None:
    done = changed.execute(change, (trial_runs(changed, "f0"), key))
    assert done.rowcount == 1
    with pytest.raises(ChangedTagError, match=message):
        frames.load_frames(default_uri(tmp_path), "sweep")


@pytest.mark.reported
def test_a_second_objective_without_values_is_refused(
    changed: sqlite3.Connection, tmp_path: Path
) -> None:
    changed.execute(
        "INSERT INTO tags (key, value, run_uuid) SELECT 'lab.cost', 'tokens', run_uuid FROM tags"
        " WHERE key = 'lab.kind' AND value = 'sweep'"
    )
    with pytest.raises(ChangedTagError, match=r"tag lab\.cost_value is missing"):
        frames.load_frames(default_uri(tmp_path), "sweep")


def test_an_evaluation_that_was_stored_twice_and_a_last_value_that_is_no_number_are_accepted(
    changed: sqlite3.Connection, tmp_path: Path
) -> None:
    """A trial that was continued has other durations; a diverged one ends with NaN."""
    run = trial_runs(changed, "f0")
    columns = "key, value, timestamp, run_uuid, step, is_nan"
    changed.execute(
        f"INSERT INTO metrics ({columns}) SELECT key, value + 1, timestamp + 1, run_uuid, step,"  # noqa: S608
        " is_nan FROM metrics WHERE run_uuid = ? AND key = 'spent/seconds' AND step = 400",
        (run,),
    )
    changed.execute(
        "UPDATE metrics SET is_nan = 1 WHERE run_uuid = ? AND key = 'train/loss' AND step = 400",
        (run,),
    )
    changed.execute(
        "UPDATE latest_metrics SET is_nan = 1 WHERE run_uuid = ? AND key = 'train/loss'", (run,)
    )
    assert load_or_refuse(tmp_path) is not None
