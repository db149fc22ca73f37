"""Fitted values as text: never without an interval."""

import math

from lab.reporting import sentences
from lab.scaling.profiles import Estimate

_LARGE = 1_000.0
UNLIMITED = "not limited by the runs"


def format_estimate(estimate: Estimate, digits: int = 3) -> str:
    """Return a value with its interval, or the limits that the runs give.

    Args:
        estimate: the value; an end of 0 or an infinite one is no limit.
        digits: significant digits.
    """
    low, high = (format_number(end, digits) for end in (estimate.low, estimate.high))
    is_limited_below = estimate.low != 0 and math.isfinite(estimate.low)
    if math.isinf(estimate.high):
        return f"at least {low}" if is_limited_below else UNLIMITED
    if not is_limited_below:
        return f"at most {high}"
    return f"{format_number(estimate.value, digits)} [{low}, {high}]"


def format_number(value: float, digits: int = 3) -> str:
    """Return a number with significant digits; from 1,000 on with a decimal prefix."""
    if abs(value) < _LARGE or not math.isfinite(value):
        return minus(f"{value:.{digits}g}")
    return sentences.format_quantity(value, "")


def format_flops(value: float) -> str:
    """Return an amount of compute: `4 TFLOP`."""
    return sentences.format_quantity(value, "FLOP")


def format_share(share: float) -> str:
    """Return a share in percent with two significant digits: `1.2 %`."""
    return f"{100 * share:.2g} %"


def minus(text: str) -> str:
    """Return a text with the minus sign of typography, except in exponents."""
    return text.replace("e-", "e\0").replace("-", "−").replace("e\0", "e-")
