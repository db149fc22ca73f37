"""Table of all scores by setting, with the yardsticks of each score."""

import pandas as pd

from lab.config.metrics import Metric, select_metrics
from lab.reporting import other_scores, sentences, yardsticks
from lab.reporting.confounding import differing_paths
from lab.reporting.other_scores import is_part
from lab.reporting.shapes import label_starts
from lab.reporting.stats import Answer
from lab.reporting.tables import Table
from lab.tracking.frames import SweepFrames

_MARK = " †"  # of scores that may not rank the settings
_BIASED = " ‡"  # of scores that are not neutral between the settings


def score_table(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> Table:
    """Return the table of all scores by setting.

    Each score stands beside that of untrained encoders and of look-up tables. If settings have
    encoders of different shapes, the untrained score is given for each setting.

    Args:
        frames: frames of the sweep.
        result: comparison of the cells; None if no trial has finished.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    metrics = {
        name: metric
        for name, metric in select_metrics(map(str, runs)).items()
        if runs[name].notna().any()
    }
    labels = [] if result is None else [cell.label for cell in result.cells]
    correlations = other_scores.rank_correlations(frames).set_index("metric")
    by_setting = label_starts(runs).nunique() > 1
    spoiled = {
        name: metric
        for name, metric in metrics.items()
        if other_scores.find_incomparable_path(metric, runs) is not None
    }
    differing = differing_paths(runs)
    biased = [name for name, metric in metrics.items() if metric.find_biased_paths(differing)]
    rows = [
        [
            name + (_MARK if name in spoiled else _BIASED if name in biased else ""),
            metric.direction,
            sentences.NONE if by_setting else _format_untrained(frames, runs, name),
            yardsticks.format_lookups(runs, name),
            *(
                _format_cell(frames, runs[runs["cell"] == label], name, by_setting)
                for label in labels
            ),
            _describe_relation(frames, correlations, name),
        ]
        for name, metric in metrics.items()
    ]
    head = ("score", "direction", "untrained", "look-up tables", *labels, "rank correlation (n)")
    others = [name for name in correlations.index if not is_part(name, frames.metric.name)]
    caption = _describe_correlations(frames, correlations.loc[others, "rank_correlation"])
    return Table(
        caption=" ".join(
            [
                *caption,
                *_describe_marks(spoiled, runs),
                *_describe_biased(metrics, biased, differing),
            ]
        ),
        head=head,
        rows=rows,
        file="scores.csv",
    )


def _describe_relation(frames: SweepFrames, correlations: pd.DataFrame, name: str) -> str:
    if name == frames.metric.name:
        return "ranking metric"
    if is_part(name, frames.metric.name):
        return "part of the ranking metric"
    return sentences.format_rank_correlation(correlations, name)


def _format_untrained(frames: SweepFrames, runs: pd.DataFrame, name: str) -> str:
    """Return the scores of trials at step 0."""
    curves = frames.curves
    start = curves[(curves["step"] == 0) & curves["number"].isin(runs["number"])]
    return sentences.format_spread(start[name] if name in start else pd.Series(dtype=float))


def _format_cell(frames: SweepFrames, runs: pd.DataFrame, name: str, with_untrained: bool) -> str:
    text = sentences.format_spread(runs[name])
    if not with_untrained:
        return text
    return f"{text}; untrained {_format_untrained(frames, runs, name)}"


def _describe_correlations(frames: SweepFrames, correlations: "pd.Series[float]") -> list[str]:
    name, defined = frames.metric.name, correlations.dropna()
    if defined.empty:
        return [f"No other score can be correlated with {name}."]
    closest = str(defined.idxmax())
    return [
        f"{closest} has the highest rank correlation with {name} over all finished trials with "
        f"encoders of one shape (Spearman {float(defined[closest]):.2f}; 1 means the same order)."
    ]


def _describe_biased(
    metrics: dict[str, Metric], biased: list[str], differing: tuple[str, ...]
) -> list[str]:
    """Return a sentence on the scores that are not neutral; empty if all are."""
    paths = {path for name in biased for path in metrics[name].find_biased_paths(differing)}
    if not paths:
        return []
    return [
        f"Scores marked{_BIASED} are not neutral between trials that differ in "
        f"{', '.join(sorted(paths))}: {metrics[biased[0]].bias}. They are left out of the other "
        f"scores that the summary compares."
    ]


def _describe_marks(spoiled: dict[str, Metric], runs: pd.DataFrame) -> list[str]:
    """Return a sentence on the scores that may not rank the settings; empty if all may."""
    paths = {other_scores.find_incomparable_path(metric, runs) for metric in spoiled.values()}
    names = ", ".join(sorted(path for path in paths if path is not None))
    return [
        f"Scores marked † are not compared, because their values are not comparable between "
        f"trials that differ in {names}."
    ] * bool(spoiled)
