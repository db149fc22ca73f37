"""The generator's ratio in a law: known surfaces are recovered, and intervals have their level."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks.scaling_fit import SMALL
from lab.errors import UserError
from lab.scaling.flops import Floats
from lab.scaling.law import log_inputs
from lab.scaling.profiles import law_interval_ends
from lab.scaling.ratio_term import at_best_ratio, fit_ratio_term
from lab.scaling.runs import Points
from lab.scaling.solver.batch import fit_batch

DRAWS, LEVEL, NOISE = 150, 0.9, 0.003
CURVATURE, EXPONENT, MIDDLE = 0.02, -0.06, 1e13
RATIOS = np.geomspace(0.125, 1, 5)


def cost(parameters: Floats, ratios: Floats) -> Floats:
    """Return the FLOPs per token of an encoder and its generator."""
    return np.asarray(6 * parameters * (1 + ratios**2))


def best_ratio(flops: Floats) -> Floats:
    return np.asarray(0.35 * (flops / MIDDLE) ** EXPONENT)


def runs(budgets: int = 4, sizes: int = 5) -> tuple[Points, Floats]:
    """Return runs at five ratios of each size and budget, and their ratios; losses are 1."""
    flops = np.repeat(np.geomspace(1e12, 1e14, budgets), sizes * len(RATIOS))
    factors = np.tile(np.repeat(np.geomspace(1 / 4, 4, sizes), len(RATIOS)), budgets)
    parameters, ratios = 2e5 * np.sqrt(flops / MIDDLE) * factors, np.tile(RATIOS, sizes * budgets)
    points = Points(
        parameters_n=parameters, tokens_n=flops / cost(parameters, ratios),
        losses_n=np.ones_like(flops), budgets_n=flops,
    )  # fmt: skip
    return points, ratios


def expected(points: Points, ratios: Floats) -> Floats:
    """Return the losses of the surface that the model describes."""
    best = best_ratio(points.budgets_n)
    law = SMALL.loss(points.parameters_n, points.budgets_n / cost(points.parameters_n, best))
    return np.asarray(law * np.exp(CURVATURE * np.log(ratios / best) ** 2))


def test_exact_losses_give_the_term_and_the_law_back() -> None:
    points, ratios = runs()
    points = replace(points, losses_n=expected(points, ratios))
    term = fit_ratio_term(points, ratios)
    assert term.curvature.value == pytest.approx(CURVATURE)
    assert term.exponent.value == pytest.approx(EXPONENT)
    assert term.best(1e15).value == pytest.approx(float(best_ratio(np.array(1e15))))
    at_best = at_best_ratio(term, points, ratios)
    tokens = points.budgets_n / cost(points.parameters_n, best_ratio(points.budgets_n))
    assert at_best.tokens_n == pytest.approx(tokens, rel=0.02), "interpolated between ratios"
    assert at_best.losses_n == pytest.approx(SMALL.loss(points.parameters_n, tokens))


def test_best_ratio_is_that_at_equal_compute_where_the_cost_is_that_at_equal_tokens() -> None:
    points, ratios = runs()

    def loss(n: Floats, d: Floats, r: Floats) -> Floats:
        return np.asarray(SMALL.loss(n, d) * np.exp(0.05 * np.log(r / 0.5) ** 2))

    losses = loss(points.parameters_n, points.tokens_n, ratios)
    term = fit_ratio_term(replace(points, losses_n=losses), ratios)
    size = np.array(2e5)
    truth = optimize.minimize_scalar(
        lambda x: float(loss(size, MIDDLE / cost(size, np.exp(x)), np.exp(x))),
        bounds=(np.log(0.1), 0.0), method="bounded",
    )  # fmt: skip
    assert term.best(MIDDLE).value == pytest.approx(np.exp(truth.x), rel=0.1)
    assert term.best(MIDDLE).value < 0.48


def accepted(share: float) -> bool:
    """Return whether a coverage of .85 to .95 gives this share in 999 of 1,000 simulations."""
    low, high = (stats.binom.ppf(q, DRAWS, p) / DRAWS for q, p in ((0.0005, 0.85), (0.9995, 0.95)))
    return bool(low <= share <= high)


def test_intervals_of_the_term_and_of_the_law_at_the_best_ratio_have_nominal_coverage() -> None:
    rng, (points, ratios) = np.random.default_rng(0), runs()
    truths = {
        "curvature": CURVATURE, "exponent": EXPONENT, "best": float(best_ratio(np.array(1e15)))
    }  # fmt: skip
    covered = dict.fromkeys(truths, 0)
    moved = []
    for _ in range(DRAWS):
        noise = np.exp(NOISE * rng.standard_normal(len(points)))
        drawn = replace(points, losses_n=expected(points, ratios) * noise)
        term = fit_ratio_term(drawn, ratios, LEVEL)
        found = {"curvature": term.curvature, "exponent": term.exponent, "best": term.best(1e15)}
        for name, estimate in found.items():
            covered[name] += estimate.low <= truths[name] <= estimate.high
        moved.append(at_best_ratio(term, drawn, ratios))
    for name, count in covered.items():
        assert accepted(count / DRAWS), name
    inputs = np.stack([log_inputs(each) for each in moved])
    batch = fit_batch(inputs, np.stack([each.losses_n for each in moved]))
    assert batch.valid_K().all()
    ends = law_interval_ends(batch, LEVEL)
    for name in ("alpha", "beta", "allocation", "E"):
        low, high = ends[name]
        truth = getattr(SMALL, name)
        assert accepted(float(np.mean((low <= truth) & (truth <= high)))), name


def test_ratios_without_an_effect_or_with_the_best_one_outside_are_refused() -> None:
    points, ratios = runs()
    flat = SMALL.loss(points.parameters_n, points.budgets_n / cost(points.parameters_n, RATIOS[2]))
    rng, refused = np.random.default_rng(1), 0
    for _ in range(DRAWS):
        noise = np.exp(NOISE * rng.standard_normal(len(points)))
        try:
            fit_ratio_term(replace(points, losses_n=flat * noise), ratios)
        except UserError:
            refused += 1
    assert refused >= stats.binom.ppf(0.001, DRAWS, 0.95)
    outside = flat * np.exp(CURVATURE * np.log(ratios / 3) ** 2)
    with pytest.raises(UserError, match="is outside of the ratios that were run"):
        fit_ratio_term(replace(points, losses_n=outside * noise), ratios)
    two = np.isin(ratios, RATIOS[:2])
    with pytest.raises(UserError, match="points determine"):
        fit_ratio_term(replace(points, losses_n=outside).take(two), ratios[two])
