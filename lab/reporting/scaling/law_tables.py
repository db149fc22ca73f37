"""Tables of a fitted law: parameters, optimal sizes, definitions of N, forecast, exclusions."""

from collections.abc import Iterator, Sequence

import numpy as np

from lab.reporting.scaling.analysis import LEVEL, BudgetOptimum, FittedGroup, RefusedGroup
from lab.reporting.scaling.estimates import format_estimate, format_flops, format_number, minus
from lab.reporting.scaling.parameter_counts import BLOCKS
from lab.reporting.tables import Table
from lab.scaling.diagnostics import LeaveOut
from lab.scaling.profiles import Estimate

_MEANINGS = {
    "E": "loss of unlimited size and text",
    "alpha": "exponent of the size N",
    "beta": "exponent of the tokens D",
    "allocation": "exponent of the optimal size if compute were 6 N D; the optimal sizes below use "
    "the FLOPs that budgets count",
    "A": "factor of the size term",
    "B": "factor of the tokens term",
}
_SYMBOLS = {"alpha": "α", "beta": "β", "allocation": "a = β / (α + β)"}


def parameter_table(fitted: FittedGroup) -> Table:
    """Return the table of the law's parameters with their intervals."""
    rows = [
        [_SYMBOLS.get(name, name), format_estimate(fitted.intervals[name]), meaning]
        for name, meaning in _MEANINGS.items()
    ]
    caption = (
        f"Parameters of L(N, D) = E + A / N^α + B / D^β with {LEVEL:.0%} intervals: profile "
        f"likelihood, and for A and B the bootstrap over runs. N is the number of weights of the "
        f"{BLOCKS}."
    )
    head = ("parameter", "value", "meaning")
    return Table(caption=caption, head=head, rows=rows, file="law.csv")


def optimum_table(fitted: FittedGroup) -> Table:
    """Return the table of compute-optimal sizes, beside those of the parabolas."""
    shapes = {end.run.parameters: end.shape for end in fitted.ends}
    rows = [
        [
            f"{format_flops(optimum.budget)}{' (extrapolated)' * optimum.extrapolated}",
            format_estimate(optimum.size),
            format_estimate(optimal_tokens(fitted, optimum)),
            format_number(optimum.allocation.tokens / optimum.size.value),
            format_estimate(optimal_loss(optimum), 4),
            ", ".join(
                f"{shapes[share.parameters]} ({share.share:.0%})" for share in optimum.decided
            ),
            _parabola(fitted, optimum.budget),
        ]
        for optimum in fitted.optima
    ]
    caption = (
        f"Compute-optimal size at each budget. Intervals are {LEVEL:.0%} profile likelihoods; that "
        "of the loss is for a new run. The best size is among those that were run; its share is "
        f"that of {_count_resamples(fitted)} resamples of the runs within budgets, and sizes are "
        f"listed until their shares add up to {LEVEL:.0%}. {_describe_parabolas(fitted)}"
    )
    head = (
        "budget",
        "optimal N",
        "tokens",
        "tokens / N",
        "loss",
        "best size that was run",
        "parabola's N",
    )
    return Table(caption=caption, head=head, rows=rows, file="optima.csv")


def _count_resamples(fitted: FittedGroup) -> int:
    return len(fitted.boot.laws["A"])


def optimal_tokens(fitted: FittedGroup, optimum: BudgetOptimum) -> Estimate:
    """Return the tokens at the optimal size; the largest size has the fewest."""
    size = optimum.size
    tokens = [
        0.0 if np.isinf(end) else np.inf if end == 0 else
        optimum.budget / float(fitted.per_token(np.array([end]))[0])
        for end in (size.high, size.low)
    ]  # fmt: skip
    return Estimate(
        value=optimum.allocation.tokens, low=tokens[0], high=tokens[1], level=size.level
    )


def optimal_loss(optimum: BudgetOptimum) -> Estimate:
    """Return the loss of a new run of the optimal size."""
    loss = optimum.loss
    low, high = loss.mean_ends(1)
    return Estimate(value=loss.loss, low=low, high=high, level=loss.level)


def _parabola(fitted: FittedGroup, budget: float) -> str:
    """Return the minimum of a budget's parabola, and its error if the law is right."""
    if isinstance(fitted.parabolas, str):
        return "–"
    found = {each.budget: each for each in fitted.parabolas.fit.parabolas}.get(budget)
    if found is None:
        return "–"
    if found.problem:
        return found.problem
    bias = fitted.parabolas.bias
    if bias is None or budget not in bias.sizes:
        return f"{format_number(found.parameters)} (bias unknown)"
    return f"{format_number(found.parameters)} (bias × {bias.sizes[budget]:.2f})"


def _describe_parabolas(fitted: FittedGroup) -> str:
    if isinstance(fitted.parabolas, str):
        return f"There is no cross-check: {fitted.parabolas}."
    return (
        "The minima of parabolas are a cross-check: the bias in brackets is what parabolas at "
        "these sizes get wrong without any noise if the law is right."
    )


def definition_table(fitted: FittedGroup) -> Table:
    """Return the table of exponents under each definition of N."""
    rows = []
    for definition in fitted.definitions:
        if definition.fit is None:
            rows.append([definition.name, definition.problem, *["–"] * 4])
            continue
        values = (definition.intervals[name] for name in ("alpha", "beta", "allocation", "E"))
        slope = f"{definition.optimal_exponent:.2f}"
        rows.append([definition.name, *map(format_estimate, values), slope])
    caption = (
        f"The same runs under other definitions of N, with {LEVEL:.0%} intervals that contain the "
        "noise between runs only. Exponents of different definitions are not comparable. The last "
        "column is the slope of the optimal size over the FLOPs that budgets count, on logarithmic "
        "scales, at the largest budget."
    )
    head = ("N", "α", "β", "a", "E", "slope of log optimal N over log C")
    return Table(caption=caption, head=head, rows=rows, file="definitions.csv")


def held_out_table(fitted: FittedGroup) -> Table:
    """Return the losses of the largest budget as the law of the smaller ones predicts them."""
    shapes = {end.run.parameters: end.shape for end in fitted.ends}
    rows = [
        [
            shapes[loss.parameters],
            format_number(loss.tokens),
            f"{loss.predicted:.4f} [{loss.low:.4f}, {loss.high:.4f}]",
            f"{loss.observed:.4f}",
            "yes" if loss.covered else "no",
        ]
        for loss in fitted.held_out
    ]
    left = fitted.left_out
    if not rows:
        caption = (
            f"The runs without the largest budget, {format_flops(left.budget)}, determine "
            "no law, so the law cannot be tested on that budget."
        )
    else:
        covered = sum(loss.covered for loss in fitted.held_out)
        caption = (
            f"The law without the largest budget, {format_flops(left.budget)}, predicts its "
            f"losses: {covered} of {len(rows)} {LEVEL:.0%} intervals contain the mean of the runs"
            f"{_describe_error(left)}."
        )
    head = ("size", "tokens", "predicted", "observed", "inside")
    return Table(caption=caption, head=head, rows=rows, file="held_out.csv")


def _describe_error(left: LeaveOut) -> str:
    if np.isnan(left.error):
        return ""
    return f"; median error {minus(f'{100 * left.error:+.2g}')} % (p = {left.p_value:.2g})"


def exclusion_table(result: FittedGroup | RefusedGroup) -> Table:
    """Return the table of the reasons why trials are not fitted, each with its trials."""
    by_reason: dict[str, list[int]] = {}
    for number, reason in sorted(_excluded(result)):
        by_reason.setdefault(reason, []).append(number)
    fitted, excluded = len(result.selection.kept), sum(map(len, by_reason.values()))
    caption = (
        f"{excluded} trials are not fitted; {fitted} are."
        if excluded
        else f"All {fitted} trials are fitted."
    )
    rows = [
        [reason, str(len(numbers)), join_ranges(numbers)] for reason, numbers in by_reason.items()
    ]
    if excluded:
        caption += (
            " If some runs of a size have not learned and are left out, the size is shown better "
            "than the mean of all its runs."
        )
    return Table(caption=caption, head=("reason", "trials", "numbers"), rows=rows)


def _excluded(result: FittedGroup | RefusedGroup) -> Iterator[tuple[int, str]]:
    numbers = {end.run.name: end.number for end in result.group.ends}
    for exclusion in result.selection.excluded:
        yield numbers[exclusion.run.name], exclusion.reason
    for left in result.group.left_out:
        yield left.number, left.reason


def join_ranges(numbers: Sequence[int]) -> str:
    """Return increasing numbers as text, with ranges: `3, 5–8`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{each[0]}–{each[-1]}" if len(each) > 1 else str(each[0]) for each in ranges)
