"""Number of tokens of a full window that a trial masks.

Of the n tokens of a window clip(round(n p), 1, K) are masked, where p is the mask probability and
K = max(1, int((p + .005) T)) for windows of T positions. The number is a staircase in p: with
T = 16 the values of p between .1 and .4 give only six different numbers. With `masking: code`, n
includes [CLS] and [SEP], although they are not masked. With `masking: bernoulli`, each token is
chosen independently with probability p.
"""

import itertools
import struct
from typing import NamedTuple

from lab.config.flops import masked_slots
from lab.config.schedules.ramps import Ramp
from lab.config.trial import Trial

_POINTS = 64  # values of progress at which a mask probability that varies is evaluated


class MaskCount(NamedTuple):
    """Masked slots of a full window.

    Attributes:
        length: positions of the window.
        tokens: tokens that can be masked: all positions except [CLS] and [SEP].
        slots: masked slots; with `masking: code` several slots can be the same position, and with
            `masking: bernoulli` it is the expected number.
    """

    length: int
    tokens: int
    slots: float


def count_slots(length: int, tokens: int, mask_prob: float) -> int:
    """Return the number of masked slots of a window, as `mask_batch` computes it.

    Args:
        length: positions of the window.
        tokens: tokens of the window of which a share is masked: those that can be masked, or with
            `masking: code` all.
        mask_prob: mask probability.
    """
    # In single precision, as in `mask_batch`; Python and torch round halves to the even number.
    rounded = round(_single(tokens * _single(mask_prob)))
    return min(max(rounded, 1), masked_slots(length, mask_prob), tokens)


def list_mask_counts(trial: Trial) -> tuple[MaskCount, ...]:
    """Return the counts of a full window in the order of the run; equal neighbors are one entry.

    A trial with a constant mask probability and window length has one entry.
    """
    points = [trial.breakpoints[0]]
    steps = _POINTS if isinstance(trial.objective.mask_prob, Ramp) else 1
    for start, end in itertools.pairwise(trial.breakpoints):
        points += [start + (n + 0.5) / steps * (end - start) for n in range(steps)]
    counts = (_count_at(trial, progress) for progress in [*points, trial.breakpoints[-1]])
    return tuple(count for count, _ in itertools.groupby(counts))


def describe_masks(*trials: Trial) -> str:
    """Return the masked slots of a full window as text: `2 of 14 tokens (14.3 %)`.

    Windows of different lengths have an entry each. A mask probability that varies, within a trial
    or between the trials, gives the fewest and the most slots. With `masking: code`, which draws
    positions with replacement, the expected share of distinct positions is added. With `masking:
    bernoulli`, the number is the expected one.

    Args:
        trials: trials that differ at most in the mask probability.
    """
    by_length: dict[int, list[MaskCount]] = {}
    for count in (count for trial in trials for count in list_mask_counts(trial)):
        by_length.setdefault(count.length, []).append(count)
    masking = trials[0].objective.masking
    texts = [_describe_counts(counts, masking) for counts in by_length.values()]
    if len(texts) == 1:
        return texts[0]
    return "; ".join(f"windows of {n}: {text}" for n, text in zip(by_length, texts, strict=True))


def _describe_counts(counts: list[MaskCount], masking: object) -> str:
    ends = sorted({min(counts), max(counts)})  # in the order of the slots: all else is equal
    numbers = " to ".join(f"{count.slots:.3g}" for count in ends)
    shares = " to ".join(_percent(count.slots / count.tokens) for count in ends)
    text = f"{numbers} of {ends[0].tokens} tokens ({shares})"
    if masking == "bernoulli":
        return f"{text} on average, each chosen independently"
    if masking != "code":
        return text
    distinct = " to ".join(_percent(1 - (1 - 1 / end.tokens) ** end.slots) for end in ends)
    return f"{text}, drawn with replacement: {distinct} distinct on average"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count_at(trial: Trial, progress: float) -> MaskCount:
    now = trial.settings_at(progress)
    # Two segments of `layout: segments` are separated by a second [SEP].
    tokens = now.length - (3 if trial.data.layout == "segments" else 2)
    match trial.objective.masking:
        case "bernoulli":
            return MaskCount(now.length, tokens, tokens * now.mask_prob)
        case "code":
            slots = count_slots(now.length, now.length, now.mask_prob)
        case _:
            slots = count_slots(now.length, tokens, now.mask_prob)
    return MaskCount(now.length, tokens, slots)


def _single(value: float) -> float:
    """Return the nearest number in single precision."""
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)
