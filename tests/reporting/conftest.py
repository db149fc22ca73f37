"""Fixtures of the tests of reports."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from frames.range_quantiles import range_quantile
from scipy import stats

from lab.reporting import finite_test_set, intervals
from lab.reporting.power import design


@contextmanager
def _faster_quantiles() -> Iterator[None]:
    cached = (
        intervals._studentized_range, design._log_quantile, design._half_widths,
        finite_test_set.known_error_quantile,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats.studentized_range, "ppf", range_quantile)
        yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def fast_quantiles() -> Iterator[None]:
    """Replace SciPy's quantiles of the studentized range by equal ones that take less time."""
    with _faster_quantiles():
        yield


@pytest.fixture(scope="module")
def fast_quantiles_of_module() -> Iterator[None]:
    """Replace the quantiles as `fast_quantiles` does, also for fixtures of the module."""
    with _faster_quantiles():
        yield
