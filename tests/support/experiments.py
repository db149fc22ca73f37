"""A small experiment, one of its jobs, and artificial results."""

import dataclasses

from lab.config.experiment import Experiment, Job, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Value
from lab.loading.search_space import build_trial

METRIC = "detect/bigram/auroc"
WIDTH = "objective.generator.width"
BASE: dict[str, Value] = {
    "encoder": {"size": "tiny"},
    "objective": {"kind": "electra"},
    "budget": {"kind": "flops", "amount": 1e12},
}


def experiment(name: str, **changes: object) -> Experiment:
    """Return an experiment that compares two generator widths, with some fields changed."""
    default = Experiment(
        name=name,
        question="Does it?",
        metric=METRICS[METRIC],
        base=BASE,
        compare={WIDTH: (0.25, 0.5)},
        tune={},
        search=SearchConfig(),
        resources=Resources(),
    )
    return dataclasses.replace(default, **changes)


JOB = Job(
    number=0,
    role="repeat",
    cell={WIDTH: 0.25},
    tuned={},
    repeat=1,
    trial=build_trial(BASE, {WIDTH: 0.25}),
)


def row(step: int, **more: float) -> MetricRow:
    """Return the metrics of an evaluation after `step` steps, with `more` added."""
    spent = {"steps": step, "tokens": 4_096 * step, "flops": 2.5e9 * step, "seconds": 0.5 * step}
    return {f"spent/{k}": float(v) for k, v in spent.items()} | {METRIC: 0.5 + step / 1_000} | more


def outcome(*rows: MetricRow, state: State = "finished", reason: str = "") -> Outcome:
    """Return the outcome of a trial with these evaluations."""
    return Outcome(state=state, reason=reason, rows=rows, started_at=1e9, seconds=9.0, busy=8.0)


def as_recorded(_: Job, outcome: Outcome) -> Outcome:
    """Judge outcomes as a sweep without constraints and halving does."""
    return outcome
