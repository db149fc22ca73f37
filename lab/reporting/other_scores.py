"""What the scores say that do not rank the trials: disagreements, and rank correlations.

Only scores that may rank the trials take part: a score is left out if the trials differ in a
setting across which its values are not comparable (`Metric.incomparable_across`).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from lab.config.metrics import PAIRS, PAIRS_ACCURACY, Metric, select_metrics
from lab.config.trial import Path
from lab.reporting.confounding import differing_paths
from lab.reporting.intervals import Interval
from lab.reporting.sentences import format_interval
from lab.reporting.shapes import label_shapes
from lab.reporting.stats import Answer, compare_cells
from lab.tracking.frames import SweepFrames

_SHOWN = 2  # pairs of cells that a sentence names
_ERRORS = 2  # standard errors; quantiles of intervals are larger for up to 60 repeats

Verdict = Literal["separates a tie", "contradicts", "ranks in reverse"]

_SUMMARIES: dict[Verdict, str] = {  # the most serious one first
    "contradicts": "Other scores contradict this order significantly",
    "separates a tie": "Other scores separate settings that tie here",
    "ranks in reverse": "Other scores order settings in reverse, not significantly",
}


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A pair of cells that another score orders differently than the ranking metric.

    Attributes:
        metric: name of the other score.
        verdict: `separates a tie`: the ranking metric ties the cells, and the score differs
            significantly; `contradicts`: both differ significantly, in opposite directions; `ranks
            in reverse`: the ranking metric differs significantly, and the score differs in the
            opposite direction by more than `_ERRORS` standard errors, but not significantly.
        better: label of the cell with the better score.
        worse: label of the other cell.
        difference: score of `better` minus that of `worse`, with its 95 % interval.
    """

    metric: str
    verdict: Verdict
    better: str
    worse: str
    difference: Interval


def find_incomparable_path(metric: Metric, trials: pd.DataFrame) -> Path | None:
    """Return a setting in which trials differ and which spoils a metric; None if there is none.

    Args:
        metric: the metric.
        trials: rows of `SweepFrames.trials`.
    """
    return next(
        (
            name
            for name in map(str, trials)
            if metric.find_incomparable_path((name,)) and trials[name].map(str).nunique() > 1
        ),
        None,
    )


def is_part(name: str, ranking: str) -> bool:
    """Return whether a score is one of those whose mean is the ranking metric."""
    return ranking == PAIRS_ACCURACY and name.startswith(f"{PAIRS}/")


def rankable_scores(frames: SweepFrames, runs: pd.DataFrame) -> dict[str, Metric]:
    """Return the scores, besides the ranking metric, that may rank the compared trials.

    The categories of minimal pairs are left out if their mean is the ranking metric, and so are
    scores that are not neutral between the trials (`Metric.biased_across`).
    """
    differing = differing_paths(runs)
    return {
        name: metric
        for name, metric in select_metrics(map(str, runs)).items()
        if name != frames.metric.name
        and not is_part(name, frames.metric.name)
        and not metric.find_biased_paths(differing)
        and runs[name].notna().any()
        and find_incomparable_path(metric, runs) is None
    }


def find_disagreements(
    frames: SweepFrames, result: Answer, runs: pd.DataFrame
) -> tuple[Disagreement, ...]:
    """Return the pairs of cells that another score orders differently than the ranking metric.

    The pairs are those of the answer: two tied cells, or the best cell and a worse one. Intervals
    are those by which the answer compares cells (`stats.compare_cells`). They hold for all pairs
    of cells at once, but for one score at a time.

    Args:
        frames: frames of the sweep.
        result: comparison of the cells by the ranking metric.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    best = result.cells[0].label
    tied = list(itertools.combinations(result.tied_labels, 2))
    separate = [(best, cell.label) for cell in result.cells if not cell.tied]
    found = []
    for metric in rankable_scores(frames, runs).values():
        table = runs.pivot_table(index="repeat", columns="cell", values=metric.name, sort=False)
        ranked = frames.rank_by(metric.name)
        compare = compare_cells(ranked, ranked.trials.loc[runs.index])
        sign = 1 if metric.direction == "maximize" else -1
        for first, second in (*tied, *separate):
            if first not in table or second not in table:
                continue
            gap = float((table[first] - table[second]).mean())  # over common repeats
            better, worse = (first, second) if sign * gap > 0 else (second, first)
            is_tie = (first, second) not in separate
            if not _exceeds_noise(table, better, worse):
                continue
            difference = compare(better, worse)
            verdict = _judge(is_tie, better == first, difference.excludes_zero)
            if verdict is not None:
                found.append(
                    Disagreement(
                        metric=metric.name,
                        verdict=verdict,
                        better=better,
                        worse=worse,
                        difference=difference,
                    )
                )
    return tuple(found)


def _judge(is_tie: bool, confirms: bool, significant: bool) -> Verdict | None:
    """Return in which way a score disagrees about two cells; None if it does not."""
    if is_tie:
        return "separates a tie" if significant else None
    if confirms:
        return None
    return "contradicts" if significant else "ranks in reverse"


def _exceeds_noise(table: pd.DataFrame, first: str, second: str) -> bool:
    """Return whether two cells differ by `_ERRORS` standard errors; the test avoids slow quantiles.

    The standard error is the smaller one of the paired and the unpaired one.
    """
    pair = table[[first, second]].dropna()
    if len(pair) < 2:
        return False
    gaps = pair[first] - pair[second]
    deviation = min(float(gaps.std()), math.sqrt(pair.var().sum()))
    return bool(abs(gaps.mean()) > _ERRORS * deviation / math.sqrt(len(pair)))


def rank_correlations(frames: SweepFrames) -> pd.DataFrame:
    """Return the rank correlation of every other final score with the ranking metric.

    Spearman's correlation over the finished trials of each shape (`shapes.label_shapes`), because
    both scores may rise with the width of an encoder without measuring the same. Several shapes
    are averaged, weighted by their numbers of trials less 1. A shape is left out if its trials
    differ in a setting across which the score may not rank.

    Returns:
        Columns metric, rank_correlation (1 if both order the trials in the same way from best to
        worst; NaN if no shape has three trials with both scores, or a score is constant), trials
        (number of trials in the correlation).
    """
    finished = frames.trials[frames.trials["score"].notna()]
    by_shape = [group for _, group in finished.groupby(label_shapes(finished), sort=False)]
    rows = []
    for name, metric in select_metrics(map(str, finished)).items():
        if name == frames.metric.name:
            continue
        pairs = [
            group[["score", name]].dropna()
            for group in by_shape
            if find_incomparable_path(metric, group) is None
        ]
        pairs = [pair for pair in pairs if len(pair) > 2 and bool((pair.nunique() > 1).all())]
        ranks = [
            float(scipy_stats.spearmanr(pair["score"], pair[name]).statistic) for pair in pairs
        ]
        sign = 1 if metric.direction == frames.metric.direction else -1
        weights = [len(pair) - 1 for pair in pairs]
        rows.append(
            {
                "metric": name,
                "rank_correlation": sign * float(np.average(ranks, weights=weights))
                if pairs
                else math.nan,
                "trials": sum(map(len, pairs)),
            }
        )
    return pd.DataFrame(rows, columns=["metric", "rank_correlation", "trials"])


def describe_disagreements(
    frames: SweepFrames, result: Answer, runs: pd.DataFrame
) -> list[tuple[str, str]]:
    """Return the summary line on the other scores; empty if no other score may rank the cells."""
    found = find_disagreements(frames, result, runs)
    if found:
        parts = [
            _describe_pairs(frames.metric.name, list(group))
            for _, group in itertools.groupby(found, key=lambda each: (each.metric, each.verdict))
        ]
        parts.append("(the intervals hold for one score at a time)")
        return [("other scores", "\n".join(parts))]
    others = rankable_scores(frames, runs)
    if not others or len(result.cells) == 1:
        return []
    return [("other scores", f"none disagrees with {frames.metric.name}: {', '.join(others)}")]


def summarize_disagreements(found: tuple[Disagreement, ...]) -> str:
    """Return a sentence for each verdict, which names its scores; empty if none disagrees.

    A score with several verdicts is named in the first of these sentences only.
    """
    sentences, named = [], set[str]()
    for verdict, introduction in _SUMMARIES.items():
        metrics = dict.fromkeys(each.metric for each in found if each.verdict == verdict)
        names = [name for name in metrics if name not in named]
        named.update(names)
        if names:
            sentences.append(f"{introduction}: {', '.join(names)}.")
    return " ".join(sentences)


def _describe_pairs(ranking: str, found: list[Disagreement]) -> str:
    """Return the disagreements of one score that have the same verdict, at most `_SHOWN`."""
    name, verdict = found[0].metric, found[0].verdict
    introduction = {
        "separates a tie": f"{name} separates settings that {ranking} ties",
        "contradicts": f"{name} contradicts {ranking} significantly",
        "ranks in reverse": f"{name} reverses the order of {ranking} by more than {_ERRORS} "
        f"standard errors, but not significantly",
    }[verdict]
    pairs = [
        f"{each.better} better than {each.worse} by {format_interval(each.difference, signed=True)}"
        for each in found[:_SHOWN]
    ]
    more = len(found) - len(pairs)
    return f"{introduction}: {'; '.join(pairs)}{f'; and {more} more pairs' if more else ''}"
