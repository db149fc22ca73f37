"""Write a sweep to MLflow: a parent run for the sweep, a child run for each trial.

Existing runs are found by content (hash of the experiment and identity of the storage; fingerprint
and number of the trial), so a sweep that is started again after it was killed continues its runs
and stores no point twice. The same sweep from another storage has runs of its own. Of one storage,
only one thread of one process writes; workers send their rows to it.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path as File
from typing import Any

from lab.config.code_digest import TRIAL, code_digest
from lab.config.experiment import Experiment, Job
from lab.config.labels import label
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import content_hash
from lab.storage.provenance import Provenance
from lab.tracking import long_values, tags
from lab.tracking.client import StoreError, connect_writer, database_file, describe_error
from lab.tracking.inputs import SweepInputs, log_inputs
from lab.tracking.parameters import flatten_settings
from lab.tracking.points import BATCH, STEPS, MetricPoint, list_points
from lab.tracking.run_tags import (
    block_tags,
    end_tags,
    job_tags,
    process_tags,
    sweep_identity,
    sweep_tags,
)
from lab.tracking.search import drop_duplicates, search_runs
from lab.tracking.stored_runs import read_children
from lab.tracking.user_interface import run_link

_STATUS: dict[State, str] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
    "infeasible": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
_ENDED = ("finished", "stopped", "interrupted", "diverged", "failed", "infeasible")
_TERMINAL_WITHOUT_SCORE = ("diverged", "stopped", "infeasible")
_REQUEST = 1_000  # metrics, parameters and tags per request that MLflow allows
_CURRENT = 60.0  # seconds for which the runs that `begin` has read are taken as complete


_NONE: Mapping[str, str] = {}
_NO_INPUTS = SweepInputs()


@dataclass
class _Run:
    """A child run and the state of it that is stored in MLflow."""

    id: str
    began: int  # Unix time in milliseconds
    last: int  # last step that an earlier process has stored, after all before it; -1 if none is
    state: str
    code: str  # code digest
    provenance: str = ""  # content hash of the stored provenance
    superseded: bool = False  # whether another run of the same code has the same number now
    steps: set[int] = field(default_factory=set)  # that this process has stored

    def holds(self, row: MetricRow) -> bool:
        """Return whether an evaluation is stored."""
        return row[STEPS] <= self.last or int(row[STEPS]) in self.steps


class MlflowStore:
    """Writer of one sweep to the tracking store.

    Args:
        uri: URI of a SQLite database (created if it is missing) or of an MLflow server.
        artifacts: folder for artifact files; used with a database, because a server stores the
            artifacts itself.
        notify: function that prints a line, called if an incomplete database is set aside.

    Raises:
        StoreError: the store cannot be written; every method raises it as well.
    """

    def __init__(
        self, uri: str, artifacts: File, notify: Callable[[str], None] = lambda _: None
    ) -> None:
        self._uri = uri
        self._client = connect_writer(uri, notify)
        self._location = None if database_file(uri) is None else artifacts.resolve().as_uri()
        self._experiment = ""
        self._parent = ""
        self._metric = ""
        self._runs: dict[str, _Run] = {}
        self._stored_provenance: set[str] = set()  # hashes, of the sweep's run
        self._read_at = -math.inf  # monotonic time at which the child runs were read
        self._inputs = _NO_INPUTS

    def begin(
        self,
        experiment: Experiment,
        facts: dict[str, str],
        texts: dict[str, str],
        inputs: SweepInputs = _NO_INPUTS,
        *,
        storage: str = "",
    ) -> None:
        """Create the sweep's parent run, or reopen it if an earlier process created it.

        Args:
            experiment: resolved experiment; its content hash and `storage` identify the sweep.
            facts: values of further tags, by name without the prefix `lab.`.
            texts: contents of artifact files, by file name.
            inputs: data sets that the trials read.
            storage: identity of the storage with the records; empty if there is none.
        """
        identity = sweep_identity(experiment)
        self._metric = experiment.metric.name
        self._runs, self._stored_provenance, self._inputs = {}, set(), inputs
        with describe_error(self._uri):
            self._experiment = self._experiment_id(experiment.name)
            existing = self._find_run(
                {tags.KIND: tags.KIND_SWEEP, tags.SWEEP: identity, tags.STORAGE: storage}
            )
            run = existing or self._client.create_run(self._experiment, run_name=experiment.name)
            self._parent = run.info.run_id
            if existing:
                self._client.update_run(self._parent, status="RUNNING")
                self._runs = _index(
                    read_children(self._client, self._uri, self._experiment, self._parent)
                )
            self._read_at = time.monotonic()
            of_sweep = sweep_tags(experiment, identity, storage, _now())
            self._set_tags(self._parent, tags.add_prefix(facts) | of_sweep)
            for name, content in texts.items():
                self._client.log_text(self._parent, content, name)
            log_inputs(self._client, self._parent, inputs.all())

    def sync(
        self,
        job: Job,
        fingerprint: str,
        state: State,
        rows: Sequence[MetricRow] = (),
        outcome: Outcome | None = None,
        provenance: Sequence[Provenance] = (),
        blocks: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Update a job's run from its record; values that are stored already are not changed.

        Args:
            job: job to store.
            fingerprint: fingerprint of the job's trial.
            state: current state of the trial.
            rows: evaluations so far; values that are not finite are left out.
            outcome: result of the trial; None while it has not ended.
            provenance: provenance of the processes that have computed the trial's numbers so far.
            blocks: contribution of each block of the test set to the final value of each score, and
                to its value at step 0 (`metrics.untrained_name`), of which that of the ranking
                metric is stored.
        """
        with describe_error(self._uri):
            run = self._find_child(job, fingerprint)
            self._mark_superseded(job, run)
            if run is not None and _is_stored(run, state, rows):
                return
            values = self._log_provenance(run, provenance)
            if outcome is not None:
                values |= end_tags(outcome) | block_tags(blocks or {}, self._metric)
            if run is None:  # all tags but the state are stored with the run, in one request
                run = self._create_run(job, fingerprint, values)
                values = {}
            metrics = self._log_rows(run, rows)
            # Also if a process was killed before it stored them.
            new = run.state == tags.STATE_NEW
            params = self._log_settings(run, job, fingerprint) if new else {}
            if outcome is not None:
                metrics += self._end_points(run, outcome)
                if outcome.traceback:
                    self._client.log_text(run.id, outcome.traceback, tags.TRACEBACK_FILE)
            values |= self._set_status(run, state)
            # The last request. MLflow stores tags after parameters and metrics, so a run with the
            # state of an ended trial is complete.
            self._log_batch(run.id, metrics, params, tags.add_prefix(values))
            run.state, run.provenance = state, values.get(tags.PROVENANCE, run.provenance)
            run.steps |= {int(row[STEPS]) for row in rows}

    def _set_status(self, run: _Run, state: State) -> dict[str, str]:
        """Set MLflow's status of a run; return the tags of its state, which are to be set last."""
        if run.state == state and state not in _ENDED:
            return {}
        if state in _ENDED:
            self._client.set_terminated(run.id, status=_STATUS[state])
            return {tags.STATE: state}
        self._client.update_run(run.id, status=_STATUS[state])
        return {tags.STATE: state, tags.REASON: ""}

    def run_address(self, job: Job, fingerprint: str) -> str:
        """Return the address of a job's run in the MLflow UI; empty if it is not stored."""
        run = self._runs.get(_key(job.number, fingerprint))
        return "" if run is None else run_link(self._uri, self._experiment, run.id)

    def delete_run(self, job: Job, fingerprint: str) -> None:
        """Delete a job's run; the next call of `sync` creates a new one."""
        run = self._runs.pop(_key(job.number, fingerprint), None)
        if run is not None:
            with describe_error(self._uri):
                self._client.delete_run(run.id)

    def _find_child(self, job: Job, fingerprint: str) -> _Run | None:
        """Return the run of a job; None if neither this process nor another has created it."""
        key = _key(job.number, fingerprint)
        if key not in self._runs and time.monotonic() - self._read_at > _CURRENT:
            trial = {tags.FINGERPRINT: fingerprint, tags.NUMBER: str(job.number)}
            query = " and ".join(
                [f"tags.{tags.PARENT_RUN} = '{self._parent}'", *_tag_queries(trial)]
            )
            self._runs |= _index(search_runs(self._client, self._experiment, query))
        return self._runs.get(key)

    def _create_run(self, job: Job, fingerprint: str, more: Mapping[str, str]) -> _Run:
        """Create the run of a job with the state `STATE_NEW` and more tags, by short name."""
        values = {tags.PARENT_RUN: self._parent} | job_tags(job, fingerprint, more)
        name = label(job.cell | job.tuned, job.compared)
        created = self._client.create_run(
            self._experiment,
            run_name=f"{job.number}: {name or 'base'} #{job.repeat}",
            tags=long_values.shorten(values, long_values.MOST_TAG).values,
        )
        run = self._runs[_key(job.number, fingerprint)] = _Run(
            id=created.info.run_id,
            began=created.info.start_time,
            last=-1,
            state=tags.STATE_NEW,
            code=code_digest(TRIAL),
            provenance=more.get(tags.PROVENANCE, ""),
        )
        return run

    def _log_settings(self, run: _Run, job: Job, fingerprint: str) -> dict[str, str]:
        """Store data sets and too long values of a trial; return its parameters."""
        params = long_values.shorten(flatten_settings(asdict(job.trial)), long_values.MOST_PARAM)
        of_job = long_values.shorten(job_tags(job, fingerprint, {}), long_values.MOST_TAG)
        for path, text in (params.artifacts | of_job.artifacts).items():
            self._client.log_text(run.id, text, path)
        log_inputs(self._client, run.id, self._inputs.of_trial(job.trial))
        return params.values

    def _mark_superseded(self, job: Job, run: _Run | None) -> None:
        """Tag all other runs of the same code with the number of `job` as superseded by `run`.

        A search that has more results than before may replace the trial of a job by another one.
        The run of the earlier trial stays in the store and takes part in no comparison. It is
        tagged before the run of the new trial is created (`run` is None until then), so that a
        process that is killed between the two leaves no two runs that count.
        """
        code = code_digest(TRIAL) if run is None else run.code
        for key, other in self._runs.items():
            same_number = key.startswith(f"{job.number} ") and other.code == code
            if same_number and other.superseded is (other is run):
                other.superseded = other is not run
                role = tags.SUPERSEDED if other.superseded else job.role
                self._set_tags(other.id, tags.add_prefix({tags.ROLE: role}))

    def _log_rows(self, run: _Run, rows: Iterable[MetricRow]) -> list[MetricPoint]:
        """Store the new rows, and return the points of the last ones, which fit into a request."""
        points: list[MetricPoint] = []
        for row in rows:
            if run.holds(row):
                continue
            # A row is stored if its number of steps is, which comes last: a row of more than one
            # request is stored again if the process is killed between them.
            of_row = list_points(row, run.began, self._metric)
            row_points = sorted(of_row, key=lambda point: point[0] == STEPS)
            if len(points) + len(row_points) > BATCH:
                self._log_batch(run.id, points)
                points = []
            points += row_points
            while len(points) > BATCH:
                self._log_batch(run.id, points[:BATCH])
                points = points[BATCH:]
        return points

    def _log_provenance(self, run: _Run | None, entries: Sequence[Provenance]) -> dict[str, str]:
        """Store the provenance with the sweep if it is new; return the tags that describe it."""
        content = [asdict(entry) for entry in entries]
        identity = content_hash(content)
        if not entries or (run is not None and run.provenance == identity):
            return {}
        if identity not in self._stored_provenance:
            name = tags.PROVENANCE_FILE.format(identity)
            self._client.log_text(self._parent, json.dumps(content, indent=2), name)
            self._stored_provenance.add(identity)
        by_entry = [process_tags(entry) for entry in entries]
        joined = {
            name: tags.SEPARATOR.join(dict.fromkeys(values[name] for values in by_entry))
            for name in tags.PROCESS
        }
        return joined | {tags.PROVENANCE: identity}

    def _end_points(self, run: _Run, outcome: Outcome) -> list[MetricPoint]:
        """Return the durations, the ranking score, and the scores that were added after the end."""
        ends = {tags.SLOT_SECONDS: outcome.seconds, tags.SLOT_BUSY_SECONDS: outcome.busy}
        last = outcome.rows[-1] if outcome.state == "finished" and outcome.rows else {}
        if math.isfinite(score := last.get(self._metric, math.nan)):
            ends[tags.SCORE] = score
        points = [(name, value, 0, _now()) for name, value in ends.items()]
        if not outcome.rows or not run.holds(outcome.rows[-1]):
            return points
        # The last row was logged at the end of pre-training, before fine-tuning was scored.
        last_points = list_points(outcome.rows[-1], run.began, self._metric)
        return points + [point for point in last_points if "finetune/" in point[0]]

    def close(self, state: State, measures: dict[str, float]) -> None:
        """Store the measures of the sweep (`slots`, `wall_seconds`, ...) and end its run."""
        with describe_error(self._uri):
            measures = measures | {tags.TRIALS: float(self._count_current())}
            finite = {k: v for k, v in measures.items() if math.isfinite(v)}
            metrics = [(k, v, 0, _now()) for k, v in finite.items()]
            self._log_batch(self._parent, metrics, values=tags.add_prefix({tags.STATE: state}))
            self._client.set_terminated(self._parent, status=_STATUS[state])

    def _count_current(self) -> int:
        """Return the number of runs of trials by the present code, without superseded ones."""
        code = code_digest(TRIAL)
        return sum(run.code == code and not run.superseded for run in self._runs.values())

    def _experiment_id(self, name: str) -> str:
        existing = self._client.get_experiment_by_name(name)
        if existing is None:
            return self._create_experiment(name)
        if existing.lifecycle_stage != "active":
            raise StoreError(f"{self._uri}: experiment {name!r} was deleted; restore it in MLflow")
        return str(existing.experiment_id)

    def _create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.create_experiment(name, artifact_location=self._location))
        except MlflowException:
            existing = self._client.get_experiment_by_name(name)
            if existing is None:
                raise
            return str(existing.experiment_id)  # another process has created it meanwhile

    def _find_run(self, values: Mapping[str, str]) -> Any:
        query = " and ".join(_tag_queries(values))
        runs = self._client.search_runs([self._experiment], query, max_results=1)
        return runs[0] if runs else None

    def _log_batch(
        self,
        run: str,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] = _NONE,
        values: Mapping[str, str] = _NONE,
    ) -> None:
        """Store metrics, parameters and tags, in one request if they fit into one.

        Args:
            run: identity of the run.
            metrics: points.
            params: parameters by name.
            values: tags by complete name.
        """
        from mlflow.entities import Metric, Param, RunTag

        if metrics and len(metrics) + len(params) + len(values) > _REQUEST:
            self._log_batch(run, metrics)
            metrics = ()
        shortened = long_values.shorten(values, long_values.MOST_TAG)
        for path, text in shortened.artifacts.items():
            self._client.log_text(run, text, path)
        if metrics or params or values:
            self._client.log_batch(
                run,
                metrics=[Metric(name, value, when, step) for name, value, step, when in metrics],
                params=[Param(name, value) for name, value in params.items()],
                tags=[RunTag(name, value) for name, value in shortened.values.items()],
            )

    def _set_tags(self, run: str, values: Mapping[str, str]) -> None:
        self._log_batch(run, values=values)


def _is_stored(run: _Run, state: State, rows: Sequence[MetricRow]) -> bool:
    new = bool(rows) and not run.holds(rows[-1])
    ended = run.state == state in _TERMINAL_WITHOUT_SCORE
    return run.state == "finished" or (ended and not new)


def _index(runs: Iterable[Any]) -> dict[str, _Run]:
    """Return the child runs that earlier processes have stored, by `_key`."""
    return {
        _key(int(trial[tags.NUMBER]), trial[tags.FINGERPRINT]): _Run(
            id=run.info.run_id,
            began=run.info.start_time,
            last=int(run.data.metrics.get(STEPS, -1)),
            state=trial[tags.STATE],
            code=trial.get(tags.CODE, ""),
            provenance=trial.get(tags.PROVENANCE, ""),
            superseded=trial[tags.ROLE] == tags.SUPERSEDED,
        )
        for run, trial in (
            (run, tags.remove_prefix(run.data.tags)) for run in drop_duplicates(runs)
        )
    }


def _tag_queries(values: Mapping[str, str]) -> list[str]:
    return [f"tags.`{tags.full_name(name)}` = '{value}'" for name, value in values.items()]


def _key(number: int, fingerprint: str) -> str:
    return f"{number} {fingerprint}"


def _now() -> int:
    return int(time.time() * 1_000)
