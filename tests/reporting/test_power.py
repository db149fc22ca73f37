"""Power: equal to references, monotone, and the share of simulated sweeps with a finding."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lab.reporting import intervals
from lab.reporting.power import design as power
from lab.reporting.power.design import Design


def build(seeds: int, settings: int, **others: float) -> Design:
    return Design(seeds=seeds, settings=settings, **{"deviation": 1.0} | others)


@pytest.mark.parametrize("seeds", [2, 3, 4, 8, 20])
@pytest.mark.parametrize("difference", [0.5, 2.0, 4.0])
def test_power_of_two_cells_is_the_tail_of_a_noncentral_t_distribution(
    seeds: int, difference: float
) -> None:
    critical = scipy_stats.t.ppf(0.975, seeds - 1)
    expected = scipy_stats.nct.sf(critical, seeds - 1, difference * math.sqrt(seeds / 2))
    assert power.power(build(seeds, 2), difference) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("seeds", "settings", "test_error"), [(3, 2, 0.0), (2, 3, 0.0), (3, 2, 1.0)]
)
def test_detectable_difference_is_found_in_eight_of_ten_simulated_sweeps(
    seeds: int, settings: int, test_error: float
) -> None:
    planned = build(seeds, settings, test_error=test_error)
    shift = power.detectable_difference(planned)
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        table = pd.DataFrame(generator.normal(size=(seeds, settings))).rename(columns=str)
        table["0"] += shift + test_error * generator.normal()
        gap = intervals.difference_interval(table, "0", "1")
        half = math.hypot(gap.mean - gap.low, 1.96 * test_error)
        found += gap.mean - half > 0
    assert 0.73 <= found / 300 <= 0.87  # three standard deviations of the simulation


@pytest.mark.parametrize("settings", [2, 3, 9])
def test_detectable_difference_falls_with_seeds_and_rises_with_noise(settings: int) -> None:
    base = build(4, settings)
    found = power.detectable_difference(base)
    assert power.power(base, found) == pytest.approx(power.POWER, abs=1e-4)
    assert power.detectable_difference(build(5, settings)) < found
    assert power.detectable_difference(build(4, settings, test_error=0.5)) > found
    doubled = power.detectable_difference(build(4, settings, deviation=2.0))
    assert doubled == pytest.approx(2 * found, rel=1e-5)


def test_more_settings_need_a_larger_difference() -> None:
    assert power.detectable_difference(build(4, 3)) < power.detectable_difference(build(4, 9))


@pytest.mark.parametrize("settings", [2, 3])
def test_number_of_seeds_is_the_smallest_that_finds_the_difference(settings: int) -> None:
    planned = build(3, settings)
    needed = power.seeds_to_find(planned, 1.0, 200)
    assert needed is not None
    assert power.power(dataclasses.replace(planned, seeds=needed), 1.0) >= power.POWER
    assert power.power(dataclasses.replace(planned, seeds=needed - 1), 1.0) < power.POWER


def test_number_of_seeds_is_unknown_where_the_limit_or_the_test_set_prevents_it() -> None:
    assert power.seeds_to_find(build(3, 2), 0.1, 100) is None
    assert power.seeds_to_find(build(3, 2, test_error=1.0), 1.0, 10_000) is None
    assert power.seeds_to_find(build(3, 2, deviation=0.0), 0.0, 100) is None
    assert power.seeds_to_find(build(8, 2), 10.0, 100) == 8


def test_without_noise_every_difference_is_found() -> None:
    assert power.detectable_difference(build(3, 2, deviation=0.0)) == 0.0
    assert power.power(build(3, 2, deviation=0.0), 1e-9) == 1.0


def test_at_least_two_seeds_are_considered() -> None:
    assert power.seeds_to_find(build(1, 2), 1e3, 100) == 2
    assert power.seeds_to_find(build(1, 2), 1e3, 1) == 2
    assert power.seeds_to_find(build(2, 2), 1e-3, 1) is None


def test_error_of_the_test_set_is_known_and_adds_to_the_noise() -> None:
    """Without seed noise the interval is that of a normal distribution."""
    exact = build(4, 2, deviation=0.0, test_error=0.5)
    for difference in (0.5, 1.0, 2.0):
        expected = scipy_stats.norm.cdf(difference / 0.5 - scipy_stats.norm.ppf(0.975))
        assert power.power(exact, difference) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("settings", "quantile"), [(2, 1.960), (3, 3.314 / math.sqrt(2))])
def test_detectable_difference_of_large_samples_is_that_of_the_normal_distribution(
    settings: int, quantile: float
) -> None:
    """The quantile is that of the normal distribution, or of the range of three normal means."""
    expected = (quantile + scipy_stats.norm.ppf(0.8)) * math.sqrt(2 / 2_000)
    assert power.detectable_difference(build(2_000, settings)) == pytest.approx(expected, rel=2e-3)
