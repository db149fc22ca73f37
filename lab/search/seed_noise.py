"""Spread of a metric between seeds, from the records of finished trials in a storage."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any

import numpy as np

from lab.config.experiment import Experiment
from lab.loading import search_space
from lab.storage import record

_Budget = tuple[str, float]  # unit and amount


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """Standard deviation of a metric between trials that differ only in their seeds.

    Attributes:
        deviation: standard deviation, pooled over all settings that have two trials or more.
        trials: number of trials that it is computed from.
        budget: budget of these trials in the form `1e+12 flops`; null if it is the budget of the
            experiment.
    """

    deviation: float
    trials: int
    budget: str | None


@dataclass(frozen=True, kw_only=True)
class _Score:
    setting: str  # JSON of the trial without its seeds, and of its text
    seeds: str
    budget: _Budget
    value: float


def find_seed_noise(experiment: Experiment, storage: File) -> SeedNoise | None:
    """Return the seed noise of the experiment's metric at its encoder shapes.

    Trials with the budget of the experiment are preferred. If there are none, those of the nearest
    budget in the same unit are used.

    Args:
        experiment: experiment whose cells give the shapes and budgets.
        storage: folder of the records; need not exist.

    Returns:
        None if no setting of these shapes has two finished trials with different seeds.
    """
    cells = search_space.expand_cells(experiment)
    trials = [search_space.build_trial(experiment.base, cell) for cell in cells]
    shapes = {_encode([asdict(t.encoder), t.data.length]) for t in trials}
    budgets: set[_Budget] = {(t.budget.kind, t.budget.amount) for t in trials}
    scores = _read_scores(storage / "trials", experiment.metric.name, shapes)
    repeated = _select_repeated(scores)
    distances = {score.budget: _distance(score.budget, budgets) for score in repeated}
    if not distances or math.isinf(nearest := min(distances.values())):
        return None
    used = [score for score in repeated if distances[score.budget] == nearest]
    kind, amount = used[0].budget
    return SeedNoise(
        deviation=_pool([score.value for score in group] for group in _by_setting(used)),
        trials=len(used),
        budget=f"{amount:g} {kind}" if nearest else None,
    )


def _read_scores(folder: File, metric: str, shapes: set[str]) -> Iterator[_Score]:
    """Yield the final score of each finished trial of the given shapes."""
    for trial_folder in sorted(folder.glob("*")):
        facts = record.read_facts(trial_folder)
        trial = facts.get("trial")
        if not isinstance(trial, dict) or record.read_state(trial_folder) != "finished":
            continue
        if (outcome := record.read_outcome(trial_folder)) is None:  # damaged
            continue
        try:
            shape = _encode([trial["encoder"], trial["data"]["length"]])
            budget = (str(trial["budget"]["kind"]), float(trial["budget"]["amount"]))
            schedule = trial["schedule"]["kind"], trial["schedule"]["decay"]
        except (KeyError, TypeError, ValueError):  # record of another version of the lab
            continue
        if schedule == ("trunk", 0):  # a trunk, whose score is not that of a trial
            continue
        value = (outcome.rows or ({},))[-1].get(metric, math.nan)
        if shape in shapes and math.isfinite(value):
            setting = {key: part for key, part in trial.items() if key != "seeds"}
            yield _Score(
                setting=_encode([setting, facts.get("text")]),
                seeds=_encode(trial.get("seeds")),
                budget=budget,
                value=value,
            )


def _select_repeated(scores: Iterable[_Score]) -> list[_Score]:
    return [score for group in _by_setting(scores) if len(group) > 1 for score in group]


def _by_setting(scores: Iterable[_Score]) -> list[list[_Score]]:
    """Return the scores of each setting, one for each seed.

    Several versions of the code may have trained the same setting with the same seed.
    """
    groups: dict[str, dict[str, _Score]] = {}
    for score in scores:
        groups.setdefault(score.setting, {}).setdefault(score.seeds, score)
    return [list(group.values()) for group in groups.values()]


def _distance(budget: _Budget, budgets: set[_Budget]) -> float:
    """Return the distance on a logarithmic scale to the nearest budget of the same unit."""
    kind, amount = budget
    return min(
        (abs(math.log(amount / other)) for unit, other in budgets if unit == kind), default=math.inf
    )


def _pool(groups: Iterable[list[float]]) -> float:
    """Return the pooled standard deviation within groups of two values or more."""
    squares, freedom = 0.0, 0
    for values in groups:
        squares += float(np.var(values)) * len(values)
        freedom += len(values) - 1
    return math.sqrt(squares / freedom)


def _encode(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
