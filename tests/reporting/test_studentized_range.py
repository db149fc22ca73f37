"""The quantiles of the studentized range, which SciPy computes in more time."""

import math

import pytest
from scipy import stats

from lab.reporting.studentized_range import range_quantile


@pytest.mark.parametrize(
    ("means", "freedom"), [(2, 1.0), (3, 4.4), (9, 3.0), (18, 60.0), (100, 1.0), (4, math.inf)]
)
def test_quantile_of_the_range_is_that_of_scipy(means: int, freedom: float) -> None:
    expected = float(stats.studentized_range.ppf(0.95, means, freedom))
    assert range_quantile(0.95, means, freedom) == pytest.approx(expected, rel=1e-9)
