"""Amounts with three significant digits and a decimal prefix."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.reporting.sentences import format_quantity

PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


@given(st.floats(min_value=1, max_value=9.9e20))
def test_quantity_is_within_half_a_unit_of_its_third_digit(value: float) -> None:
    found = re.fullmatch(r"([\d.]+) ([kMGTPE]?)FLOP", format_quantity(value, "FLOP"))
    assert found is not None, "no exponent is written"
    number, prefix = float(found[1]), found[2]
    assert 1 <= number < 1_000
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    assert abs(number * PREFIXES[prefix] - value) <= 0.5 * unit * (1 + 1e-9)


@pytest.mark.parametrize(("value", "text"), [(999.4e9, "999 GFLOP"), (999.8e9, "1 TFLOP")])
def test_quantity_is_rounded_before_its_prefix_is_chosen(value: float, text: str) -> None:
    assert format_quantity(value, "FLOP") == text
