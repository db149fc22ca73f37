"""What to run next: cells, nuisances, repeats. Knows no Ray, so simulation tests it.

Each cell of `compare` has a study of its own (`study`), in which its nuisances are searched. Its
best setting is then repeated on fresh seeds, and only repeats are compared across cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path as File

from lab.config.experiment import Experiment, Job
from lab.config.results import MetricRow, Outcome
from lab.config.trial import Path, Value
from lab.loading import search_space
from lab.search.study import Study, is_retry, open_study


class Search:
    """The jobs of an experiment, in an order that keeps all slots busy.

    Args:
        experiment: what is asked.
        storage: Optuna storage URL; one writer.
        notes: folder of what was asked for, from which a lost study is rebuilt.
        fresh: whether to begin anew, whatever was told before.
    """

    def __init__(
        self, experiment: Experiment, storage: str, notes: File, *, fresh: bool = False
    ) -> None:
        self._experiment = experiment
        notes.mkdir(parents=True, exist_ok=True)
        studies = open_study(storage) if experiment.tune else None
        self._studies = [
            Study(experiment, cell, studies, notes, fresh=fresh)
            for cell in search_space.expand_cells(experiment)
        ]
        self._running: set[int] = set()
        self._repeats: dict[int, set[int]] = {place: set() for place in range(len(self._studies))}

    def ask(self) -> Job | None:
        """Return the next job; None while it depends on one that runs, or when all are out."""
        job = next(self._candidates(), None)
        if job is not None:
            self._running.add(job.number)
        return job

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Record how a job of this search ended."""
        self._running.discard(job.number)
        if job.role == "search":
            cell = self._studies[job.number % len(self._studies)]
            cell.tell(job.number // len(self._studies), outcome)

    def stops(self, job: Job) -> bool:
        """Return whether a job may be ended early."""
        return job.role == "search" and self._experiment.search.stopping is not None

    def stopped(self, job: Job) -> bool:
        """Return whether this very search has ended a job early before."""
        study = self._studies[job.number % len(self._studies)]
        return self.stops(job) and study.stopped(job.number // len(self._studies))

    def lags(self, job: Job, rows: Sequence[MetricRow]) -> bool:
        """Return whether a running job should end early, by its curve so far."""
        if not self.stops(job):
            return False
        cell = self._studies[job.number % len(self._studies)]
        return cell.lags(job.number // len(self._studies), rows)

    @property
    def done(self) -> bool:
        """Whether every job has been asked for and told."""
        return not self._running and next(self._candidates(peek=True), None) is None

    def waits(self, job: Job, outcome: Outcome) -> bool:
        """Return whether a job's cell waits for it to be tried again before it is repeated."""
        return job.role == "search" and is_retry(outcome)

    @property
    def jobs(self) -> int:
        """How many jobs the experiment has in all."""
        return sum(cell.trials + self._experiment.search.seeds for cell in self._studies)

    def _candidates(self, *, peek: bool = False) -> Iterator[Job]:
        """Yield what could run now: searches round robin over cells, then repeats."""
        C = len(self._studies)
        trials = max(cell.trials for cell in self._studies)
        for index in range(trials):
            for place, cell in enumerate(self._studies):
                if cell.wants(index):
                    tuned = {} if peek else cell.ask(index)
                    yield self._job(index * C + place, "search", cell, tuned, 0)
        for repeat in range(1, self._experiment.search.seeds + 1):
            for place, cell in enumerate(self._studies):
                best = cell.best()
                if best is None or repeat in self._repeats[place]:
                    continue
                if not peek:
                    self._repeats[place].add(repeat)
                yield self._job((trials + repeat - 1) * C + place, "repeat", cell, best, repeat)

    def _job(
        self, number: int, role: str, cell: Study, tuned: dict[Path, Value], repeat: int
    ) -> Job:
        trial = search_space.build_trial(self._experiment.base, cell.settings | tuned)
        return Job(
            number=number,
            role="search" if role == "search" else "repeat",
            cell=cell.settings,
            tuned=tuned,
            repeat=repeat,
            trial=replace(trial, seeds=trial.seeds.repeat(repeat)),
            compared=self._experiment.compare,
        )
