"""The search for one cell's nuisances, on Optuna.

Ask and tell are ours, so each trial is recorded as what it is: COMPLETE with its score, PRUNED
where it was stopped or diverged, which a sampler reads as worse than any score and which needs no
made-up number, FAIL where it broke, which says nothing about the setting, and none RUNNING that
nobody runs.
"""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path as File
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from lab.config.experiment import Choices, Distribution, Experiment, HalvingConfig
from lab.config.results import MetricRow, Outcome
from lab.config.trial import Path, Value, content_hash
from lab.search import designs

logging.getLogger("optuna").setLevel(logging.WARNING)

_STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
}
_TRIES = 2  # of a point that fails
_BUSY = 60  # seconds to wait where another process locks the database
_INDEX = "index"  # a study trial's place in its cell's search


class Study:
    """One cell's search for its nuisances.

    Args:
        experiment: what is asked.
        settings: the cell's compared values.
        storage: Optuna's; None where nothing is tuned.
        notes: folder of what was asked for, from which a lost study is rebuilt.
        fresh: whether to begin anew, whatever was told before.
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
        self.trials = designs.search_points(experiment)
        self._asked: set[int] = set()
        self._running: dict[int, optuna.Trial] = {}
        self._ended: set[int] = set()  # points whose end the study holds already
        self._scores: dict[int, float | None] = {}
        identity = _identity(experiment, settings)
        self._notes = notes / f"{identity}.jsonl"
        self._again: set[int] = set()  # points that the next call tries again
        self._shown: dict[int, int] = {}  # points of a curve that the study has
        if fresh:
            self._notes.unlink(missing_ok=True)
        self._tuned: dict[int, dict[Path, Value]] = {}
        self._stopped: set[int] = set()
        for index, tuned, *stopped in _noted(self._notes):
            self._tuned[index] = tuned
            self._stopped |= {index} if stopped else set()
        if storage is not None:
            name = f"{experiment.name} {identity}"
            if fresh and name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=name, storage=storage)
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction=experiment.metric.direction,
                sampler=_sampler(experiment),
                pruner=_pruner(experiment),
                load_if_exists=True,
            )
            self._study.set_user_attr("cell", settings)
            self._take_up()

    def wants(self, index: int) -> bool:
        """Return whether the search's point `index` has not been asked for yet."""
        return index < self.trials and index not in self._asked

    def stopped(self, index: int) -> bool:
        """Return whether this search has ended point `index` early before."""
        return index in self._stopped

    def ask(self, index: int) -> dict[Path, Value]:
        """Start point `index`, and return its nuisances, an earlier run's if there was one."""
        self._asked.add(index)
        if index not in self._ended:
            fixed = self._tuned.get(index) or self._designed(index)
            if fixed is not None:
                self._study.enqueue_trial({path: _stored(v) for path, v in fixed.items()})
            trial = self._study.ask({path: _optuna(d) for path, d in self._tune.items()})
            trial.set_user_attr(_INDEX, index)
            self._running[index] = trial
            if index not in self._tuned:
                self._tuned[index] = fixed if fixed is not None else self._read(trial.params)
                self._note(index)
        return self._tuned[index]

    def tell(self, index: int, outcome: Outcome) -> None:
        """Record a point's end, in the study too unless it holds it already."""
        name = self._experiment.metric.name
        score = outcome.rows[-1][name] if outcome.state == "finished" else None
        if score is not None and not math.isfinite(score):
            score = None
        self._scores[index] = score
        if outcome.state == "stopped" and index not in self._stopped:
            self._stopped.add(index)
            self._note(index, "stopped")
        if is_retry(outcome):
            self._again.add(index)
        if trial := self._running.get(index):
            if outcome.state != "diverged":
                self._show(index, outcome.rows)
            del self._running[index]
            state = _STATES.get(outcome.state, TrialState.FAIL)
            if state == TrialState.COMPLETE and score is None:
                state = TrialState.PRUNED  # a score that is no number
            if outcome.state == "diverged" and self._shown.get(index):
                self._replace(trial, index)
            else:
                trial.set_user_attr("state", outcome.state)
                self._study.tell(trial, score, state=state)

    def _note(self, index: int, *more: str) -> None:
        with self._notes.open("a") as notes:  # a line of its own, whatever a kill left before it
            notes.write("\n" + json.dumps([index, self._tuned[index], *more]))

    def _replace(self, trial: optuna.Trial, index: int) -> None:
        """Tell of a diverged point without its scores on the way: Optuna would take the last."""
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

    def lags(self, index: int, rows: Sequence[MetricRow]) -> bool:
        """Return whether a running point should end early."""
        return self._show(index, rows) and self._running[index].should_prune()

    def _show(self, index: int, rows: Sequence[MetricRow]) -> bool:
        """Tell the study a running point's scores on the way; return whether any was new."""
        if self._experiment.search.stopping is None or index not in self._running:
            return False
        known, name = self._shown.get(index, 1), self._experiment.metric.name  # 0 is untrained
        for point, row in enumerate(rows[known:], known):
            self._running[index].report(row[name], point)
        self._shown[index] = max(known, len(rows))
        return len(rows) > known

    def best(self) -> dict[Path, Value] | None:
        """Return the best nuisances once the search is over; None before, or if none finished."""
        if self.trials == 0:
            return {}
        finished = {i: score for i, score in self._scores.items() if score is not None}
        if len(self._scores) < self.trials or self._again or not finished:
            return None
        sign = 1 if self._experiment.metric.direction == "maximize" else -1
        return self._tuned[max(finished, key=lambda index: (sign * finished[index], -index))]

    def _designed(self, index: int) -> dict[Path, Value] | None:
        """Return the point that a design fixes beforehand; None where the sampler learns."""
        search = self._experiment.search
        match search.sampler:
            case "grid":
                return designs.grid_points(self._tune, search.trials)[index]
            case "random":
                return designs.random_points(self._tune, search.seed, index)
            case "tpe" | "gp" if index >= _startup(self._experiment):
                return None
            case _:
                return designs.halton_points(self._tune, search.seed, index)

    def _take_up(self) -> None:
        """Learn what the study holds; a trial that a killed driver left running ends here."""
        for trial in self._study.get_trials(deepcopy=False):
            index = trial.user_attrs.get(_INDEX)
            if trial.state == TrialState.WAITING:  # killed before it was asked for
                self._study.ask()  # only what runs can end
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
            elif index is not None and "state" in trial.user_attrs:
                self._ended.add(index)
                self._stopped |= {index} if trial.user_attrs["state"] == "stopped" else set()
            if index is not None:
                self._tuned.setdefault(index, self._read(trial.params))

    def _read(self, params: dict[Path, Value]) -> dict[Path, Value]:
        """Return values as the search space has them, from those that the study stores."""
        return {path: _value(self._tune[path], param) for path, param in params.items()}


def _noted(file: File) -> Iterator[list[Any]]:
    """Yield the number of each point that was asked for, its nuisances, and `stopped` if it was.

    A line cut short by a kill was never run.
    """
    for line in file.read_text().splitlines() if file.exists() else ():
        with suppress(ValueError):
            yield json.loads(line)


def is_retry(outcome: Outcome) -> bool:
    """Return whether a point is no answer yet: once may have been the machine's fault."""
    return outcome.state == "failed" and outcome.tries < _TRIES


def _startup(experiment: Experiment) -> int:
    """Return how many quasi-random points an adaptive sampler starts from."""
    return max(4, 2 * len(experiment.tune))


def open_study(url: str) -> BaseStorage:
    """Return Optuna's storage, which waits where another process has locked the database."""
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY}})


def _pruner(experiment: Experiment) -> BasePruner:
    match experiment.search.stopping:
        case None:
            return NopPruner()
        case HalvingConfig(factor=factor):
            return SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)


def _sampler(experiment: Experiment) -> BaseSampler:
    search = experiment.search
    match search.sampler:
        case "gp":
            return GPSampler(seed=search.seed, n_startup_trials=0, deterministic_objective=False)
        case _:
            return TPESampler(
                seed=search.seed, n_startup_trials=0, multivariate=True, constant_liar=True
            )


def _stored(value: Value) -> Value:
    """Return what stands for a value in Optuna, which stores no lists and mappings."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _value(distribution: Distribution, stored: Value) -> Value:
    if isinstance(distribution, Choices):
        return next(choice for choice in distribution.choices if _stored(choice) == stored)
    return stored


def _optuna(distribution: Distribution) -> BaseDistribution:
    if isinstance(distribution, Choices):
        return CategoricalDistribution([_stored(choice) for choice in distribution.choices])  # type: ignore[misc]
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:  # Optuna wants `high` on the step's grid
        steps = int((high - low) / step + 1e-9)
        high = float(f"{low + step * steps:.15g}")
    if distribution.integer:
        return IntDistribution(int(low), int(high), log=distribution.log, step=int(step or 1))
    return FloatDistribution(low, high, log=distribution.log, step=step)


def _identity(experiment: Experiment, settings: dict[Path, Value]) -> str:
    """Name a cell's study by what its scores depend on; more trials or seeds continue it."""
    return content_hash(
        {
            "base": experiment.base,
            "cell": settings,
            "tune": {path: asdict(distribution) for path, distribution in experiment.tune.items()},
            "sampler": [experiment.search.sampler, experiment.search.seed],
            "grid": experiment.search.trials if experiment.search.sampler == "grid" else 0,
            "metric": experiment.metric.name,
        }
    )
