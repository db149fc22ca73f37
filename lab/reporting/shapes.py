"""Groups of trials whose encoders have the same shape.

The scores of untrained encoders depend on their shape: a wider encoder gives a probe more
features. Untrained scores, and rank correlations between scores, are therefore computed within a
shape: settings of the encoder, window length and vocabulary.
"""

import pandas as pd

from lab.reporting.intervals import Interval, t_interval
from lab.tracking.frames import SweepFrames

_SHAPE = ("encoder.", "data.length", "data.vocab", "data.tokenizer.")  # prefixes of columns
_NO_SHAPE = ("encoder.size", "encoder.dropout")  # a name for other columns; without effect at start
_START = ("init_from.",)
# Named first in labels: they tell most shapes apart.
_FIRST = ("encoder.hidden", "encoder.layers", "data.length", "data.vocab")


def label_shapes(trials: pd.DataFrame) -> "pd.Series[str]":
    """Return a label of the shape of each trial; an empty one if all trials have one shape.

    Args:
        trials: rows of `SweepFrames.trials`.
    """
    return _label_groups(trials, _SHAPE)


def label_starts(trials: pd.DataFrame) -> "pd.Series[str]":
    """Return a label of each trial's shape and source of initial weights; empty if all are equal.

    Trials with the same label start from encoders of the same kind.
    """
    return _label_groups(trials, (*_SHAPE, *_START))


def _label_groups(trials: pd.DataFrame, prefixes: tuple[str, ...]) -> "pd.Series[str]":
    """Return labels of as few columns as tell the groups apart: `hidden 64, layers 2`."""
    names = [name for name in map(str, trials) if name.startswith(prefixes)]
    names = [name for name in names if name not in _NO_SHAPE]
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    labels = [""] * len(trials)
    for name in names:
        key = name.rpartition(".")[2]
        combined = [
            f"{label}, {key} {_format(value)}".removeprefix(", ")
            for label, value in zip(labels, trials[name], strict=True)
        ]
        if len(set(combined)) > len(set(labels)):
            labels = combined
    return pd.Series(labels, index=trials.index, dtype=object)


def _format(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def untrained_by_shape(frames: SweepFrames) -> dict[str, Interval]:
    """Return the ranking metric at step 0 of each shape: mean over seeds, with its interval.

    Trials with the same seeds start from the same encoder, so their scores are averaged first. The
    key is the label of the shape (`label_starts`), empty if all trials have one.
    """
    trials = frames.trials.assign(start=label_starts(frames.trials)).dropna(subset="untrained")
    by_seeds = trials.groupby(["start", "repeat"], sort=False)["untrained"].mean()
    return {
        str(start): t_interval(values.to_numpy(dtype=float))
        for start, values in by_seeds.groupby("start", sort=False)
    }
