"""Fit the scaling law of a group of end points, or say why no law can be fitted.

Exclusions with reasons, the law, profile-likelihood intervals, a bootstrap over runs for the
decision between sizes, the law under other definitions of N, parabolas as a cross-check, and
warnings. All numbers are functions of the end points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.errors import UserError
from lab.reporting.scaling.end_points import EndPoint, RunGroup
from lab.reporting.scaling.parameter_counts import BLOCKS
from lab.scaling.bootstrap import (
    BootstrapLaws,
    SizeShare,
    bootstrap_laws,
    decide_size,
    percentile_interval,
)
from lab.scaling.definitions import Definition, fit_by_definition
from lab.scaling.diagnostics import LeaveOut, check_fit, leave_largest_out
from lab.scaling.finite_test_set import (
    FEWEST_BLOCKS,
    TestSetErrors,
    find_test_set_errors,
    widen,
)
from lab.scaling.flops import Floats, FlopsPerToken, interpolated
from lab.scaling.forecasting.back_tests import HeldOutLoss, leave_rung_out
from lab.scaling.hygiene import Selection, select_runs
from lab.scaling.law import LawFit, fit_law
from lab.scaling.optimum import Allocation, optimal_allocation
from lab.scaling.parabolas import IsoflopFit, ParabolaBias, fit_parabolas, parabola_bias
from lab.scaling.predictions import Prediction, predict_losses
from lab.scaling.profiles import Estimate, law_intervals, optimal_size_intervals
from lab.scaling.runs import points_of

LEVEL = 0.9
FEWEST = 3  # sizes and budgets; also in `lab.scaling.law`, for sizes and token counts
EXTRAPOLATED = (3.0, 10.0)  # times the largest budget, at which the optimum is shown
_FAILED = 0.05  # share of resamples without a law from which on the report warns
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class BudgetOptimum:
    """The compute-optimal size at a budget.

    Attributes:
        budget: FLOPs.
        allocation: optimal size and tokens, and the loss there, by the law.
        size: optimal size with its profile-likelihood interval, which contains the error of the
            test set where it is known.
        loss: loss at the optimum.
        shares: how often each size that was run is the best one, by the bootstrap.
        extrapolated: whether no run had such a budget.
    """

    budget: float
    allocation: Allocation
    size: Estimate
    loss: Prediction
    shares: tuple[SizeShare, ...]
    extrapolated: bool

    @property
    def decided(self) -> tuple[SizeShare, ...]:
        """The fewest sizes that are the best one in 90 % of the resamples, most frequent first."""
        found: list[SizeShare] = []
        for share in sorted(self.shares, key=lambda each: -each.share):
            found.append(share)
            if sum(each.share for each in found) >= LEVEL:
                break
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class ParabolaCheck:
    """Parabolas of loss over log N at each budget, and their bias if the law is right.

    Attributes:
        fit: the parabolas and the line through their minima.
        bias: their error without noise, at the largest budget; None if it cannot be computed.
    """

    fit: IsoflopFit
    bias: ParabolaBias | None


@dataclass(frozen=True, kw_only=True)
class FittedGroup:
    """A group of end points with a law.

    Attributes:
        group: the end points.
        selection: those that are fitted, and the others with reasons.
        ends: end points that are fitted, in the order of the law's points.
        fit: the law.
        intervals: E, A, B, alpha, beta and allocation; A and B by the bootstrap, the others by
            profile likelihood. They contain the error of the test set where it is known.
        test_set: errors of the law due to the finite test set; None if they are unknown.
        per_token: FLOPs per token of a size.
        boot: laws of resampled runs.
        optima: optimal sizes by increasing budget.
        definitions: the law under each definition of N, that of `fit` first.
        left_out: the law without the largest budget.
        held_out: losses of the largest budget, as that law predicts them.
        parabolas: cross-check by parabolas; the reason in words if there are none.
        warnings: signs that the law or the design is wrong.
    """

    group: RunGroup
    selection: Selection
    ends: tuple[EndPoint, ...]
    fit: LawFit
    intervals: dict[str, Estimate]
    test_set: TestSetErrors | None
    per_token: FlopsPerToken
    boot: BootstrapLaws
    optima: tuple[BudgetOptimum, ...]
    definitions: tuple[Definition, ...]
    left_out: LeaveOut
    held_out: tuple[HeldOutLoss, ...]
    parabolas: ParabolaCheck | str
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RefusedGroup:
    """A group of end points without a law.

    Attributes:
        group: the end points.
        selection: those that could be fitted, and the others with reasons.
        reason: why there is no law, in words.
    """

    group: RunGroup
    selection: Selection
    reason: str


def analyze_group(group: RunGroup) -> FittedGroup | RefusedGroup:
    """Fit the law of a group."""
    selection = select_runs(group.runs)
    kept = {run.name for run in selection.kept}
    ends = tuple(end for end in group.ends if end.run.name in kept)
    sizes, budgets = ({*values} for values in _axes(ends))
    if min(len(sizes), len(budgets)) < FEWEST:
        reason = (
            f"{len(sizes)} sizes and {len(budgets)} budgets have runs that a law may be fitted to; "
            f"it needs {FEWEST} of each"
        )
        return RefusedGroup(group=group, selection=selection, reason=reason)
    try:
        return _fit(group, selection, ends)
    except UserError as error:
        return RefusedGroup(group=group, selection=selection, reason=str(error))


def _axes(ends: tuple[EndPoint, ...]) -> tuple[list[float], list[float]]:
    return [end.run.parameters for end in ends], [end.run.budget for end in ends]


def _fit(group: RunGroup, selection: Selection, ends: tuple[EndPoint, ...]) -> FittedGroup:
    points = points_of(end.run for end in ends)
    per_token = flops_per_token(ends)
    fit = fit_law(points)
    blocks_nB = _read_blocks(ends)
    boot = bootstrap_laws(fit, np.random.default_rng(_SEED), blocks_nB=blocks_nB)
    if not len(boot.laws["A"]):
        raise UserError("no law L(N, D): none of the resamples of the runs determines one")
    intervals = law_intervals(fit, LEVEL)
    _check_identified(intervals)
    test_set = None if blocks_nB is None else _find_test_set_errors(fit, ends, blocks_nB)
    if test_set is not None:
        intervals = _widen(intervals, test_set, float(points.losses_n.min()))
    for name, value in (("A", fit.law.A), ("B", fit.law.B)):
        intervals[name] = percentile_interval(boot.laws[name], value, LEVEL)
    largest = float(points.budgets_n.max())
    budgets = [*map(float, np.unique(points.budgets_n)), *(x * largest for x in EXTRAPOLATED)]
    names = [BLOCKS, *(name for name in ends[0].sizes if name != BLOCKS)]
    counts = {name: np.array([end.sizes[name] for end in ends]) for name in names}
    costs = np.array([end.flops_per_token for end in ends])
    return FittedGroup(
        group=group,
        selection=selection,
        ends=ends,
        fit=fit,
        intervals=intervals,
        test_set=test_set,
        per_token=per_token,
        boot=boot,
        optima=_find_optima(fit, boot, test_set, per_token, budgets),
        definitions=fit_by_definition(points, counts, costs, largest),
        left_out=leave_largest_out(fit),
        held_out=leave_rung_out(points, largest, LEVEL),
        parabolas=_check_parabolas(fit, per_token),
        warnings=(*check_fit(fit), *_bootstrap_warnings(boot)),
    )


def _check_identified(intervals: dict[str, Estimate]) -> None:
    """Check that the runs limit both exponents on one side at least.

    Raises:
        UserError: they do not limit an exponent.
    """
    for name in ("alpha", "beta"):
        if intervals[name].low == 0 and math.isinf(intervals[name].high):
            raise UserError(
                f"no law L(N, D): the runs do not limit {name}: its {LEVEL:.0%} interval contains "
                f"all values; more sizes, budgets or seeds are needed"
            )


def flops_per_token(ends: tuple[EndPoint, ...]) -> FlopsPerToken:
    """Return FLOPs per token as a function of N, interpolated between the sizes that were run.

    Raises:
        UserError: there is one size only, or a larger one has fewer FLOPs per token.
    """
    costs: dict[float, list[float]] = {}
    for end in ends:
        costs.setdefault(end.run.parameters, []).append(end.flops_per_token)
    return interpolated(np.array(list(costs)), np.array([np.mean(c) for c in costs.values()]))


def _read_blocks(ends: tuple[EndPoint, ...]) -> Floats | None:
    """Return the contributions of the blocks of the test set; None unless all runs have them."""
    counts = {len(end.blocks) for end in ends}
    if len(counts) > 1 or min(counts) < FEWEST_BLOCKS:
        return None
    return np.array([end.blocks for end in ends])


def _find_test_set_errors(
    fit: LawFit, ends: tuple[EndPoint, ...], blocks_nB: Floats
) -> TestSetErrors:
    corners = [(end.run.parameters, end.run.budget) for end in ends]
    numbers = {corner: number for number, corner in enumerate(dict.fromkeys(corners))}
    corners_n = np.array([numbers[corner] for corner in corners])
    return find_test_set_errors(fit.batch, blocks_nB[None], corners_n)


def _widen(
    intervals: dict[str, Estimate], test_set: TestSetErrors, smallest: float
) -> dict[str, Estimate]:
    """Return intervals that contain the error of the test set; E is below the smallest loss."""
    growth, limits = test_set.growth(), {"E": smallest, "allocation": 1.0}
    wide = {name: widen(each, float(growth[name][0])) for name, each in intervals.items()}
    return {
        name: replace(each, high=min(each.high, limits.get(name, math.inf)))
        for name, each in wide.items()
    }


def _find_optima(
    fit: LawFit,
    boot: BootstrapLaws,
    test_set: TestSetErrors | None,
    per_token: FlopsPerToken,
    budgets: Sequence[float],
) -> tuple[BudgetOptimum, ...]:
    """Return the compute-optimal size at each budget; all intervals are searched at once."""
    best = [optimal_allocation(fit.law, budget, per_token) for budget in budgets]
    parameters, tokens = np.array([[each.parameters, each.tokens] for each in best]).T
    losses = predict_losses(fit, parameters, tokens)
    sizes = optimal_size_intervals(fit, np.array(budgets), per_token, LEVEL)
    return tuple(
        BudgetOptimum(
            budget=each.flops,
            allocation=each,
            loss=loss,
            size=size if test_set is None else test_set.widen_size(size, each.flops, per_token),
            shares=decide_size(boot, fit.points, each.flops, per_token),
            extrapolated=each.flops > float(fit.points.budgets_n.max()),
        )
        for each, loss, size in zip(best, losses, sizes, strict=True)
    )


def _check_parabolas(fit: LawFit, per_token: FlopsPerToken) -> ParabolaCheck | str:
    try:
        parabolas = fit_parabolas(fit.points)
    except UserError as error:
        return str(error)
    try:
        largest = float(fit.points.budgets_n.max())
        bias: ParabolaBias | None = parabola_bias(fit.points, fit.law, per_token, largest)
    except UserError:  # the parabolas of the law itself have no minimum among the sizes
        bias = None
    return ParabolaCheck(fit=parabolas, bias=bias)


def _bootstrap_warnings(boot: BootstrapLaws) -> tuple[str, ...]:
    if boot.failed <= _FAILED:
        return ()
    return (
        f"{boot.failed:.0%} of the resamples of the runs determine no law, so the bootstrap leaves "
        f"out the worst cases",
    )
