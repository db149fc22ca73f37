"""The only writer to MLflow: a sweep is a parent run, a trial a child run of it.

Runs are found again by content (the sweep's hash, the trial's fingerprint and number), so a
sweep that was killed and is started again continues its runs and never doubles a point. One
process and one thread write; workers hand their rows to it.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any

from lab.config.experiment import Experiment, Job
from lab.config.labels import label
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Path, Value, content_hash
from lab.loading.error_messages import SpaceError
from lab.loading.search_space import build_trial, expand_cells
from lab.tracking.client import StoreError, connect_client, database_file, describe_error

_STATUS: dict[State, str] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
SUPERSEDED = "superseded"  # the role of a run that another stands for now
_SETTLED = ("diverged", "stopped")
_NEW = "new"  # a run that was created, and nothing else yet
_BATCH = 900  # MLflow refuses more than 1,000 metrics in one request
_TAG = 8_000  # and longer tags
_PAGE = 1_000  # runs in one answer


@dataclass
class _Run:
    """A child run as this process knows it."""

    id: str
    began: int  # Unix milliseconds
    last: int  # the last step that is stored; -1 before any
    state: str
    superseded: bool = False  # another run has its number now


class MlflowStore:
    """Writes one sweep at a time.

    Args:
        uri: an SQLite database (created where it is missing) or an MLflow server.
        artifacts: folder for artifact files of a database; a server keeps its own.

    Raises:
        StoreError: here and in every method: the store does not take what is written.
    """

    def __init__(self, uri: str, artifacts: File) -> None:
        self._uri = uri
        self._client = connect_client(uri)
        self._location = None if database_file(uri) is None else artifacts.resolve().as_uri()
        self._experiment = ""
        self._parent = ""
        self._metric = ""
        self._runs: dict[str, _Run] = {}

    def begin(
        self, experiment: Experiment, provenance: dict[str, str], texts: dict[str, str]
    ) -> None:
        """Open the sweep's parent run, or the one that an earlier process began.

        Args:
            experiment: resolved; its content hash is the sweep's identity.
            provenance: stored as tags `lab.<key>`.
            texts: artifact files, name to content.
        """
        identity = content_hash(asdict(experiment))
        self._metric = experiment.metric.name
        self._runs = {}
        with describe_error(self._uri):
            self._experiment = self._experiment_id(experiment.name)
            found = self._find({"lab.sweep": identity, "lab.kind": "sweep"})
            run = found or self._client.create_run(self._experiment, run_name=experiment.name)
            self._parent = run.info.run_id
            if found:
                self._client.update_run(self._parent, status="RUNNING")
                self._runs = dict(self._known())
            tags = {f"lab.{key}": value for key, value in provenance.items()}
            self._tag(self._parent, tags | _sweep_tags(experiment, identity))
            for name, content in texts.items():
                self._client.log_text(self._parent, content, name)

    def sync(
        self,
        job: Job,
        fingerprint: str,
        state: State,
        rows: Sequence[MetricRow] = (),
        outcome: Outcome | None = None,
    ) -> None:
        """Bring a job's run up to its record; what is stored already is left as it is.

        Args:
            job: what was asked for.
            fingerprint: of its trial.
            state: where it stands.
            rows: its curve so far; numbers that are not finite are left out.
            outcome: how it ended, once it has.
        """
        with describe_error(self._uri):
            run = self._runs.get(_key(job.number, fingerprint)) or self._create(job, fingerprint)
            self._supersede(job, run)
            if run.state == "finished" or run.state == state in _SETTLED:
                return
            if run.state == _NEW:  # also where an earlier process was killed before it had said all
                self._batch(run.id, params=_flat(asdict(job.trial)))
            self._log(run, rows)
            if outcome is not None:
                self._end(run, outcome)
            elif run.state != state:
                self._client.update_run(run.id, status=_STATUS[state])
                self._tag(run.id, {"lab.state": state, "lab.reason": ""})
            run.state = state

    def forget(self, job: Job, fingerprint: str) -> None:
        """Delete a job's run, so that it is recorded anew."""
        run = self._runs.pop(_key(job.number, fingerprint), None)
        if run is not None:
            with describe_error(self._uri):
                self._client.delete_run(run.id)

    def _create(self, job: Job, fingerprint: str) -> _Run:
        key = {"lab.fingerprint": fingerprint, "lab.number": str(job.number)}
        tags = {"mlflow.parentRunId": self._parent} | key | _job_tags(job)
        name = label(job.cell | job.tuned, job.compared)
        made = self._client.create_run(
            self._experiment,
            run_name=f"{job.number}: {name or 'base'} #{job.repeat}",
            tags=_cut(tags),
        )
        run = self._runs[_key(job.number, fingerprint)] = _Run(
            id=made.info.run_id, began=made.info.start_time, last=-1, state=_NEW
        )
        return run

    def _supersede(self, job: Job, run: _Run) -> None:
        """Let `run` stand for its job alone: a search that learned more may have asked for another.

        What it asked for before stays on record, and is compared with nothing.
        """
        for key, other in self._runs.items():
            mine = key.startswith(f"{job.number} ")
            if mine and other.superseded is (other is run):
                other.superseded = other is not run
                self._tag(other.id, {"lab.role": SUPERSEDED if other.superseded else job.role})

    def _log(self, run: _Run, rows: Iterable[MetricRow]) -> None:
        fresh = [row for row in rows if row["spent/steps"] > run.last]
        points: list[tuple[str, float, int, int]] = []
        for row in fresh:
            more = list(self._points(run, row))
            if len(points) + len(more) > _BATCH:  # a row goes in one request: it is there or not
                self._batch(run.id, metrics=points)
                points = []
            points += more
        if fresh:
            self._batch(run.id, metrics=points)
            run.last = int(fresh[-1]["spent/steps"])

    def _end(self, run: _Run, outcome: Outcome) -> None:
        if outcome.rows and any(name.startswith("finetune/") for name in outcome.rows[-1]):
            # Its last point was logged when pre-training ended, before it had these.
            points = self._points(run, outcome.rows[-1])
            self._batch(run.id, metrics=[p for p in points if "finetune/" in p[0]])
        if outcome.traceback:
            self._client.log_text(run.id, outcome.traceback, "traceback.txt")
        ended = {"slot/seconds": outcome.seconds, "slot/busy_seconds": outcome.busy}
        self._batch(run.id, metrics=[(k, v, 0, _now()) for k, v in ended.items()])
        self._client.set_terminated(run.id, status=_STATUS[outcome.state])
        self._tag(  # last: a run that says how it ended is complete
            run.id,
            {
                "lab.state": outcome.state,
                "lab.reason": outcome.reason,
                "lab.began": f"{outcome.began:.3f}",
                "lab.device": outcome.device,
                "lab.shared": str(outcome.shared),
            },
        )

    def close(self, state: State, measures: dict[str, float]) -> None:
        """Store the sweep's own measures (`slots`, `wall_seconds`, ...) and end its run."""
        with describe_error(self._uri):
            finite = {k: v for k, v in measures.items() if math.isfinite(v)}
            self._batch(self._parent, metrics=[(k, v, 0, _now()) for k, v in finite.items()])
            self._tag(self._parent, {"lab.state": state})
            self._client.set_terminated(self._parent, status=_STATUS[state])

    def _experiment_id(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            created: str = self._client.create_experiment(name, artifact_location=self._location)
            return created
        if known.lifecycle_stage != "active":
            raise StoreError(f"{self._uri}: experiment {name!r} was deleted; restore it in MLflow")
        return str(known.experiment_id)

    def _known(self) -> Iterator[tuple[str, _Run]]:
        """Yield the runs that an earlier process left, in a few requests, however many."""
        query, token = f"tags.mlflow.parentRunId = '{self._parent}'", None
        while True:
            page = self._client.search_runs(
                [self._experiment], query, max_results=_PAGE, page_token=token
            )
            for run in page:
                tags = run.data.tags
                yield (
                    _key(int(tags["lab.number"]), tags["lab.fingerprint"]),
                    _Run(
                        id=run.info.run_id,
                        began=run.info.start_time,
                        last=int(run.data.metrics.get("spent/steps", -1)),
                        state=tags["lab.state"],
                        superseded=tags["lab.role"] == SUPERSEDED,
                    ),
                )
            token = page.token
            if not token:
                return

    def _find(self, tags: Mapping[str, str]) -> Any:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs = self._client.search_runs([self._experiment], query, max_results=1)
        return runs[0] if runs else None

    def _points(self, run: _Run, row: MetricRow) -> Iterator[tuple[str, float, int, int]]:
        """Yield name, value, step and time (ms) of a row's numbers.

        Time is training time after the run's start, so that the UI's time axis shows seconds
        of training. Its other axis is an integer step, hence the copies over compute and data.
        """
        when = run.began + round(1_000 * row.get("spent/seconds", 0.0))
        step = int(row["spent/steps"])
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        yield from ((name, value, step, when) for name, value in finite.items())
        if self._metric in finite:
            score = finite[self._metric]
            yield f"by_gflops/{self._metric}", score, int(row["spent/flops"] / 1e9), when
            yield f"by_ktokens/{self._metric}", score, int(row["spent/tokens"] / 1e3), when

    def _batch(
        self,
        run: str,
        metrics: Iterable[tuple[str, float, int, int]] = (),
        params: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param

        self._client.log_batch(
            run,
            metrics=[Metric(name, value, when, step) for name, value, step, when in metrics],
            params=[Param(name, value) for name, value in (params or {}).items()],
        )

    def _tag(self, run: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run, tags=[RunTag(k, v) for k, v in _cut(tags).items()])


def _key(number: int, fingerprint: str) -> str:
    return f"{number} {fingerprint}"


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: text[:_TAG] for key, text in tags.items()}


def _sweep_tags(experiment: Experiment, identity: str) -> dict[str, str]:
    tune = {path: asdict(distribution) for path, distribution in experiment.tune.items()}
    return {
        "mlflow.note.content": experiment.question,
        "lab.kind": "sweep",
        "lab.sweep": identity,
        "lab.question": experiment.question,
        "lab.metric": experiment.metric.name,
        "lab.answer": experiment.answer,
        "lab.compare": json.dumps(experiment.compare),
        "lab.reference": json.dumps(_reference(experiment)),
        "lab.tune": json.dumps(tune),
        "lab.search.search": json.dumps(asdict(experiment.search)),
        "lab.state": "running",
        "lab.opened": str(_now()),
    }


def _job_tags(job: Job) -> dict[str, str]:
    return {
        "lab.kind": "trial",
        "lab.state": _NEW,
        "lab.reason": "",
        "lab.cell": json.dumps(job.cell),
        "lab.tuned": json.dumps(job.tuned),
        "lab.role": job.role,
        "lab.repeat": str(job.repeat),
    }


def _reference(experiment: Experiment) -> dict[Path, Value]:
    """Return the cell that changes nothing in the base; the first where none does."""
    grid = expand_cells(experiment)
    try:
        base = build_trial(experiment.base, {})
        return next((cell for cell in grid if build_trial(experiment.base, cell) == base), grid[0])
    except SpaceError:  # a base may leave to `compare` what it must have
        return grid[0]


def _flat(value: object, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        inner = (_flat(v, f"{path}.{k}" if path else str(k)) for k, v in value.items())
        return {key: text for part in inner for key, text in part.items()}
    return {path: json.dumps(value) if isinstance(value, (list, tuple)) else str(value)}


def _now() -> int:
    return int(time.time() * 1_000)
