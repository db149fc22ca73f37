"""Search of one cell's nuisance parameters with Optuna's ask-and-tell interface."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path as File
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from lab.config.code_digest import TRIAL, code_digest
from lab.config.costs.second_objective import compute_cost
from lab.config.experiment import Experiment
from lab.config.results import MetricRow, Outcome
from lab.config.trial import Path, Value, content_hash
from lab.loading.search_space import build_trial
from lab.search import designs
from lab.search.distributions import (
    from_optuna_values,
    to_optuna_distribution,
    to_optuna_value,
)
from lab.search.halving import Rungs
from lab.search.in_memory import Direction
from lab.search.pareto import find_front
from lab.search.point_notes import Note, append_note, read_notes, write_notes
from lab.search.prior import find_proposals
from lab.search.sampling import build_sampler, sample_point
from lab.search.study import Point, Study

_TRIES = 2  # attempts at a point that fails
_UNCONSTRAINED: Mapping[str, float] = {}


class CellSearch:
    """Search of one cell's nuisance parameters.

    Args:
        experiment: experiment to run.
        settings: compared values of the cell.
        storage: Optuna storage; None where nothing is tuned.
        notes: folder of the notes of the points asked for, from which a lost study is rebuilt.
        fresh: whether to discard the results of earlier runs.

    Attributes:
        settings: compared values of the cell.
        trials: number of points of the search. If every setting is repeated, a point is one setting
            with one seed, and the points of the first seed come first.
    """

    def __init__(
        self,
        experiment: Experiment,
        settings: dict[Path, Value],
        storage: BaseStorage | None,
        notes: File,
        *,
        fresh: bool,
    ) -> None:
        self.settings = settings
        self._experiment = experiment
        self._tune = experiment.tune
        self._distributions = {
            path: to_optuna_distribution(tuned) for path, tuned in experiment.tune.items()
        }
        self._settings = designs.search_points(experiment)
        self._repeats = designs.search_repeats(experiment)
        self.trials = self._settings * len(self._repeats)
        self._asked: set[int] = set()
        self._to_start: set[int] = set()  # asked for, neither in the study nor told yet
        self._scores: dict[int, float | None] = {}
        self._front: list[dict[Path, Value]] | None = None  # `best_settings`, once it is final
        identity = _study_identity(experiment, settings)
        self._notes = notes / f"{identity}.jsonl"
        self._to_retry: set[int] = set()  # failed points that the next run of the sweep retries
        self._sampler = build_sampler(experiment.search)
        halving = experiment.search.stopping
        self._shares = () if halving is None else halving.shares
        self._rungs = Rungs(
            len(self._shares),
            self.trials,
            1 if halving is None else halving.factor,
            maximize=experiment.metric.direction == "maximize",
        )
        self._directions: list[Direction] = [experiment.metric.direction]
        self._directions += ["minimize"] if experiment.cost is not None else []
        if fresh:
            self._notes.unlink(missing_ok=True)
        self._tuned: dict[int, dict[Path, Value]] = {}
        self._proposed_by: dict[int, str] = {}
        for index, note in read_notes(self._notes).items():
            self._tuned[index] = note.tuned
            if note.proposed_by:
                self._proposed_by[index] = note.proposed_by
        if storage is not None:
            self._open(storage, f"{experiment.name} {identity}", fresh=fresh)

    def _open(self, storage: BaseStorage, name: str, *, fresh: bool) -> None:
        """Open the study, or create it with the settings that earlier sweeps propose."""
        self._study = Study(
            storage, name, self._directions, self._distributions, cell=self.settings, fresh=fresh
        )
        for index, point in self._study.points.items():
            self._tuned.setdefault(index, from_optuna_values(self._tune, point.params))
            if point.proposed_by:
                self._proposed_by[index] = point.proposed_by
        if self._experiment.search.prior and not self._tuned:
            self._take_proposals(storage, name)

    def _take_proposals(self, storage: BaseStorage, name: str) -> None:
        """Make the settings that earlier sweeps propose the first points, and note all at once.

        A search that continues reads them from its notes, whatever the earlier sweeps have then.
        """
        found = find_proposals(self._experiment, self.settings, storage, name)
        for index, (sweep, tuned) in enumerate(found):
            self._tuned[index], self._proposed_by[index] = tuned, sweep
        notes = {index: Note(tuned, sweep) for index, (sweep, tuned) in enumerate(found)}
        write_notes(self._notes, notes)

    @property
    def rung(self) -> int:
        """Number of the rung that is not decided yet; with the full budget, the number of rungs."""
        return self._rungs.decided

    @property
    def share(self) -> float | None:
        """Share of the full budget at the rung (`HalvingConfig`); None with the full budget."""
        return self._shares[self.rung] if self.rung < len(self._shares) else None

    @property
    def jobs(self) -> int:
        """Number of trials of the search, as far as the points that continue are known."""
        return self._rungs.trials

    def can_ask(self, index: int) -> bool:
        """Return whether the search has a point `index` that can start, or continue, now."""
        return index in self._rungs.members and index not in self._asked

    def repeat_of(self, index: int) -> int:
        """Return the repeat of point `index`, which determines its seeds."""
        return self._repeats[index // self._settings]

    def ask(self, index: int) -> dict[Path, Value]:
        """Start or continue point `index` and return its nuisance parameters.

        A point that was asked for in an earlier run keeps the parameters of that run.
        """
        self._asked.add(index)
        self.start_asked()
        if not self._study.has(index):
            if index not in self._tuned:
                designed = designs.designed_point(self._experiment, index % self._settings)
                self._tuned[index] = designed or self._sample()
                append_note(self._notes, index, Note(self._tuned[index]))
            self._to_start.add(index)
        return self._tuned[index]

    def start_asked(self) -> None:
        """Create running trials in the study for the points that were asked for and have not ended.

        A point that ended in an earlier run of the sweep is told before the next point is asked
        for. It is added as an ended trial, which takes one request of the database instead of four.
        """
        for index in sorted(self._to_start):
            self._study.start(index, self._point(index))
        self._to_start.clear()

    def _point(self, index: int) -> Point:
        params = {path: to_optuna_value(value) for path, value in self._tuned[index].items()}
        return Point(params, self.proposed_by(index))

    def proposed_by(self, index: int) -> str:
        """Return the name of the earlier sweep that proposed point `index`; empty without one."""
        return self._proposed_by.get(index, "")

    def annotate(self, index: int, text: str) -> None:
        """Write the note of a point's trial in the study (`Study.annotate`)."""
        self._study.annotate(index, text)

    def attach(self, index: int, file: File) -> None:
        """Attach a file of a point's record to its trial in the study (`Study.attach`).

        Raises:
            OSError: the file is missing or cannot be read, or the copy cannot be written.
        """
        self._study.attach(index, file)

    def tell(
        self, index: int, outcome: Outcome, constraints: Mapping[str, float] = _UNCONSTRAINED
    ) -> None:
        """Record the outcome of a point, also in the study unless the study has it already.

        Args:
            index: number of the point.
            outcome: outcome of its trial in the sweep: `stopped` at a rung, not `finished`.
            constraints: excess over each constraint that is known, positive where it is violated.
        """
        if is_retry(outcome):
            self._to_retry.add(index)
        ended = outcome.state in ("finished", "stopped")  # stopped: at a rung
        score = self._score(outcome.rows[-1]) if ended else None
        if self._experiment.search.stopping is None:
            if index in self._to_start:
                self._to_start.discard(index)
                values = self._values(index, score)
                self._study.add_ended(index, self._point(index), outcome, values, constraints)
            self._end(index, outcome, score, constraints)
            return
        self.start_asked()  # the study has the scores at the rungs
        if score is not None and self._study.is_running(index):
            self._study.report(index, score)
        if score is None or self.share is None:
            self._end(index, outcome, score, constraints)
        if self.share is not None and index not in self._to_retry:
            self._decide(index, score)

    def _score(self, row: MetricRow) -> float | None:
        """Return the score of an evaluation; None if it is not finite."""
        score = row[self._experiment.metric.name]
        return score if math.isfinite(score) else None

    def _decide(self, index: int, score: float | None) -> None:
        """Record the score of a point at a rung; if this decides the rung, end the worse points."""
        dropped = self._rungs.record(index, score)
        if dropped is None:
            return
        self._asked -= self._rungs.members
        for each in dropped:
            self._scores[each] = None
            if self._study.is_running(each):
                self._study.stop(each)

    def _values(self, index: int, score: float | None) -> list[float] | None:
        """Return the values of the objectives of a point; None without a score."""
        return None if score is None else [score, *self._costs(self._tuned[index])]

    def _costs(self, tuned: Mapping[Path, Value]) -> tuple[float, ...]:
        """Return the value of the second objective; empty without one."""
        name = self._experiment.cost
        if name is None:
            return ()
        return (compute_cost(name, build_trial(self._experiment.base, {**self.settings, **tuned})),)

    def _end(
        self,
        index: int,
        outcome: Outcome,
        score: float | None,
        constraints: Mapping[str, float],
    ) -> None:
        """Record the end of a point with its final score; None without one."""
        self._scores[index] = score
        if self._study.is_running(index):
            self._study.end(index, outcome, self._values(index, score), constraints)

    def best_settings(self) -> list[dict[Path, Value]]:
        """Return the nuisance parameters to be repeated, those with the best score first.

        These are the best ones. With a second objective, they are those on the Pareto front of
        score and cost, one for each pair of values; a cost that depends on no nuisance parameter
        leaves the best one. Empty before the search ends, or without a score.
        """
        if self.trials == 0:
            return [{}]
        if self._front is None:
            finished = {i: score for i, score in self._scores.items() if score is not None}
            if len(self._scores) < self.trials or self._to_retry or not finished:
                return []
            self._front = [self._tuned[index] for index in self._find_best(finished)]
        return self._front

    def _find_best(self, scores: Mapping[int, float]) -> list[int]:
        sign = 1 if self._experiment.metric.direction == "maximize" else -1
        ordered = sorted(scores, key=lambda index: (-sign * scores[index], index))
        if self._experiment.cost is None:
            return ordered[:1]
        values = {index: (scores[index], *self._costs(self._tuned[index])) for index in ordered}
        first = {value: index for index, value in reversed(values.items())}
        front = find_front(list(values.values()), self._directions)
        return [ordered[n] for n in front if first[values[ordered[n]]] == ordered[n]]

    def _sample(self) -> dict[Path, Value]:
        """Return a new point of the adaptive sampler."""

        def costs_of(trial: FrozenTrial) -> tuple[float, ...]:
            return self._costs(from_optuna_values(self._tune, trial.params))

        params = sample_point(
            self._study.optuna_study, self._sampler, self._distributions, costs_of
        )
        return from_optuna_values(self._tune, params)


def is_retry(outcome: Outcome) -> bool:
    """Return whether a point failed and is retried: the machine may have caused the failure."""
    return outcome.state == "failed" and outcome.attempts < _TRIES


def _study_identity(experiment: Experiment, cell: dict[Path, Value]) -> str:
    """Return a hash of the settings and the code that determine a cell's scores: its study's name.

    The numbers of trials and seeds are not part of it, so that more of them continue the study.
    """
    settings: dict[str, Any] = {
        "base": experiment.base,
        "cell": cell,
        "tune": {path: asdict(distribution) for path, distribution in experiment.tune.items()},
        "sampler": [experiment.search.sampler, experiment.search.seed],
        "repeated": experiment.search.repeated,
        "grid": experiment.search.trials if experiment.search.sampler == "grid" else 0,
        "metric": experiment.metric.name,
        "code": code_digest(TRIAL),
    }
    # Options without effect are left out: the studies of experiments without them have names that
    # do not depend on whether the version of the lab has the options.
    options = {
        "constraints": {k: v for k, v in asdict(experiment.constraints).items() if v is not None},
        "cost": experiment.cost,
        "prior": experiment.search.prior,
    }
    return content_hash(settings | {name: value for name, value in options.items() if value})
