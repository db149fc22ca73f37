"""Compute-optimal sizes: closed form, FLOPs that are not proportional, refusal to extrapolate."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from benchmarks.scaling_fit import CHINCHILLA, SMALL, UNEQUAL, grid
from lab.errors import UserError
from lab.scaling.definitions import fit_by_definition
from lab.scaling.extrapolation import check_extrapolation
from lab.scaling.flops import Floats, interpolated, proportional, size_elasticity
from lab.scaling.law import Law
from lab.scaling.optimum import optimal_allocation
from lab.scaling.parabolas import fit_parabolas, parabola_bias

SIX = proportional(6.0)


def with_head(parameters: Floats) -> Floats:
    """FLOPs per token of an encoder with a vocabulary head, which small sizes feel most."""
    return 6 * parameters + 3e3 * np.sqrt(parameters)


@pytest.mark.parametrize("law", [SMALL, UNEQUAL, CHINCHILLA])
def test_optimum_is_the_closed_form_of_hoffmann(law: Law) -> None:
    flops = 1e15
    g = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    found = optimal_allocation(law, flops, SIX)
    assert found.parameters == pytest.approx(g * (flops / 6) ** law.allocation, rel=1e-6)
    assert found.tokens == pytest.approx(flops / (6 * found.parameters))


def test_optimum_under_other_flops_is_that_of_a_minimizer() -> None:
    found = optimal_allocation(SMALL, 1e14, with_head)

    def loss(log_size: float) -> float:
        size = np.exp(np.array([log_size]))
        return float(SMALL.loss(size, 1e14 / with_head(size))[0])

    best = optimize.minimize_scalar(loss, bounds=(5, 20), method="bounded", options={"xatol": 1e-9})
    assert np.log(found.parameters) == pytest.approx(best.x, abs=1e-3)
    assert found.loss == pytest.approx(best.fun)


def test_interpolated_flops_pass_through_the_sizes_and_go_on_as_a_power() -> None:
    sizes = np.geomspace(1e4, 1e6, 7)
    found = interpolated(sizes[::-1], with_head(sizes)[::-1])
    assert found(sizes) == pytest.approx(with_head(sizes))
    between = np.geomspace(1.2e4, 8e5, 20)
    assert found(between) == pytest.approx(with_head(between), rel=0.01)
    far = np.array([1e7, 1e8])
    assert size_elasticity(found, far)[0] == pytest.approx(size_elasticity(found, far)[1])
    with pytest.raises(UserError, match="two or more sizes"):
        interpolated(sizes[:1], sizes[:1])


def test_extrapolation_beyond_thirty_times_the_largest_budget_is_refused() -> None:
    budgets = np.array([1e12, 1e13])
    assert check_extrapolation(3e14, budgets, "--flops") == pytest.approx(30.0)
    with pytest.raises(UserError, match=r"--flops: 3.1e\+14 FLOPs; allowed .* 3e\+14"):
        check_extrapolation(3.1e14, budgets, "--flops")
    with pytest.raises(UserError, match="allowed are budgets"):
        check_extrapolation(-1.0, budgets, "--flops")


def test_parabolas_of_a_quadratic_loss_are_exact() -> None:
    points = grid(4, 5, 2)
    optimum = 3 * points.budgets_n**0.4
    losses = 3 + 0.05 * np.log(points.parameters_n / optimum) ** 2
    found = fit_parabolas(replace(points, losses_n=losses))
    assert found.line.slope == pytest.approx(0.4)
    assert found.size_at(1e15) == pytest.approx(3 * 1e15**0.4)
    assert [parabola.loss for parabola in found.parabolas] == pytest.approx([3.0] * 4)


def test_bias_of_parabolas_vanishes_for_near_sizes_and_equal_exponents_only() -> None:
    def bias(law: Law, spread: float) -> float:
        points = grid(5, 7, 1)
        optima = [optimal_allocation(law, c, SIX).parameters for c in np.unique(points.budgets_n)]
        factors = np.geomspace(1 / spread, spread, 7)
        sizes = np.concatenate([optimum * factors for optimum in optima])
        tokens = points.budgets_n / SIX(sizes)
        found = parabola_bias(replace(points, parameters_n=sizes, tokens_n=tokens), law, SIX, 1e15)
        return abs(np.log(found.extrapolated))

    equal = replace(SMALL, alpha=0.4, beta=0.4)
    assert bias(equal, 8.0) < 1e-6
    assert bias(UNEQUAL, 1.2) < 0.02 < bias(UNEQUAL, 8.0)


def test_budgets_without_a_minimum_are_named() -> None:
    points = grid(4, 5, 1)
    falling = np.where(points.budgets_n > 5e13, points.parameters_n**-0.1, 0)
    curved = 3 + 0.05 * np.log(points.parameters_n / 2e5 / (points.budgets_n / 1e13) ** 0.5) ** 2
    found = fit_parabolas(replace(points, losses_n=np.where(falling, falling, curved)))
    assert [bool(parabola.problem) for parabola in found.parabolas] == [False, False, False, True]


def test_definitions_of_the_size_move_the_exponents_and_failures_have_a_reason() -> None:
    points = grid(5, 6, 1)
    points = replace(points, losses_n=SMALL.loss(points.parameters_n, points.tokens_n))
    sizes = {
        "without embeddings": points.parameters_n,
        "squared": points.parameters_n**2,
        "one": np.where(np.arange(30) % 2, 1e5, 2e5),
    }
    first, second, third = fit_by_definition(points, sizes, 6 * points.parameters_n, 1e14)
    assert first.fit is not None
    assert second.fit is not None
    assert first.fit.law.alpha == pytest.approx(SMALL.alpha, rel=1e-3)
    assert second.fit.law.alpha == pytest.approx(SMALL.alpha / 2, rel=1e-3)
    assert first.optimal_exponent == pytest.approx(SMALL.allocation, rel=1e-2)
    assert second.optimal_exponent == pytest.approx(2 * SMALL.allocation, rel=1e-2)
    assert third.fit is None
    assert "needs 3 sizes" in third.problem
