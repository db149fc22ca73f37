"""The report's section on scaling: laws of the groups, learning rates, generator ratio."""

from collections.abc import Hashable
from dataclasses import dataclass

from lab.reporting.scaling import generator_ratio, law_sentences, law_tables, rate_tables
from lab.reporting.scaling.analysis import FEWEST, FittedGroup, RefusedGroup, analyze_group
from lab.reporting.scaling.design_checks import check_batches, check_design
from lab.reporting.scaling.end_points import RATE, RunGroup, group_end_points
from lab.reporting.scaling.generator_ratio import RatioTrend, analyze_ratios
from lab.reporting.scaling.interval_contents import describe_errors
from lab.reporting.scaling.rates import RateRefusal, analyze_rates
from lab.reporting.tables import Table
from lab.scaling.rate_trend import RateTrend
from lab.tracking.frames import SweepFrames

_BATCH = "batch"
_NO_RATES = (
    "The learning rate was not varied, so this sweep has no trend of the best rate over size, "
    "horizon and batch."
)
_NO_GENERATOR = "No run has a generator, so its ratio enters no law."


@dataclass(frozen=True, kw_only=True)
class LawPart:
    """The law of one group, or the reason why there is none.

    Attributes:
        title: settings of the group; empty if the sweep has one group.
        result: the law, or the refusal.
        text: sentences: the decision and the fit, or the refusal.
        warnings: reasons to distrust the law, one sentence each.
        tables: its tables.
    """

    title: str
    result: FittedGroup | RefusedGroup
    text: str
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class RatePart:
    """The trend of the optimal learning rate of groups that differ in the batch only.

    Attributes:
        title: settings that the groups share; empty if there is one part.
        result: the trend, or the refusal.
        text: the refusal, or reasons to distrust the trend; empty without any.
        tables: its tables.
    """

    title: str
    result: RateTrend | RateRefusal
    text: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class RatioPart:
    """The best generator ratio over the budget.

    Attributes:
        text: sentences: what the ratio does in the law.
        table: the best ratio of each budget.
    """

    text: str
    table: Table


@dataclass(frozen=True, kw_only=True)
class ScalingSection:
    """Contents of the section.

    Attributes:
        laws: one part per group.
        rates: one part per set of groups in which the learning rate was varied.
        notes: sentences on missing parts of the section, with the reasons.
        ratio: the generator's ratio in the law; None if it is in none.
    """

    laws: tuple[LawPart, ...]
    rates: tuple[RatePart, ...]
    notes: tuple[str, ...]
    ratio: RatioPart | None


def scaling_section(frames: SweepFrames) -> ScalingSection | None:
    """Return the section; None without anything to fit.

    Needed are three sizes with three budgets or varied rates, or enough generator ratios.
    """
    groups = group_end_points(frames)
    shown = [group for group in groups if _spans_sizes(group)]
    laws = tuple(_law_part(frames, group) for group in shown if _spans_budgets(group))
    rates = _rate_parts(frames, shown)
    varied = RATE in frames.tune or RATE in frames.compare
    ratio = analyze_ratios(groups, tuned=varied)
    if not laws and not rates and not isinstance(ratio, RatioTrend):
        return None
    if isinstance(ratio, RatioTrend) and ratio.group is not None:
        laws = (*laws, _law_part(frames, ratio.group))
    notes = [] if rates else [_NO_RATES]
    if not laws:
        notes.append(f"There is no law L(N, D): it needs {FEWEST} sizes and {FEWEST} budgets.")
    if not isinstance(ratio, RatioTrend):
        notes.append(_NO_GENERATOR if ratio is None else ratio)
    return ScalingSection(
        laws=laws,
        rates=rates,
        notes=tuple(notes),
        ratio=_ratio_part(ratio) if isinstance(ratio, RatioTrend) else None,
    )


def list_tables(section: ScalingSection | None) -> list[tuple[str, Table]]:
    """Return all tables of the section, each with the title of its part."""
    if section is None:
        return []
    ratio = [] if section.ratio is None else [("", section.ratio.table)]
    tables = [(law.title, table) for law in section.laws for table in law.tables]
    tables += [(rates.title, table) for rates in section.rates for table in rates.tables]
    return tables + ratio


def _ratio_part(trend: RatioTrend) -> RatioPart:
    return RatioPart(
        text=generator_ratio.describe_ratio(trend), table=generator_ratio.ratio_table(trend)
    )


def _spans_sizes(group: RunGroup) -> bool:
    return len({end.run.parameters for end in (*group.ends, *group.rated)}) >= FEWEST


def _spans_budgets(group: RunGroup) -> bool:
    return len({end.run.budget for end in group.ends}) >= FEWEST


def _law_part(frames: SweepFrames, group: RunGroup) -> LawPart:
    result = analyze_group(group)
    exclusions = law_tables.exclusion_table(result)
    if isinstance(result, RefusedGroup):
        return LawPart(
            title=group.label,
            result=result,
            text=f"No law is reported: {result.reason}.",
            warnings=(),
            tables=(exclusions,),
        )
    return LawPart(
        title=group.label,
        result=result,
        text=f"{law_sentences.describe_decision(result)} {law_sentences.describe_fit(result)} "
        f"{describe_errors(frames, result)}",
        warnings=(*result.warnings, *check_design(frames, result)),
        tables=(
            law_tables.parameter_table(result),
            law_tables.optimum_table(result),
            law_tables.held_out_table(result),
            law_tables.definition_table(result),
            exclusions,
        ),
    )


def _rate_parts(frames: SweepFrames, groups: list[RunGroup]) -> tuple[RatePart, ...]:
    by_settings: dict[tuple[tuple[str, Hashable], ...], list[RunGroup]] = {}
    for group in groups:
        key = tuple(item for item in group.settings.items() if item[0] != _BATCH)
        by_settings.setdefault(key, []).append(group)
    parts = []
    for key, members in by_settings.items():
        result = analyze_rates(members)
        if result is None:
            continue
        title = ", ".join(f"{path} {value}" for path, value in key) if len(by_settings) > 1 else ""
        warnings = check_batches(frames, [end for group in members for end in group.rated])
        parts.append(_rate_part(title, result, warnings))
    return tuple(parts)


def _rate_part(title: str, result: RateTrend | RateRefusal, warnings: list[str]) -> RatePart:
    optima = rate_tables.optimum_table(result)
    if isinstance(result, RateRefusal):
        text = f"No trend of the learning rate is reported: {result.reason}."
        return RatePart(title=title, result=result, text=text, tables=(optima,))
    tables = (rate_tables.exponent_table(result), optima)
    text = " ".join(f"Warning: {warning}." for warning in warnings)
    return RatePart(title=title, result=result, text=text, tables=tables)
