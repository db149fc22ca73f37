"""The proposed runs reduce the error of the optimal size as much as a fit with them shows."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scaling_fit import PER_TOKEN, SMALL, grid
from lab.scaling.delta_method import gradients_KP, shifted_log_sizes, standard_errors_K
from lab.scaling.law import LawFit, fit_law
from lab.scaling.next_runs import NextRuns, propose_runs
from lab.scaling.runs import Points

TARGET = 1e15


@pytest.fixture(scope="module")
def fit() -> LawFit:
    points = grid(4, 5, 2)
    noise = np.exp(0.004 * np.random.default_rng(1).standard_normal(len(points)))
    losses = SMALL.loss(points.parameters_n, points.tokens_n) * noise
    return fit_law(replace(points, losses_n=losses))


def error_of(fit: LawFit) -> float:
    batch = fit.batch
    gradients = gradients_KP(
        batch, lambda shifts: shifted_log_sizes(batch, shifts, TARGET, PER_TOKEN)
    )
    return float(standard_errors_K(batch.covariance_KPP(), gradients)[0])


def with_runs(fit: LawFit, added: NextRuns) -> LawFit:
    """Return the fit with the proposed runs, which have the losses of the law and the noise."""
    points, count = fit.points, added.runs
    new = Points(
        parameters_n=np.full(count, added.parameters),
        tokens_n=np.full(count, added.tokens),
        losses_n=fit.law.loss(np.full(count, added.parameters), np.full(count, added.tokens)),
        budgets_n=np.full(count, added.flops),
    )
    joined = {name: np.append(values, vars(new)[name]) for name, values in vars(points).items()}
    found = fit_law(Points(**joined))
    deviations = fit.batch.deviations_K  # of the noise of the runs that were made
    return replace(found, batch=replace(found.batch, deviations_K=deviations))


def test_error_after_the_runs_is_that_of_a_fit_with_them(fit: LawFit) -> None:
    sizes = np.unique(fit.points.parameters_n)
    found = propose_runs(fit, TARGET, PER_TOKEN, sizes, 3e14)
    assert found.error == pytest.approx(error_of(fit))
    assert found.error_after < found.error
    assert error_of(with_runs(fit, found)) == pytest.approx(found.error_after, rel=0.1)


def test_more_compute_for_the_next_runs_never_leaves_a_larger_error(fit: LawFit) -> None:
    sizes = np.unique(fit.points.parameters_n)
    spends = (1e14, 2e14, 4e14)
    errors = [propose_runs(fit, TARGET, PER_TOKEN, sizes, s).error_after for s in spends]
    assert errors == sorted(errors, reverse=True)


def test_runs_cost_what_may_be_spent_and_are_not_proposed_below_the_budgets_of_their_size(
    fit: LawFit,
) -> None:
    points = fit.points
    sizes = np.append(np.unique(points.parameters_n), 5e6)  # larger than any that was run
    for size in sizes:
        found = propose_runs(fit, TARGET, PER_TOKEN, np.array([size]), 3e14)
        larger = points.budgets_n[points.parameters_n >= size]
        assert found.flops >= (larger.min() if len(larger) else 1e14) * (1 - 1e-9)
        assert found.runs * found.flops <= 3e14 * (1 + 1e-9)
        assert (found.runs + 1) * found.flops > 3e14
        assert found.tokens == pytest.approx(found.flops / PER_TOKEN(np.array([size]))[0])
