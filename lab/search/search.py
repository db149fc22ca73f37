"""Order of a sweep's jobs: search trials of all cells, then repeats.

Each cell of `compare` has its own study (`study`), which searches the cell's nuisance parameters.
The best setting of a cell is then repeated on new seeds, and only repeats are compared across
cells. If every setting is repeated (`SearchConfig.repeated`), the search has one trial for each
setting and seed, and nothing follows it. With successive halving (`HalvingConfig`), a search trial
that continues past a rung is a job with the same number as before. This package does not import
Ray, so that tests can simulate a sweep.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path as File

from optuna.storages import BaseStorage

from lab.config.experiment import Experiment, Job
from lab.config.results import MetricRow, Outcome
from lab.config.trial import Path, Value
from lab.loading import search_space
from lab.search.designs import best_repeats, trials_of_cell
from lab.search.study import Study, is_retry, open_study


class Search:
    """Jobs of an experiment, in an order that keeps all slots busy.

    Args:
        experiment: experiment to run.
        storage: Optuna storage or its URL; it must have no other writer.
        notes: folder of the notes of the points asked for, from which a lost study is rebuilt.
        fresh: whether to discard the results of earlier runs.
    """

    def __init__(
        self,
        experiment: Experiment,
        storage: str | BaseStorage,
        notes: File,
        *,
        fresh: bool = False,
    ) -> None:
        self._experiment = experiment
        notes.mkdir(parents=True, exist_ok=True)
        studies = open_study(storage) if experiment.tune else None
        self._studies = [
            Study(experiment, cell, studies, notes, fresh=fresh)
            for cell in search_space.expand_cells(experiment)
        ]
        self._running: set[int] = set()
        self._repeats: dict[int, set[int]] = {cell: set() for cell in range(len(self._studies))}

    def ask(self) -> Job | None:
        """Return the next job; None while it depends on a running one, or where none is left."""
        job = next(self._candidates(), None)
        if job is not None:
            self._running.add(job.number)
        return job

    def start(self, job: Job) -> None:
        """Record that a job of this search runs now, and had not ended before."""
        if job.role == "search":
            self._studies[job.number % len(self._studies)].start_asked()

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Record the outcome of a job of this search."""
        self._running.discard(job.number)
        if job.role == "search":
            study = self._studies[job.number % len(self._studies)]
            study.tell(job.number // len(self._studies), outcome)

    def may_stop(self, job: Job) -> bool:
        """Return whether a job may be stopped early: a search trial, with `search.stopping`."""
        return job.role == "search" and self._experiment.search.stopping is not None

    def has_reached_rung(self, job: Job, rows: Sequence[MetricRow]) -> bool:
        """Return whether a job has passed the evaluation at which it pauses."""
        return job.until is not None and len(rows) > job.until

    @property
    def done(self) -> bool:
        """Whether all jobs were asked for, and the outcome of each was told."""
        return not self._running and next(self._candidates(peek=True), None) is None

    def awaits_retry(self, job: Job, outcome: Outcome) -> bool:
        """Return whether the repeats of a job's cell wait until the failed job is retried."""
        has_repeats = len(best_repeats(self._experiment)) > 0
        return has_repeats and job.role == "search" and is_retry(outcome)

    @property
    def jobs(self) -> int:
        """Number of jobs of the experiment."""
        return len(self._studies) * trials_of_cell(self._experiment)

    def _candidates(self, *, peek: bool = False) -> Iterator[Job]:
        """Yield the jobs that can start now: search trials in turn over the cells, then repeats.

        Args:
            peek: whether the studies stay unchanged; the jobs then have no nuisance parameters.
        """
        C = len(self._studies)
        trials = max(study.trials for study in self._studies)
        for index in range(trials):
            for cell, study in enumerate(self._studies):
                if study.can_ask(index):
                    until, tuned = study.until, {} if peek else study.ask(index)
                    repeat = study.repeat_of(index)
                    job = self._build_job(index * C + cell, "search", study, tuned, repeat)
                    yield replace(job, until=until)
        for repeat in best_repeats(self._experiment):
            for cell, study in enumerate(self._studies):
                best = study.best()
                if best is None or repeat in self._repeats[cell]:
                    continue
                if not peek:
                    self._repeats[cell].add(repeat)
                number = (trials + repeat - 1) * C + cell
                yield self._build_job(number, "repeat", study, best, repeat)

    def _build_job(
        self, number: int, role: str, study: Study, tuned: dict[Path, Value], repeat: int
    ) -> Job:
        trial = search_space.build_trial(self._experiment.base, study.settings | tuned)
        return Job(
            number=number,
            role="search" if role == "search" else "repeat",
            cell=study.settings,
            tuned=tuned,
            repeat=repeat,
            trial=replace(trial, seeds=trial.seeds.repeat(repeat)),
            compared=self._experiment.compare,
        )
