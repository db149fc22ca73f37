"""Yardsticks of a score: the untrained encoder of the same shape, and look-up tables.

A cell is compared with its own trials at step 0, and with the scores of the tables of
`lab.config.lookups` on the same text. The latter are constants.
"""

import math
from dataclasses import dataclass

import pandas as pd

from lab.config.lookups import LOOKUPS, Lookup, select_baselines
from lab.reporting import stats
from lab.reporting.finite_test_set import read_errors
from lab.reporting.sentences import NONE, format_interval, format_score
from lab.reporting.stats import Answer, Cell
from lab.tracking.frames import SweepFrames

_NOT_SCORED = "not scored: this metric is computed only at the end of a trial"
_NO_TEST_ERROR = (
    "the sampling error of the test set is not recorded at step 0, so this interval lacks it"
)


@dataclass(frozen=True, kw_only=True)
class LookupComparison:
    """The ranking metric of a cell beside that of a look-up table.

    Attributes:
        name: name of the table.
        lookup: the table.
        score: score of the table, the mean over the cell's trials.
        better: whether the cell is significantly better: the 95 % interval of its mean has only
            better scores. None if there is no interval.
        worse: whether the cell is significantly worse: the interval has only worse scores.
    """

    name: str
    lookup: Lookup
    score: float
    better: bool | None
    worse: bool


def lookup_scores(runs: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return the mean score of each look-up table by a metric, over the trials that have it.

    The scores of a table differ between trials only if these differ in text, vocabulary or window.
    """
    entries = select_baselines(map(str, runs), metric)
    scores = {table: float(runs[name].mean()) for table, name in entries.items()}
    return {table: score for table, score in scores.items() if not math.isnan(score)}


def compare_with_lookups(
    frames: SweepFrames, runs: pd.DataFrame, cell: Cell
) -> tuple[LookupComparison, ...]:
    """Return the comparisons of a cell with all look-up tables of the ranking metric.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
        cell: a cell.
    """
    metric = frames.metric
    own_runs = runs[runs["cell"] == cell.label]
    ends = (cell.score.low, cell.score.high)
    worst, best = ends if metric.direction == "maximize" else reversed(ends)
    return tuple(
        LookupComparison(
            name=table.replace("_", " "),
            lookup=LOOKUPS[table],
            score=score,
            better=None if math.isnan(worst) else metric.better(worst, score),
            worse=not math.isnan(best) and metric.better(score, best),
        )
        for table, score in lookup_scores(own_runs, metric.name).items()
    )


def untrained_score(runs: pd.DataFrame, label: str) -> float:
    """Return the mean of the ranking metric of a cell's trials at step 0; NaN if not scored."""
    return float(runs.loc[runs["cell"] == label, "untrained"].mean())


def describe_missing_evidence(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> str:
    """Return a sentence on the look-up tables that the best cell does not beat.

    It is about the tables with the weakest evidence, and empty if the cell beats all tables, or
    cannot be compared with them.
    """
    best = result.cells[0]
    lost = [each for each in compare_with_lookups(frames, runs, best) if each.better is False]
    if not lost:
        return ""
    evidence, worse = lost[0].lookup.evidence, lost[0].worse
    tables = _list_tables(
        [each for each in lost if (each.lookup.evidence, each.worse) == (evidence, worse)]
    )
    return (
        f"There is no evidence that the encoder {evidence}: {frames.metric.name} of {best.label}, "
        f"{format_interval(best.score)}, {_verdict(lost[0])} {tables}."
    )


def describe_yardsticks(
    frames: SweepFrames, result: Answer, runs: pd.DataFrame
) -> list[tuple[str, str]]:
    """Return the summary lines that compare the best cell with its yardsticks."""
    best = result.cells[0]
    return [
        ("untrained", _describe_untrained(frames, best, runs)),
        *_describe_lookups(frames, best, runs),
    ]


def _describe_untrained(frames: SweepFrames, best: Cell, runs: pd.DataFrame) -> str:
    start = untrained_score(runs, best.label)
    if math.isnan(start):
        return _NOT_SCORED
    gain = stats.gain_over_untrained(frames, runs, best.label)
    verdict = {
        True: "it is significantly better",
        False: "it is not significantly better",
        None: "without an interval, it cannot be called better",
    }[stats.is_above_untrained(frames, runs, best)]
    known = not math.isnan(read_errors(frames, runs).of_gain(best.label))
    note = "" if known or math.isnan(gain.low) else f"; {_NO_TEST_ERROR}"
    return (
        f"{format_score(start)} (same shape and window); the best setting differs from it by "
        f"{format_interval(gain, signed=True)}; {verdict}{note}"
    )


def _describe_lookups(frames: SweepFrames, best: Cell, runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the summary line on the look-up tables."""
    compared = compare_with_lookups(frames, runs, best)
    by_verdict: dict[str, list[LookupComparison]] = {}
    for each in compared:
        by_verdict.setdefault(_verdict(each), []).append(each)
    parts = [f"{verdict} {_list_tables(those)}" for verdict, those in by_verdict.items()]
    text = (
        f"{best.label} {'; it '.join(parts)}"
        if parts
        else f"none for {frames.metric.name}: it is compared with untrained encoders only"
    )
    return [("look-up tables", text)]


def _verdict(compared: LookupComparison) -> str:
    if compared.better is None:
        return "cannot be compared, without an interval, with"
    if compared.worse:
        return "is significantly worse than"
    return f"is {'' if compared.better else 'not '}significantly better than"


def describe_levels(frames: SweepFrames, runs: pd.DataFrame) -> str:
    """Return the untrained scores and those of the look-up tables, for a caption; may be empty."""
    starts = runs.groupby("cell")["untrained"].mean().dropna()
    ends = dict.fromkeys(map(format_score, (starts.min(), starts.max()) if len(starts) else ()))
    tables = format_lookups(runs, frames.metric.name)
    parts = [f"untrained: {' to '.join(ends)}"] if ends else []
    parts += [f"look-up tables: {tables}"] if tables != NONE else []
    return f"For comparison, {'; '.join(parts)}." if parts else ""


def list_beaten(frames: SweepFrames, runs: pd.DataFrame, cells: list[Cell]) -> str:
    """Return, for each look-up table, the labels of the cells that are significantly better."""
    by_table: dict[str, list[str]] = {}
    for cell in cells:
        for each in compare_with_lookups(frames, runs, cell):
            labels = by_table.setdefault(_describe_table(each), [])
            if each.better:
                labels.append(cell.label)
    return "; ".join(
        f"{table}: {', '.join(labels) or 'no setting'}" for table, labels in by_table.items()
    )


def format_lookups(runs: pd.DataFrame, metric: str) -> str:
    """Return the scores of a metric's look-up tables, for a table's cell: `word 0.7880`.

    Two scores are the smallest and the largest one of trials with several texts or vocabularies.
    """
    parts = []
    for table, name in select_baselines(map(str, runs), metric).items():
        ends = dict.fromkeys(map(format_score, (runs[name].min(), runs[name].max())))
        parts.append(f"{table.replace('_', ' ')} {' to '.join(ends)}")
    return "; ".join(parts) or NONE


def _list_tables(compared: list[LookupComparison]) -> str:
    return " and ".join(_describe_table(each) for each in compared)


def _describe_table(compared: LookupComparison) -> str:
    title, score = compared.lookup.title, format_score(compared.score)
    return f"the {compared.name} table ({title}; {score})"
