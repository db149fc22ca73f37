"""Synthetic trials of a simulated sweep: their scores are drawn instead of trained.

A trial's score is the value of its cell, less the loss of a learning rate that is not the best one
of the cell, plus noise. All are given in units of `UNIT`. The noise is a function of the number of
the simulated sweep and of the trial's settings and seeds, so a trial that runs again has the same
score.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np

from lab.config.experiment import Distribution, Experiment, Job, Range, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial, Value

PATH, RATE = "objective.disc_weight", "optim.lr"
METRIC = METRICS["detect/bigram/auroc"]
UNIT = 0.005  # standard deviation of the score between seeds
RATES = Range(low=1e-3, high=1e-2, log=True)
_BEST = (0.5, 0.35, 0.65)  # best rates of the cells, in turn, as positions in the range
_DEPTH = 4.0  # loss at a distance of half of the range, in units
_CEILING, _UNTRAINED = 0.7, 0.5
_CLIFF, _SLOPE = 0.75, 0.1  # position above which trials diverge, and width of the transition
_NOISY = 8.0  # noise of the last cell where the noise is unequal
_FLOPS = 1e12


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A simulated sweep, without its random numbers.

    Attributes:
        name: description of the noise and of the losses of trials.
        cells: number of compared settings.
        search: search of the learning rate; null if none is tuned.
        seeds: number of repeats.
        unequal: whether the noise of the last cell is eight times that of the others.
        common: standard deviation of the part of the noise that is equal in all cells of a repeat,
            as a fraction of `UNIT`.
        failing: share of the repeats that fail and are missing.
        diverging: share of the repeats that diverge.
        cliff: whether trials with high learning rates diverge.
    """

    name: str
    cells: int
    search: SearchConfig | None = None
    seeds: int = 4
    unequal: bool = False
    common: float = 0.0
    failing: float = 0.0
    diverging: float = 0.0
    cliff: bool = False

    @property
    def design(self) -> str:
        """Short description of the search."""
        search = self.search
        if search is None:
            return "untuned"
        name = "every_setting" if search.repeated == "every_setting" else "best_setting"
        halving = ", halving" if search.stopping else ""
        return f"{search.sampler}, {search.trials} trials, {name}{halving}"

    @property
    def key(self) -> str:
        """Name of the row of this scenario in the table of results."""
        return f"{self.name}; {self.design}; {self.cells} cells; {self.seeds} seeds"

    @property
    def evaluations(self) -> int:
        """Number of evaluations of a trial with the full budget, besides that before training."""
        return 4 if self.search is not None and self.search.stopping else 1

    def experiment(self) -> Experiment:
        """Return the experiment that is simulated."""
        tune: dict[str, Distribution] = {} if self.search is None else {RATE: RATES}
        base: dict[str, Value] = {
            "encoder": {"size": "nano32"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": _FLOPS},
            "schedule": {"kind": "constant", "warmup": 0},
            "evaluations": self.evaluations,
        }
        return Experiment(
            name="simulated",
            question="Does the weight matter?",
            metric=METRIC,
            base=base,
            compare={PATH: tuple(float(cell + 1) for cell in range(self.cells))},
            tune=tune,
            search=self.search or SearchConfig(seeds=self.seeds),
            resources=Resources(),
        )


def run_job(scenario: Scenario, job: Job, draw: int) -> Outcome:
    """Return the outcome of a job, in place of its training.

    Args:
        scenario: scenario of the simulated sweep.
        job: job of the search.
        draw: number of the simulated sweep.
    """
    state = _state(scenario, job, draw)
    last = round(scenario.evaluations * job.trial.budget.amount / _FLOPS)
    rows = [_row(scenario, job.trial, draw, evaluation) for evaluation in range(last + 1)]
    if state != "finished":
        rows = rows[:1]
    return Outcome(
        state=state,
        reason="" if state == "finished" else "simulated",
        rows=tuple(rows),
        started_at=0.0,
        seconds=1.0,
        busy=1.0,
        attempts=2,  # a failed trial is not retried
    )


def true_scores(scenario: Scenario) -> list[float]:
    """Return the expected scores of the cells at their best learning rates."""
    return [_CEILING] * scenario.cells


def _state(scenario: Scenario, job: Job, draw: int) -> State:
    chance = _generator(draw, job.trial, "state").random(2)
    position = _position(job.trial)
    if scenario.cliff and position > _CLIFF + _SLOPE * (chance[0] - 0.5):
        return "diverged"
    if job.repeat == 0:
        return "finished"
    if chance[1] < scenario.failing:
        return "failed"
    return "diverged" if chance[1] < scenario.failing + scenario.diverging else "finished"


def _row(scenario: Scenario, trial: Trial, draw: int, evaluation: int) -> MetricRow:
    share = evaluation / scenario.evaluations
    spent = {
        "spent/steps": 100.0 * evaluation,
        "spent/tokens": 1e6 * share,
        "spent/flops": _FLOPS * share,
        "spent/marginal_flops": _FLOPS * share,
        "spent/seconds": 1.0 * share,
    }
    # The curve rises at once and then stays, so that a score at a quarter of the budget has the
    # same signal as the last one; the noise of each evaluation is drawn anew.
    level = _UNTRAINED if not evaluation else _expected(scenario, trial)
    return spent | {METRIC.name: level + UNIT * _noise(scenario, trial, draw, evaluation)}


def _expected(scenario: Scenario, trial: Trial) -> float:
    if scenario.search is None:
        return _CEILING
    distance = _position(trial) - _BEST[_cell(trial) % len(_BEST)]
    return _CEILING - UNIT * _DEPTH * (2 * distance) ** 2


def _noise(scenario: Scenario, trial: Trial, draw: int, evaluation: int) -> float:
    own = float(_generator(draw, trial, str(evaluation)).standard_normal())
    repeat = np.random.default_rng([draw, trial.seeds.init, evaluation])
    scale = _NOISY if scenario.unequal and _cell(trial) == scenario.cells - 1 else 1.0
    return scale * own + scenario.common * float(repeat.standard_normal())


def _cell(trial: Trial) -> int:
    return round(float(getattr(trial.objective, "disc_weight"))) - 1  # noqa: B009 - of one kind


def _position(trial: Trial) -> float:
    """Return the learning rate as a position in its range, from 0 to 1."""
    return math.log(trial.optim.lr / RATES.low) / math.log(RATES.high / RATES.low)


def _generator(draw: int, trial: Trial, name: str) -> np.random.Generator:
    text = f"{_cell(trial)} {trial.optim.lr!r} {trial.seeds.init} {name}"
    return np.random.default_rng([draw, zlib.crc32(text.encode())])
