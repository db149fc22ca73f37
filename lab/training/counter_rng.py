"""Counter-based random numbers: a function of (seed, stream, step, example, index) alone.

Masks and sampling noise must not depend on the rank, on the composition of the batch or on earlier
draws. A generator with state cannot guarantee this; a hash of the counters does, on any device.
"""

import torch
from torch import Tensor

# Streams: independent sequences of random numbers for one (step, example), one for each use.
MASK, SAMPLE, KEEP, WORD, OFFSET = 1, 2, 3, 4, 5


def uniform(seed: int, stream: int, step: int, example_B: Tensor, count: int) -> Tensor:
    """Return random numbers uniform in the open interval (0, 1).

    Args:
        seed: seed of the trial.
        stream: one of the stream constants of this module.
        step: index of the optimizer step.
        example_B: int64 identities of the examples.
        count: number of random numbers per example.

    Returns:
        float32, shape (B, count). Each has 24 random bits and is shifted by half a unit, so that
        neither 0 nor 1 occurs.
    """
    key = _signed(_mix_one(_mix_one(seed * 8 + stream) + step))
    counter_N = torch.arange(1, count + 1, device=example_B.device) * _GOLDEN
    bits_BN = _mix(_mix(key + example_B * _GOLDEN)[:, None] + counter_N)
    uniform_BN: Tensor = (_shift(bits_BN, 40).to(torch.float32) + 0.5) / 2**24
    return uniform_BN.clamp(max=1 - 2**-24)  # float32 rounds the largest value to 1


# SplitMix64 (Steele, Lea and Flood 2014) in int64: multiplication wraps as in uint64.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_ALL = 2**64 - 1


def _mix(x: Tensor) -> Tensor:
    """Return the SplitMix64 hash of each element."""
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; `>>` on signed integers would copy the sign bit."""
    return torch.bitwise_and(x >> bits, 2 ** (64 - bits) - 1)


def _mix_one(x: int) -> int:
    """Return the SplitMix64 hash of one Python integer, in [0, 2**64)."""
    x &= _ALL
    x = ((x ^ x >> 30) * _FIRST) & _ALL
    x = ((x ^ x >> 27) * _SECOND) & _ALL
    return x ^ x >> 31


def _signed(x: int) -> int:
    """Return the int64 value with the same bits."""
    return x - 2**64 if x >= 2**63 else x
