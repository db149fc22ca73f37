"""Signal-to-noise ratio of each score: what training and settings change, divided by seed noise.

A score can rank settings only at budgets at which settings change it more than seeds do. The two
ratios are estimated from sweeps in which each cell has several repeats (`answer: noise`).
"""

import math
from dataclasses import dataclass

import pandas as pd

from lab.config.metrics import Metric, select_metrics
from lab.reporting import other_scores, sentences
from lab.reporting.intervals import pooled_deviation
from lab.reporting.tables import Table
from lab.tracking.frames import SweepFrames

BUDGET = "budget.amount"


@dataclass(frozen=True, kw_only=True)
class SignalToNoise:
    """Signal and noise of one score at one budget.

    Attributes:
        deviation: standard deviation between repeats of the same cell, pooled over cells.
        training: mean improvement over the untrained encoder divided by `deviation`; negative if
            training makes the score worse, NaN if the score is not taken before training.
        settings: standard deviation of the cells' true means divided by `deviation`. The true
            variance is that of the observed means less the part due to seeds, at least 0. NaN with
            fewer than two cells, or if the score is not comparable between the cells.
        repeats: number of scores.
    """

    deviation: float
    training: float
    settings: float
    repeats: int


def measure(frames: SweepFrames, runs: pd.DataFrame, metric: Metric) -> SignalToNoise | None:
    """Return signal and noise of a score; None if no cell has two scores.

    Args:
        frames: frames of the sweep.
        runs: trials of one budget.
        metric: the score.
    """
    runs = runs[runs[metric.name].notna()]
    scores = runs.pivot_table(index="repeat", columns="cell", values=metric.name, sort=False)
    deviation = pooled_deviation(scores)
    if math.isnan(deviation):
        return None
    curves = frames.curves[frames.curves["step"] == 0].set_index("number")
    before = runs["number"].map(curves[metric.name]) if metric.name in curves else math.nan
    sign = 1 if metric.direction == "maximize" else -1
    gain = sign * float((runs[metric.name] - before).mean())
    return SignalToNoise(
        deviation=deviation,
        training=_divide(gain, deviation),
        settings=_divide(_settings_deviation(scores, deviation), deviation)
        if other_scores.find_incomparable_path(metric, runs) is None
        else math.nan,
        repeats=len(runs),
    )


def _settings_deviation(scores: pd.DataFrame, deviation: float) -> float:
    means = scores.mean()
    if len(means) < 2:
        return math.nan
    due_to_seeds = float((deviation**2 / scores.notna().sum()).mean())
    return math.sqrt(max(float(means.var(ddof=1)) - due_to_seeds, 0.0))


def _divide(signal: float, noise: float) -> float:
    return signal / noise if noise > 0 else math.nan


def signal_table(frames: SweepFrames, runs: pd.DataFrame) -> Table:
    """Return the table of signal-to-noise ratios: one row per score, three columns per budget.

    It has no rows if no score has two repeats of a cell.

    Args:
        frames: frames of the sweep.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    budgets = {str(label): rows for label, rows in runs.groupby(BUDGET)} if BUDGET in runs else {}
    rows = []
    for name, metric in select_metrics(map(str, runs)).items():
        if metric.own_loss or runs[name].isna().all():
            continue
        measured = [measure(frames, group, metric) for group in budgets.values()]
        if any(entry is not None for entry in measured):
            rows.append([name, *(text for entry in measured for text in _format(entry))])
    heads = [
        f"{kind} at {float(budget):.3g}"
        for budget in budgets
        for kind in ("sd between seeds", "training", "settings")
    ]
    caption = (
        "Signal-to-noise ratio of each score, at each budget. Training: mean improvement over the "
        "untrained encoder, divided by the standard deviation between seeds. Settings: standard "
        "deviation of the settings' true means, divided by the same. A score ranks settings only "
        "where the ratio of settings is well above 0; a dash stands where the score is not "
        "comparable between the settings or does not exist."
    )
    head = ("score", *heads)
    return Table(caption=caption, head=head, rows=rows, file="signal_to_noise.csv")


def _format(entry: SignalToNoise | None) -> list[str]:
    if entry is None:
        return [sentences.NONE] * 3
    ratios = [
        sentences.NONE if math.isnan(ratio) else f"{ratio:.1f}".replace("-", "−")
        for ratio in (entry.training, entry.settings)
    ]
    return [sentences.format_score(entry.deviation), *ratios]
