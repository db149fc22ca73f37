"""Bootstrap over runs, stratified by budget: parameters, optima, and the decision for a size.

Runs are resampled within each budget, so that each resample has the budgets of the experiment. Runs
that branch from one trunk share its seed, so trunks are resampled instead of their runs. A check of
the profile-likelihood intervals that assumes no distribution of the noise; percentile intervals of
few runs are too narrow.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.scaling.flops import Floats, FlopsPerToken
from lab.scaling.law import LawFit, laws_of, log_inputs
from lab.scaling.optimum import losses_of_sizes, optimal_sizes
from lab.scaling.profiles import Estimate
from lab.scaling.runs import Points
from lab.scaling.solver.batch import refit_batch

RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class BootstrapLaws:
    """Laws that were fitted to resampled runs.

    Attributes:
        laws: E, A, B, alpha and beta of the valid ones, by name, each of shape (K,).
        failed: share of the resamples without a valid fit.
    """

    laws: dict[str, Floats]
    failed: float


@dataclass(frozen=True, kw_only=True)
class SizeShare:
    """How often a size is the best one.

    Attributes:
        parameters: the size.
        share: share of the resamples in which its loss at the budget is the smallest.
    """

    parameters: float
    share: float


def bootstrap_laws(
    fit: LawFit,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    blocks_nB: Floats | None = None,
) -> BootstrapLaws:
    """Return the laws of resampled runs, each fitted from the law of all runs.

    Args:
        fit: the law.
        rng: source of the random numbers.
        resamples: number of resamples.
        blocks_nB: contribution of each block of the test set to the loss of each run; if given,
            the blocks are resampled too, the same ones for all runs. The noise that a run has in
            each block alone then counts twice; in reports/scaling it is 1 % of the variance
            between runs.
    """
    index = resample_within(fit.points.budgets_n, rng, resamples, fit.points.groups_n)
    exponents = np.broadcast_to([fit.law.alpha, fit.law.beta], (resamples, 2))
    inputs, losses = log_inputs(fit.points)[index], fit.points.losses_n[index]
    if blocks_nB is not None:
        losses = losses * np.exp(
            np.take_along_axis(_shifts(fit, blocks_nB, rng, resamples), index, 1)
        )
    batch = refit_batch(inputs, losses, exponents, fit.batch.delta)
    valid = batch.valid_K()
    laws = {name: values[valid] for name, values in laws_of(batch).items()}
    return BootstrapLaws(laws=laws, failed=1 - float(valid.mean()))


def _shifts(fit: LawFit, blocks_nB: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Return the shifts of the log losses by resampled blocks, of shape (resamples, n)."""
    blocks = blocks_nB.shape[1]
    counts_RB = rng.multinomial(blocks, np.full(blocks, 1 / blocks), resamples)
    return np.asarray((counts_RB - 1) @ (blocks_nB / fit.points.losses_n[:, None]).T)


def resample_within(
    strata_n: Floats,
    rng: np.random.Generator,
    resamples: int,
    groups_n: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """Return positions of resampled runs, of shape (resamples, n), drawn within each stratum.

    Each group draws one quantile, at which each of its runs is replaced by a run of the same
    stratum. If all groups have the same strata, a group is therefore replaced by another group. If
    a group lacks a stratum, each stratum is still resampled uniformly, and groups nearly so.

    Args:
        strata_n: stratum of each run.
        rng: source of the random numbers.
        resamples: number of resamples.
        groups_n: numbers of the groups of runs that are drawn together; None to draw each run by
            itself.
    """
    if groups_n is None:
        groups_n = np.arange(len(strata_n))
    quantiles = rng.random((resamples, int(groups_n.max()) + 1))
    index = np.empty((resamples, len(strata_n)), dtype=np.intp)
    for stratum in np.unique(strata_n):
        members = np.flatnonzero(strata_n == stratum)
        members = members[np.argsort(groups_n[members], kind="stable")]
        picks = (quantiles[:, groups_n[members]] * len(members)).astype(np.intp)
        index[:, members] = members[picks]
    return index


def percentile_interval(values_K: Floats, estimate: float, level: float) -> Estimate:
    """Return the percentile interval of a value by its bootstrap replicates."""
    low, high = np.quantile(values_K, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=estimate, low=float(low), high=float(high), level=level)


def bootstrap_optimal_sizes(boot: BootstrapLaws, flops: float, per_token: FlopsPerToken) -> Floats:
    """Return the compute-optimal sizes of the resamples that have one."""
    sizes = optimal_sizes(boot.laws, flops, per_token)
    return sizes[np.isfinite(sizes)]


def decide_size(
    boot: BootstrapLaws, points: Points, flops: float, per_token: FlopsPerToken
) -> tuple[SizeShare, ...]:
    """Return how often each size that was run has the smallest loss at a budget."""
    sizes = np.unique(points.parameters_n)
    best = losses_of_sizes(boot.laws, sizes, flops, per_token).argmin(axis=1)
    shares = np.bincount(best, minlength=len(sizes)) / len(best)
    return tuple(
        SizeShare(parameters=float(size), share=float(share))
        for size, share in zip(sizes, shares, strict=True)
    )
