"""Search of one cell's nuisance parameters with Optuna's ask-and-tell interface.

States of the study's trials:

- COMPLETE: finished, with a score.
- PRUNED: stopped early or diverged. Samplers are given the worst score of the study for it
  (`Study._sample`), so that they avoid settings that diverge.
- FAIL: failed. Samplers ignore it, since a failure may have been caused by the machine.

Trials that an earlier process has left RUNNING are set to FAIL when a study is opened.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path as File

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from lab.config.code_digest import TRIAL, code_digest
from lab.config.experiment import Choices, Distribution, Experiment
from lab.config.results import MetricRow, Outcome
from lab.config.trial import Path, Value, content_hash
from lab.loading.search_space import build_trial
from lab.search import designs
from lab.search.halving import Rungs
from lab.storage import databases, sealed

logging.getLogger("optuna").setLevel(logging.WARNING)
_LOG = logging.getLogger(__name__)

_STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
}
_TRIES = 2  # attempts at a point that fails
_LOCK_TIMEOUT = 60  # seconds to wait for a database that another process has locked
_INDEX = "index"  # user attribute of a study's trial: the number of its point in the cell's search


class Study:
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
        self._running: dict[int, optuna.Trial] = {}
        self._to_start: set[int] = set()  # asked for, neither in the study nor told yet
        self._ended: set[int] = set()  # points with an outcome in the study
        self._scores: dict[int, float | None] = {}
        identity = _study_identity(experiment, settings)
        self._notes = notes / f"{identity}.jsonl"
        self._to_retry: set[int] = set()  # failed points that the next run of the sweep retries
        self._reported: dict[int, int] = {}  # number of evaluations that the study has of a point
        self._sampler = _build_sampler(experiment)
        self._rungs = _build_rungs(experiment, settings, self.trials)
        if fresh:
            self._notes.unlink(missing_ok=True)
        self._tuned: dict[int, dict[Path, Value]] = {}
        self._tuned |= _read_notes(self._notes)
        if storage is not None:
            name = f"{experiment.name} {identity}"
            if fresh and name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=name, storage=storage)
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction=experiment.metric.direction,
                sampler=RandomSampler(),  # never used: all points are enqueued
                pruner=NopPruner(),
                load_if_exists=True,
            )
            self._study.set_user_attr("cell", settings)
            self._read_study()

    @property
    def until(self) -> int | None:
        """Number of the evaluation at which points pause (`HalvingConfig`); None for the end."""
        return self._rungs.until

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
        if index not in self._ended and index not in self._running:
            if index not in self._tuned:
                self._tuned[index] = self._designed(index) or self._sample()
                self._write_note(index)
            self._to_start.add(index)
        return self._tuned[index]

    def start_asked(self) -> None:
        """Create running trials in the study for the points whose outcome was not told at once.

        A point that ended in an earlier run of the sweep is told before the next point is asked
        for. It is added as an ended trial, which takes one request of the database instead of four.
        """
        for index in sorted(self._to_start):
            self._study.enqueue_trial(self._stored_point(index))
            trial = self._study.ask(self._distributions)
            trial.set_user_attr(_INDEX, index)
            self._running[index] = trial
        self._to_start.clear()

    def _stored_point(self, index: int) -> dict[Path, Value]:
        return {path: to_optuna_value(value) for path, value in self._tuned[index].items()}

    def tell(self, index: int, outcome: Outcome) -> None:
        """Record the outcome of a point, also in the study unless the study has it already."""
        if is_retry(outcome):
            self._to_retry.add(index)
        if self.until is None:
            score = self._score(outcome.rows[-1]) if outcome.state == "finished" else None
            if self._experiment.search.stopping is not None:
                self.start_asked()  # the study has the scores of each rung
            elif index in self._to_start:
                self._add_ended(index, outcome, score)
            self._end(index, outcome, score)
            return
        self.start_asked()
        reached = len(outcome.rows) > self.until
        score = self._score(outcome.rows[self.until]) if reached else None
        if score is None:
            self._end(index, outcome, None)
        else:
            self._report(index, outcome.rows[: self.until + 1])
        if index not in self._to_retry:
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
            if trial := self._running.pop(each, None):
                trial.set_user_attr("state", "stopped")
                self._study.tell(trial, state=TrialState.PRUNED)

    def _add_ended(self, index: int, outcome: Outcome, score: float | None) -> None:
        """Add a point that was not started to the study, as a trial that has ended."""
        self._to_start.discard(index)
        state = _final_state(outcome, score)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=score if state == TrialState.COMPLETE else None,
                params=self._stored_point(index),
                distributions=self._distributions,
                user_attrs={_INDEX: index, "state": outcome.state},
            )
        )

    def _end(self, index: int, outcome: Outcome, score: float | None) -> None:
        """Record the end of a point with its final score; None without one."""
        self._scores[index] = score
        if trial := self._running.get(index):
            if outcome.state != "diverged":
                self._report(index, outcome.rows)
            del self._running[index]
            state = _final_state(outcome, score)
            if outcome.state == "diverged" and self._reported.get(index):
                self._tell_diverged(trial, index)
            else:
                trial.set_user_attr("state", outcome.state)
                self._study.tell(trial, score, state=state)

    def _write_note(self, index: int) -> None:
        # The newline comes first: a killed process may have left an incomplete line.
        with self._notes.open("a") as notes:
            notes.write("\n" + sealed.to_line({"point": index, "tuned": self._tuned[index]}))

    def _tell_diverged(self, trial: optuna.Trial, index: int) -> None:
        """Replace the trial of a diverged point by a pruned one without intermediate scores.

        Optuna would take the last intermediate score as the score of a pruned trial.
        """
        attributes = {_INDEX: index, "state": "diverged"}
        self._study.tell(trial, state=TrialState.FAIL)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=attributes,
            )
        )

    def _report(self, index: int, rows: Sequence[MetricRow]) -> None:
        """Report the new scores of a point to the study, if the search may end it early."""
        if self._experiment.search.stopping is None or index not in self._running:
            return
        # Evaluation 0, of the untrained encoder, is not reported.
        reported, name = self._reported.get(index, 1), self._experiment.metric.name
        for evaluation, row in enumerate(rows[reported:], reported):
            self._running[index].report(row[name], evaluation)
        self._reported[index] = max(reported, len(rows))

    def best(self) -> dict[Path, Value] | None:
        """Return the best nuisance parameters; None before the search ends, or without a score."""
        if self.trials == 0:
            return {}
        finished = {i: score for i, score in self._scores.items() if score is not None}
        if len(self._scores) < self.trials or self._to_retry or not finished:
            return None
        sign = 1 if self._experiment.metric.direction == "maximize" else -1
        return self._tuned[max(finished, key=lambda index: (sign * finished[index], -index))]

    def _designed(self, index: int) -> dict[Path, Value] | None:
        """Return a point that does not depend on scores; None where an adaptive sampler chooses."""
        search, index = self._experiment.search, index % self._settings
        match search.sampler:
            case "grid":
                return designs.grid_points(self._tune, search.trials)[index]
            case "random":
                return designs.random_points(self._tune, search.seed, index)
            case "tpe" | "gp" if index >= _startup_points(self._experiment):
                return None
            case _:
                return designs.halton_points(self._tune, search.seed, index)

    def _sample(self) -> dict[Path, Value]:
        """Return a new point of the adaptive sampler.

        The sampler reads a copy of the study, in which a trial that ended without a score has the
        worst score of all. Optuna's Gaussian process reads complete trials only, and would ask for
        diverging points again and again.
        """
        trials = self._study.get_trials(deepcopy=False)
        scores = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
        order = max if self._study.direction == StudyDirection.MINIMIZE else min
        worst = order((score for score in scores if score is not None), default=0.0)
        copy = optuna.create_study(direction=self._study.direction, sampler=self._sampler)
        for trial in trials:
            if trial.state == TrialState.FAIL:
                continue
            running = trial.state == TrialState.RUNNING
            score = trial.value if trial.state == TrialState.COMPLETE else worst
            copy.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.RUNNING if running else TrialState.COMPLETE,
                    value=None if running else score,
                    params=trial.params,
                    distributions=trial.distributions,
                )
            )
        return self._from_study(copy.ask(self._distributions).params)

    def _read_study(self) -> None:
        """Read the state of the study, and set trials that a killed driver left running to FAIL."""
        for trial in self._study.get_trials(deepcopy=False):
            index = trial.user_attrs.get(_INDEX)
            if trial.state == TrialState.WAITING:  # the driver was killed before `ask`
                self._study.ask()  # Optuna can end only a running trial
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
            elif index is not None and "state" in trial.user_attrs:
                self._ended.add(index)
            if index is not None:
                self._tuned.setdefault(index, self._from_study(trial.params))

    def _from_study(self, params: dict[Path, Value]) -> dict[Path, Value]:
        """Return the search space's values of the parameters that the study stores."""
        return {path: _from_optuna_value(self._tune[path], param) for path, param in params.items()}


def _final_state(outcome: Outcome, score: float | None) -> TrialState:
    state = _STATES.get(outcome.state, TrialState.FAIL)
    if state == TrialState.COMPLETE and score is None:
        return TrialState.PRUNED  # the score is NaN or infinite
    return state


def _read_notes(file: File) -> dict[int, dict[Path, Value]]:
    """Return the nuisance parameters of each point asked for, by its number.

    The last line may be incomplete, if the process was killed before the point was run. Other
    damaged lines are skipped with a warning: the study, or a design without scores, has the same
    parameters; an adaptive sampler without its study chooses new ones.
    """
    noted: dict[int, dict[Path, Value]] = {}
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            noted |= [_parse_note(line)] if line else ()
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                _LOG.warning("%s:%d: damaged: %s", file, number, error)
    return noted


def _parse_note(line: str) -> tuple[int, dict[Path, Value]]:
    if line.startswith("["):  # earlier versions wrote a list, without a seal
        index, tuned, *_ = json.loads(line)
    else:
        note = sealed.from_line(line)
        index, tuned = note["point"], note["tuned"]
    return int(index), dict(tuned)


def is_retry(outcome: Outcome) -> bool:
    """Return whether a point failed and is retried: the machine may have caused the failure."""
    return outcome.state == "failed" and outcome.attempts < _TRIES


def _startup_points(experiment: Experiment) -> int:
    """Return the number of quasi-random points before an adaptive sampler's first own point."""
    return max(4, 2 * len(experiment.tune))


def open_study(storage: str | BaseStorage) -> BaseStorage:
    """Return the storage of a URL; it waits while another process has locked the database.

    A damaged database is set aside: the studies are made again from the notes and the records.
    """
    if isinstance(storage, BaseStorage):
        return storage
    _, is_file, path = storage.partition("sqlite:///")
    if is_file:
        if File(path).exists() and databases.is_damaged(File(path)):
            databases.set_aside(File(path))
        databases.create_database(
            File(path), lambda partial: _connect(f"sqlite:///{partial}").engine.dispose()
        )
    return _connect(storage)


def _connect(storage: str) -> RDBStorage:
    return RDBStorage(storage, engine_kwargs={"connect_args": {"timeout": _LOCK_TIMEOUT}})


def _build_rungs(experiment: Experiment, settings: dict[Path, Value], points: int) -> Rungs:
    """Return the rungs of a cell's search; without halving, there is none."""
    halving = experiment.search.stopping
    maximize = experiment.metric.direction == "maximize"
    if halving is None:
        return Rungs((), points, 1, maximize=maximize)
    evaluations = build_trial(experiment.base, settings).evaluations
    return Rungs(halving.rungs(evaluations), points, halving.factor, maximize=maximize)


def _build_sampler(experiment: Experiment) -> BaseSampler:
    search = experiment.search
    match search.sampler:
        case "gp":
            return GPSampler(seed=search.seed, n_startup_trials=0, deterministic_objective=False)
        case _:
            return TPESampler(
                seed=search.seed, n_startup_trials=0, multivariate=True, constant_liar=True
            )


def to_optuna_value(value: Value) -> Value:
    """Return the form in which Optuna stores a value: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _from_optuna_value(distribution: Distribution, stored: Value) -> Value:
    if isinstance(distribution, Choices):
        return next(choice for choice in distribution.choices if to_optuna_value(choice) == stored)
    return stored


def to_optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """Return the distribution of a nuisance parameter in Optuna's form."""
    if isinstance(distribution, Choices):
        choices = [to_optuna_value(choice) for choice in distribution.choices]
        return CategoricalDistribution(choices)  # type: ignore[arg-type]
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:  # Optuna requires `high` to be on the step's grid
        steps = int((high - low) / step + 1e-9)
        high = float(f"{low + step * steps:.15g}")
    if distribution.integer:
        return IntDistribution(int(low), int(high), log=distribution.log, step=int(step or 1))
    return FloatDistribution(low, high, log=distribution.log, step=step)


def _study_identity(experiment: Experiment, settings: dict[Path, Value]) -> str:
    """Return a hash of the settings and the code that determine a cell's scores: its study's name.

    The numbers of trials and seeds are not part of it, so that more of them continue the study.
    """
    return content_hash(
        {
            "base": experiment.base,
            "cell": settings,
            "tune": {path: asdict(distribution) for path, distribution in experiment.tune.items()},
            "sampler": [experiment.search.sampler, experiment.search.seed],
            "repeated": experiment.search.repeated,
            "grid": experiment.search.trials if experiment.search.sampler == "grid" else 0,
            "metric": experiment.metric.name,
            "code": code_digest(TRIAL),
        }
    )
