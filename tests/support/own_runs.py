"""Artificial own runs whose losses follow a known law, and whose best rates a known trend."""

from dataclasses import replace
from functools import cache

import numpy as np

from lab.advice.devices import Timing
from lab.advice.evidence import Evidence, RateEvidence
from lab.config.flops import encoder_weights, mean_cost
from lab.config.trial import Trial
from lab.loading import search_space
from lab.scaling.flops import Floats
from lab.scaling.law import Law, fit_law
from lab.scaling.rate_trend import RateOptimum, fit_rate_trend
from lab.scaling.runs import Points

LAW = Law(E=1.2, A=25.0, B=700.0, alpha=0.38, beta=0.42)
LARGEST = 4e12
SPEED = 2e10
_SHAPES = ((32, 1), (48, 2), (64, 2), (96, 2), (128, 2))
_BUDGETS = np.geomspace(LARGEST / 40, LARGEST, 4)
_SEEDS, _NOISE = 2, 0.004


def true_rate(parameters: float, tokens: float) -> float:
    """Return the best learning rate of the known trend."""
    return float(3e-3 * (parameters / 1e5) ** -0.3 * (tokens / 1e7) ** -0.1)


def build_trial(width: int, layers: int, flops: float) -> Trial:
    """Return a trial of the artificial sweep."""
    encoder = {
        "layers": layers, "hidden": width, "ffn": 4 * width, "heads": max(1, width // 32),
        "embedding": width, "init_std": 0.05, "dropout": 0,
    }  # fmt: skip
    base = {
        "encoder": encoder,
        "objective": {"kind": "electra", "mask_prob": 0.25, "generator": {"width": 0.5}},
        "optim": {"kind": "muon", "lr": 1e-3, "iterations": 3},
        "batch": 64,
        "budget": {"kind": "flops", "amount": flops},
    }
    return search_space.build_trial(base, {})


def spent_tokens(trial: Trial) -> float:
    """Return the tokens that the budget of a trial pays for."""
    cost = mean_cost(trial)
    return trial.budget.amount / cost.flops * cost.tokens


@cache
def own_runs() -> Evidence:
    """Return the runs with their law and the trend of their rates."""
    rng = np.random.default_rng(0)
    cells = [build_trial(*shape, float(flops)) for flops in _BUDGETS for shape in _SHAPES]
    trials = tuple(trial for trial in cells for _ in range(_SEEDS))
    sizes, tokens, budgets = _axes(trials)
    losses = LAW.loss(sizes, tokens) * np.exp(_NOISE * rng.standard_normal(len(trials)))
    points = Points(parameters_n=sizes, tokens_n=tokens, losses_n=losses, budgets_n=budgets)
    optima = [
        RateOptimum(
            predictors={"parameters": n, "tokens": d},
            rate=true_rate(n, d) * float(np.exp(0.05 * rng.standard_normal())),
            problem="",
        )
        for n, d in zip(sizes[::_SEEDS], tokens[::_SEEDS], strict=True)
    ]
    return Evidence(
        sweep="artificial",
        metric="mlm/nats_per_character",
        fit=fit_law(points),
        trials=trials,
        rates=RateEvidence(
            sweep="artificial",
            trend=fit_rate_trend(optima, ("parameters", "tokens")),
            largest_budget=LARGEST,
        ),
        rate_problem="",
        timings=tuple(
            Timing(parameters=size, device="cpu", flops_per_second=SPEED) for size in sizes
        ),
        epoch_tokens=7e6,
    )


def without_trend() -> Evidence:
    """Return the runs without a trend of their rates."""
    return replace(own_runs(), rates=None, rate_problem="the learning rate was not varied")


def _axes(trials: tuple[Trial, ...]) -> tuple[Floats, Floats, Floats]:
    rows = [
        (encoder_weights(trial.encoder), spent_tokens(trial), trial.budget.amount)
        for trial in trials
    ]
    sizes, tokens, budgets = np.array(rows, dtype=float).T
    return sizes, tokens, budgets
