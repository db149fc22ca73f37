"""Tables and sentences on forecasts, for the report and the terminal."""

import math
from collections.abc import Iterable, Sequence

from lab.reporting import sentences
from lab.reporting.forecasts.record import DesignRecord, ForecastRecord
from lab.reporting.forecasts.scored import ScoredForecast
from lab.reporting.tables import Table
from lab.scaling.forecasting.back_tests import RungTest
from lab.scaling.forecasting.decisions import DecisionAccuracy
from lab.scaling.forecasting.scoring import Calibration, ForecastReport


def describe_forecast(record: ForecastRecord) -> str:
    """Return in one sentence when and how a forecast was made."""
    laws = {
        "size_and_data": "one law L(N, D) = E + A / N^α + B / D^β for each group of sizes",
        "curves": "one curve L(C) = E + A / C^γ for each design",
    }
    return (
        f"Forecast {record.name} of {sentences.format_quantity(record.budget, 'FLOP')}, "
        f"{record.factor:.3g} times the largest budget that was fitted, written {record.written} "
        f"from {len(record.trials)} trials ({len(record.excluded)} excluded) by "
        f"{laws[record.law]}; {record.metric}, N: {record.size}."
    )


def forecast_table(scored: ScoredForecast) -> Table:
    """Return the table of a forecast's designs, smallest expected loss first."""
    record = scored.record
    baseline = sorted(record.baseline.losses, key=lambda name: record.baseline.losses[name])
    head = ("rank", "design", "parameters", "tokens", "loss", f"{_percent(record.level)} interval",
            f"rank at {record.baseline.budget:.3g}", "observed (n)", "error",
            "covered")  # fmt: skip
    rows = [
        [str(rank), *_design_row(scored, each, baseline)]
        for rank, each in enumerate(record.ranked, start=1)
    ]
    caption = f"{describe_forecast(record)} {describe_scores(scored)}"
    return Table(caption=caption, head=head, rows=rows, file="forecasts.csv")


def _design_row(scored: ScoredForecast, design: DesignRecord, baseline: Sequence[str]) -> list[str]:
    error = scored.errors.get(design.design)
    rank = baseline.index(design.design) + 1 if design.design in baseline else None
    return [
        design.design,
        sentences.format_quantity(design.parameters, ""),
        sentences.format_quantity(design.tokens, ""),
        sentences.format_score(design.loss),
        format_ends(*scored.ends(design)),
        sentences.NONE if rank is None else str(rank),
        sentences.NONE
        if error is None
        else f"{sentences.format_score(error.observed)} ({error.forecast.seeds})",
        sentences.NONE if error is None else format_change(error.relative),
        sentences.NONE if error is None else "yes" if error.covered else "no",
    ]


def describe_scores(scored: ScoredForecast) -> str:
    """Return in sentences how good a forecast was, and which runs do not count."""
    record, report = scored.record, scored.report
    if report is None:
        text = (
            f"No run at this budget counts yet: a run counts if its model, text, batch, optimizer "
            f"and schedule have the settings of a design. The intervals are those of the mean of "
            f"{record.seeds} runs."
        )
    else:
        covered = sum(error.covered for error in report.errors)
        text = (
            f"{covered} of {len(report.errors)} intervals ({_percent(record.level)} nominal) "
            f"contain the observed mean. {describe_decisions(report, record.baseline.budget)}"
        )
    reasons = dict.fromkeys(run.exclusion for run in scored.excluded)
    if reasons:
        text += f" {len(scored.excluded)} runs do not count: {'; '.join(reasons)}."
    for warning in record.warnings:
        text += f" Warning: {warning}."
    return text


def describe_figure(scored: ScoredForecast) -> str:
    """Return the caption of the figure of a forecast, with the number of intervals that hold."""
    record, errors = scored.record, scored.errors
    level = _percent(record.level)
    text = (
        f"Forecast {record.name}: a dot is the expected loss of a design at "
        f"{sentences.format_quantity(record.budget, 'FLOP')}, smallest first, with the {level} "
        f"interval of the mean of its runs; a diamond is their observed mean."
    )
    if any(low == 0 or math.isinf(high) for low, high in map(scored.ends, record.designs)):
        text += " An interval without a limit ends at the frame."
    if not errors:
        return f"{text} No design has a run that counts yet."
    covered = sum(error.covered for error in errors.values())
    worst = max(errors.values(), key=lambda error: abs(error.relative))
    return (
        f"{text} {len(errors)} of {len(record.designs)} designs have runs; the interval of "
        f"{covered} of them contains the observed mean. The largest error is "
        f"{format_change(worst.relative)} ({worst.forecast.setting})."
    )


def describe_decisions(report: ForecastReport, baseline: float) -> str:
    """Return regret and decision accuracy of a ranking, beside those of the baseline."""
    return (
        f"Regret {sentences.format_score(report.regret)}, by the ranking at {baseline:.3g} "
        f"{sentences.format_score(report.baseline_regret)}; right order of separable pairs "
        f"{_count_pairs(report.decisions)}, by the ranking at {baseline:.3g} "
        f"{_count_pairs(report.baseline_decisions)}."
    )


def _count_pairs(accuracy: DecisionAccuracy) -> str:
    if not accuracy.pairs:
        return "none separable"
    ends = f"{_percent(accuracy.low)} to {_percent(accuracy.high)}"
    return f"{accuracy.right} of {accuracy.pairs} ({ends})"


def back_test_table(tests: Iterable[RungTest]) -> Table:
    """Return the table of forecasts of budgets that were run, from the others."""
    head = ("budget", "from", "mean error", "mean size of the error", "covered", "regret",
            "baseline's regret", "right pairs", "baseline's right pairs")  # fmt: skip
    rows = [_test_row(test) for test in tests]
    caption = (
        "Back-tests: each budget is forecast from all others, and from the smaller ones alone, by "
        "the same kind of law as a forecast. The baseline ranks the designs at the largest smaller "
        "budget, or at the smallest other one; pairs are those that are separable at the budget."
    )
    return Table(caption=caption, head=head, rows=rows, file="back_tests.csv")


def _test_row(test: RungTest) -> list[str]:
    largest = max(test.others, default=math.nan)
    origin = f"{len(test.others)} {'smaller' if largest < test.budget else 'other'} budgets"
    start = [sentences.format_quantity(test.budget, "FLOP"), origin]
    if test.report is None:
        return [*start, test.problem, *[sentences.NONE] * 6]
    report, relative = test.report, [error.relative for error in test.report.errors]
    covered = sum(error.covered for error in report.errors)
    return [
        *start,
        format_change(sum(relative) / len(relative)),
        f"{100 * sum(map(abs, relative)) / len(relative):.2f} %",
        f"{covered} of {len(relative)}",
        sentences.format_score(report.regret),
        sentences.format_score(report.baseline_regret),
        _count_pairs(report.decisions),
        _count_pairs(report.baseline_decisions),
    ]


def describe_calibration(record: Calibration | None) -> str:
    """Return the calibration over all forecasts of a store in one sentence."""
    if record is None:
        return "Calibration: no forecast of this store has been scored yet."
    return (
        f"Calibration over all forecasts of this store: {record.covered} of {record.forecasts} "
        f"intervals contain the observed mean ({_percent(record.nominal)} nominal; 90 % binomial "
        f"interval {_percent(record.low)} to {_percent(record.high)}, computed for "
        f"{record.laws} independent law{'s' * (record.laws != 1)}); mean error "
        f"{format_change(record.mean_error)}, mean absolute error {100 * record.mean_size:.2f} %."
    )


def format_change(share: float) -> str:
    """Return a relative error as a signed percentage."""
    return f"{100 * share:+.2f} %".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def format_ends(low: float, high: float) -> str:
    """Return the ends of an interval; an end that is not limited is named so."""
    lower = "not limited" if low == 0 else sentences.format_score(low)
    upper = "not limited" if math.isinf(high) else sentences.format_score(high)
    return f"[{lower}, {upper}]"
