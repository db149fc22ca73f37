"""The quantiles that replace SciPy's in simulations and reports of tests."""

import math

import pytest
from frames.range_quantiles import range_quantile
from scipy import stats


@pytest.mark.parametrize(
    ("means", "freedom"), [(2, 1.0), (3, 4.4), (9, 3.0), (18, 60.0), (4, math.inf)]
)
def test_quantile_of_the_range_is_that_of_scipy(means: int, freedom: float) -> None:
    expected = float(stats.studentized_range.ppf(0.95, means, freedom))
    assert range_quantile(0.95, means, freedom) == pytest.approx(expected, rel=1e-9)
