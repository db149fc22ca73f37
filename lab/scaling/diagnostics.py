"""Signs that the law is wrong: curved residuals, and forecasts that miss the largest budget."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lab.scaling.law import Law, LawFit, laws_of, log_inputs
from lab.scaling.solver.batch import FitBatch, refit_batch
from lab.scaling.solver.huber import Floats, normal_moments

ALARM = 0.05  # share of right laws that get a warning
_TESTS = 2


@dataclass(frozen=True, kw_only=True)
class LeaveOut:
    """The law without the largest budget, and its forecast of that budget.

    Attributes:
        law: law of the other budgets; None if they do not determine one.
        budget: the budget that was left out.
        error: median of log(forecast) - log(loss) over the runs of that budget; NaN without a law.
        p_value: probability of a larger error if the law holds; NaN without a law.
    """

    law: Law | None
    budget: float
    error: float
    p_value: float


def check_fit(fit: LawFit) -> tuple[str, ...]:
    """Return warnings about a fitted law, in words; at most 5 % of right laws get one."""
    found = []
    curvature = float(curvature_p_values(fit.batch)[0])
    if curvature < ALARM / _TESTS:
        found.append(
            "the residuals are curved over log N and log D "
            f"(p = {curvature:.2g}): the law does not describe these runs"
        )
    left = leave_largest_out(fit)
    if left.p_value < ALARM / _TESTS:
        found.append(
            f"without the budget {left.budget:g}, the law misses its losses by "
            f"{100 * left.error:+.2g} % (p = {left.p_value:.2g})"
        )
    return tuple(found)


def curvature_p_values(batch: FitBatch) -> Floats:
    """Return p values of K score tests against quadratic terms of the log inputs.

    Rao's score test for an M-estimator: the clipped residuals psi are compared with the products of
    the centered log inputs, from which the derivatives of the law are projected out. The statistic
    has an F distribution with the degrees of freedom of the noise.
    """
    inputs = batch.terms.inputs_Knp
    p = inputs.shape[2]
    products = [inputs[..., i] * inputs[..., j] for i in range(p) for j in range(i, p)]
    features = np.stack(products, axis=2)
    basis = np.linalg.qr(batch.jacobian_KnP())[0]
    features = features - basis @ (np.swapaxes(basis, 1, 2) @ features)
    psi = np.clip(batch.residuals_Kn, -batch.delta, batch.delta)[..., None]
    left, size, _ = np.linalg.svd(features, full_matrices=False)
    used = size > 1e-6 * np.sqrt((inputs**2).sum(axis=(1, 2)))[:, None]
    along = (np.swapaxes(left, 1, 2) @ psi)[..., 0] * used
    square = normal_moments(batch.deviations_K, batch.delta)[1]
    rank = used.sum(axis=1)
    statistic = (along**2).sum(axis=1) / (square * np.maximum(rank, 1))
    found = stats.f.sf(statistic, np.maximum(rank, 1), batch.freedom)
    return np.where(rank > 0, found, 1.0)


def leave_largest_out(fit: LawFit) -> LeaveOut:
    """Fit the law without the largest budget and compare its forecast with the runs there."""
    budget = float(fit.points.budgets_n.max())
    out = fit.points.budgets_n == budget
    start = np.array([[fit.law.alpha, fit.law.beta]])
    inputs, losses = log_inputs(fit.points)[None], fit.points.losses_n[None]
    batch, error, p_value = forecast_left_out(inputs, losses, out, start, fit.batch.delta)
    if batch is None or not batch.valid_K()[0]:
        return LeaveOut(law=None, budget=budget, error=np.nan, p_value=np.nan)
    law = Law(**{name: float(values[0]) for name, values in laws_of(batch).items()})
    return LeaveOut(law=law, budget=budget, error=float(error[0]), p_value=float(p_value[0]))


def forecast_left_out(
    inputs_Knp: Floats,
    losses_Kn: Floats,
    out_n: NDArray[np.bool_],
    exponents_Kp: Floats,
    delta: float,
) -> tuple[FitBatch | None, Floats, Floats]:
    """Return K laws without some runs, the median log errors at these runs, and p values.

    The variance of the median is that of the law (delta method) and pi / 2 times that of the mean
    of the noise, as for many normal values. Outliers hardly change the median.

    Args:
        inputs_Knp: log inputs.
        losses_Kn: losses.
        out_n: mask of the runs to leave out.
        exponents_Kp: exponents at which the fit starts.
        delta: threshold of the Huber loss.
    """
    nothing = np.full(len(losses_Kn), np.nan)
    fitted = 1 + 2 * inputs_Knp.shape[2]
    if (~out_n).sum() <= fitted:
        return None, nothing, nothing
    batch = refit_batch(inputs_Knp[:, ~out_n], losses_Kn[:, ~out_n], exponents_Kp, delta)
    centered = inputs_Knp[:, out_n] - batch.centers_Kp[:, None]
    columns = np.exp(-batch.exponents_Kp[:, None] * centered)
    powers = batch.solution.factors_Kq[:, None, 1:] * columns
    loss = batch.constants_K[:, None] + powers.sum(axis=2)
    ones = np.ones((*columns.shape[:2], 1))
    slopes = [-batch.exponents_Kp[:, None] * centered * powers, ones, columns]
    gradient = (np.concatenate(slopes, axis=2) / loss[..., None]).mean(axis=1)
    variance = np.einsum("ki,kij,kj->k", gradient, batch.covariance_KPP(), gradient)
    errors = np.log(loss) - np.log(losses_Kn[:, out_n])
    error = np.median(errors, axis=1)
    total = np.sqrt(variance + np.pi / 2 * batch.deviations_K**2 / out_n.sum())
    return batch, error, np.asarray(2 * stats.t.sf(np.abs(error) / total, batch.freedom))
