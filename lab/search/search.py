"""Order of a sweep's jobs: search trials of all cells, then repeats.

Each cell of `compare` has a search of its nuisance parameters, with a study (`cell_search`).
The best setting of a cell is then repeated on new seeds, and only repeats are compared across
cells; with a second objective (`Experiment.cost`) all settings on the cell's Pareto front are
repeated. If every setting is repeated (`SearchConfig.repeated`), the search has one trial for each
setting and seed, and nothing follows it. With successive halving (`HalvingConfig`), a setting has a
job at each rung that it reaches, whose trial has the budget of the rung; its score is compared at
this rung only, so the job ends as `stopped`. This package does not import Ray, so that tests can
simulate a sweep.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

from optuna.storages import BaseStorage

from lab.config.costs.second_objective import compute_cost
from lab.config.experiment import Experiment, Job, shorten
from lab.config.results import Outcome
from lab.config.trial import Path, Value
from lab.loading import search_space
from lab.search import feasibility
from lab.search.cell_search import CellSearch, is_retry
from lab.search.designs import best_repeats
from lab.search.study_storage import open_storage


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
        studies = open_storage(storage) if experiment.tune else None
        self._searches = [
            CellSearch(experiment, cell, studies, notes, fresh=fresh)
            for cell in search_space.expand_cells(experiment)
        ]
        self._trials = max(search.trials for search in self._searches)
        halving = experiment.search.stopping
        self._rungs = 0 if halving is None else len(halving.shares)
        self._running: set[int] = set()
        self._repeats: set[int] = set()  # numbers of the repeats asked for

    def ask(self) -> Job | None:
        """Return the next job; None while it depends on a running one, or where none is left."""
        job = next(self._candidates(), None)
        if job is not None:
            self._running.add(job.number)
        return job

    def start(self, job: Job) -> None:
        """Record that a job of this search runs now, and had not ended before."""
        if job.role == "search":
            self._locate(job)[0].start_asked()

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Record the outcome of a job of this search."""
        self._running.discard(job.number)
        if job.role == "search":
            limits = self._experiment.constraints
            measured = feasibility.measure_outcome(limits, job.trial, outcome)
            excess = {name: each.excess for name, each in measured.items()}
            search, index = self._locate(job)
            search.tell(index, self.judge(job, outcome), excess)

    def judge(self, job: Job, outcome: Outcome) -> Outcome:
        """Return the outcome of a job in this sweep.

        A search trial can violate the constraints of the sweep. One that ends at a rung has no
        score among those of trials with the full budget. The record of a trial has the same outcome
        in all sweeps.
        """
        if job.role != "search":
            return outcome
        outcome = feasibility.judge_outcome(self._experiment.constraints, job.trial, outcome)
        if job.rung is None or outcome.state != "finished":
            return outcome
        return replace(outcome, state="stopped", reason=_describe_rung(job.rung, outcome.reason))

    def annotate(self, job: Job, text: str) -> None:
        """Write the note that optuna-dashboard shows of a search trial that is in its study."""
        if job.role == "search":
            search, index = self._locate(job)
            search.annotate(index, text)

    def attach(self, job: Job, file: File) -> None:
        """Attach a file of a search trial's record, which optuna-dashboard shows."""
        if job.role == "search":
            search, index = self._locate(job)
            search.attach(index, file)

    def _locate(self, job: Job) -> tuple[CellSearch, int]:
        """Return the search of its cell, for a search trial, and the number of its point."""
        row, cell = divmod(job.number, len(self._searches))
        return self._searches[cell], row % self._trials

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
        """Number of jobs, as far as the settings that continue or are repeated are known."""
        repeats = len(best_repeats(self._experiment))
        searched = sum(search.jobs for search in self._searches)
        return searched + repeats * sum(max(1, len(s.best_settings())) for s in self._searches)

    def _candidates(self, *, peek: bool = False) -> Iterator[Job]:
        """Yield the jobs that can start now: search trials in turn over the cells, then repeats.

        Args:
            peek: whether the studies stay unchanged; the jobs then have no nuisance parameters.
        """
        yield from self._search_jobs(peek=peek)
        yield from self._repeat_jobs(peek=peek)

    def _search_jobs(self, *, peek: bool) -> Iterator[Job]:
        for index in range(self._trials):
            for cell, search in enumerate(self._searches):
                if search.can_ask(index):
                    share, tuned = search.share, {} if peek else search.ask(index)
                    row, repeat = search.rung * self._trials + index, search.repeat_of(index)
                    number = row * len(self._searches) + cell
                    job = self._build_job(number, "search", search, tuned, repeat)
                    yield job if peek else self._complete_job(job, share, search.proposed_by(index))

    def _repeat_jobs(self, *, peek: bool) -> Iterator[Job]:
        repeats = best_repeats(self._experiment)
        for repeat in repeats:
            for cell, search in enumerate(self._searches):
                for rank, best in enumerate(search.best_settings()):
                    searched = self._trials * (self._rungs + 1)
                    row = searched + rank * len(repeats) + repeat - 1
                    number = row * len(self._searches) + cell
                    if number in self._repeats:
                        continue
                    if not peek:
                        self._repeats.add(number)
                    yield self._build_job(number, "repeat", search, best, repeat)

    def _complete_job(self, job: Job, share: float | None, proposed_by: str) -> Job:
        """Return a search job with its rung, the sweep that proposed it, and its feasibility."""
        reason = feasibility.describe_infeasible(self._experiment.constraints, job.trial)
        trial = job.trial if share is None else shorten(job.trial, share)
        return replace(job, trial=trial, rung=share, proposed_by=proposed_by, infeasible=reason)

    def _build_job(
        self, number: int, role: str, search: CellSearch, tuned: dict[Path, Value], repeat: int
    ) -> Job:
        trial = search_space.build_trial(self._experiment.base, search.settings | tuned)
        cost = self._experiment.cost
        return Job(
            number=number,
            role="search" if role == "search" else "repeat",
            cell=search.settings,
            tuned=tuned,
            repeat=repeat,
            trial=replace(trial, seeds=trial.seeds.repeat(repeat)),
            compared=self._experiment.compare,
            cost=None if cost is None else compute_cost(cost, trial),
        )


def _describe_rung(share: float, continued: str) -> str:
    """Return the reason of a trial that ends at a rung.

    Args:
        share: share of the full budget.
        continued: reason of the finished trial; empty if it continues no other run.
    """
    reason = f"ended at the rung of {share:.3g} of the budget"
    return f"{reason}; {continued}" if continued else reason
