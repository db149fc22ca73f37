"""Frames of artificial sweeps over sizes and budgets whose losses follow a known surface."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from lab.config.flops import mean_cost
from lab.config.labels import label
from lab.config.trial import Trial
from lab.loading.search_space import build_trial
from lab.reporting.scaling.parameter_counts import BLOCKS, count_parameters
from lab.scaling.law import Law
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

METRIC = "mlm/nats_per_character"
RATE = "optim.lr"
SIZES = ("nano32", "nano48", "nano", "nano96", "tiny")
BUDGETS = (2.5e11, 5e11, 1e12, 2e12, 4e12)
LAW = Law(E=1.5, A=40.0, B=300.0, alpha=0.4, beta=0.45)
UNTRAINED = 9.0
Surface = Callable[[float, float, float], float]  # loss by N, D and learning rate


def follow_law(law: Law = LAW) -> Surface:
    """Return the surface of a law, on which the learning rate has no effect."""
    return lambda parameters, tokens, _: float(law.loss(np.array(parameters), np.array(tokens)))


def prefer_rate(best: float) -> Surface:
    """Return the surface on which the learning rate alone has an effect."""
    return lambda _, __, rate: float(2.6 + 0.05 * np.log(rate / best) ** 2)


def scaling_frames(
    surface: Surface,
    *,
    compare: Mapping[str, Sequence[Any]] | None = None,
    base: Mapping[str, Any] | None = None,
    rates: Sequence[float] = (),
    seeds: int = 2,
    noise: float = 0.002,
    seed: int = 2,
    columns: Callable[[Trial], Mapping[str, Any]] = lambda _: {},
) -> SweepFrames:
    """Return the frames of a finished sweep.

    Args:
        surface: expected loss.
        compare: compared values; SIZES and BUDGETS by default.
        base: settings that all trials share, besides the objective `mlm`.
        rates: learning rates that are searched in each cell; the best one is repeated.
        seeds: number of repeats.
        noise: standard deviation of the log losses.
        seed: seed of the noise.
        columns: further columns of a trial.
    """
    compare = compare or {"encoder.size": SIZES, "budget.amount": BUDGETS}
    settings = {
        "encoder": {"layers": 2}, "objective": {"kind": "mlm"}, "batch": 64,
        "budget": {"kind": "flops", "amount": 1e12}, **(base or {}),
    }  # fmt: skip
    rng, rows = np.random.default_rng(seed), []

    def add(role: str, repeat: int, cell: dict[str, Any], tuned: dict[str, Any]) -> float:
        trial = build_trial(settings, cell | tuned)
        row = _row(trial, cell, tuned, compare, surface)
        row["score"] *= np.exp(noise * rng.standard_normal())
        row |= {"number": len(rows), "role": role, "repeat": repeat, METRIC: row["score"]}
        rows.append(row | columns(trial))
        return float(row["score"])

    for values in itertools.product(*compare.values()):
        cell = dict(zip(compare, values, strict=True))
        found = {rate: add("search", 0, cell, {RATE: rate}) for rate in rates}
        tuned = {RATE: min(found, key=lambda rate: found[rate])} if rates else {}
        for repeat in range(1, seeds + 1):
            add("repeat", repeat, cell, tuned)
    return _frames(pd.DataFrame(rows), compare, rates)


def _row(
    trial: Trial,
    cell: Mapping[str, Any],
    tuned: Mapping[str, Any],
    compare: Mapping[str, Sequence[Any]],
    surface: Surface,
) -> dict[str, Any]:
    cost = mean_cost(trial)
    steps = round(trial.budget.amount / cost.flops)
    flat = dict(flatten(asdict(trial)))
    tokens = steps * cost.tokens
    parameters = count_parameters(flat)[BLOCKS]
    stored = {path: json.dumps(v) if isinstance(v, dict) else v for path, v in cell.items()}
    return {
        "fingerprint": "0" * 12, "run_id": "r", "state": "finished", "reason": "",
        "cell": label(cell, compare), "tuned": label(tuned, {}), "untrained": UNTRAINED,
        "score": surface(parameters, tokens, trial.optim.lr), "device": "cpu", "shared": False,
        **dict.fromkeys((tags.CODE, *tags.PROCESS, tags.MASKED), ""), "achieved": 1.0,
        **flat, **stored, **tuned, "spent/steps": steps, "spent/tokens": tokens,
        "spent/flops": steps * cost.flops, "spent/epochs": tokens / 8e6, "spent/seconds": 9.0,
    }  # fmt: skip


def flatten(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a trial with their dotted paths."""
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        yield from flatten(inner, name) if isinstance(inner, dict) else [(name, inner)]


def _frames(
    trials: pd.DataFrame, compare: Mapping[str, Sequence[Any]], rates: Sequence[float]
) -> SweepFrames:
    ends = trials[[name for name in trials if "/" in str(name)]].assign(
        number=trials["number"], fingerprint=trials["fingerprint"], step=trials["spent/steps"]
    )
    start = ends.assign(step=0, **{METRIC: UNTRAINED, "spent/tokens": 0.0, "spent/flops": 0.0})
    ends_of_range = {"low": min(rates), "high": max(rates)} if rates else {}
    tune = {RATE: ends_of_range | {"log": True, "step": None}} if rates else {}
    sweep = {
        tags.METRIC: METRIC, tags.QUESTION: "Which size is best at which budget?",
        tags.COMPARE: json.dumps(compare), tags.TUNE: json.dumps(tune),
        tags.REFERENCE: json.dumps({path: values[0] for path, values in compare.items()}),
        tags.STATE: "finished", tags.SEARCH: "{}",
    }  # fmt: skip
    curves = pd.concat([start, ends]).sort_values(["number", "step"], kind="stable")
    leading = ["number", "fingerprint", "step"]
    order = [*leading, *(name for name in curves if name not in leading)]
    return SweepFrames(
        name="scaling", sweep=sweep, measures={}, texts={}, trials=trials,
        curves=curves[order].reset_index(drop=True),
    )  # fmt: skip
