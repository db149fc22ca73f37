"""Lines of a report's summary on settings between which the ranking metric is not fair.

The metric may depend on a setting without any training (confounded), or favor some of its values
(not neutral).
"""

import pandas as pd

from lab.config.metrics import alternative_metrics, find_metric
from lab.config.trial import Path
from lab.tracking.frames import SweepFrames


def describe_confounding(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return a summary line on the settings that the ranking metric is confounded with.

    It names other scores of the report that do not depend on these settings without training. Empty
    if the trials agree in these settings, or if the report draws no ranking.
    """
    metric, differing = frames.metric, differing_paths(frames.trials)
    paths = metric.find_confounding_paths(differing)
    if frames.answer != "ranking" or not paths:
        return []
    recorded = _recorded_alternatives(frames, differing)
    text = (
        f"{metric.name} is confounded with {', '.join(paths)}, in which trials differ: "
        f"{metric.confounding}. Compare each score with the column `untrained` of trials.csv"
    )
    if recorded:
        text += f", and with scores that do not depend on them: {', '.join(recorded)}"
    return [("confounded", text)]


def describe_bias(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return a summary line on the settings between which the ranking metric is not neutral.

    It names other scores of the report that are neutral between these settings. Empty if the
    trials agree in these settings, or if the report draws no ranking.
    """
    metric, differing = frames.metric, differing_paths(frames.trials)
    paths = metric.find_biased_paths(differing)
    if frames.answer != "ranking" or not paths:
        return []
    text = (
        f"{metric.name} is not neutral between trials that differ in {', '.join(paths)}: "
        f"{metric.bias}"
    )
    if recorded := _recorded_alternatives(frames, differing):
        text += f". Compare the order of the settings by scores that are: {', '.join(recorded)}"
    return [("not neutral", text)]


def _recorded_alternatives(frames: SweepFrames, differing: tuple[Path, ...]) -> list[str]:
    """Return the scores of the trials that are neither confounded nor biased."""
    found = alternative_metrics(differing, ("generator", "discriminator", "predictor"))
    finetuned = (name for name in map(str, frames.trials) if name.startswith("finetune/"))
    return [
        name
        for name in (*found.neutral, *finetuned)
        if name in frames.trials and find_metric(name) and frames.trials[name].notna().any()
    ]


def differing_paths(trials: pd.DataFrame) -> tuple[Path, ...]:
    """Return the settings in which trials differ, without mappings that hold settings."""
    names = [str(name) for name in trials]
    outer = {name[:end] for name in names for end, sign in enumerate(name) if sign == "."}
    return tuple(name for name in names if name not in outer and trials[name].nunique() > 1)
