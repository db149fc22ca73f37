"""Speeds of devices are measured where own runs are; shapes grow from those that were run."""

from itertools import pairwise

import pytest
from own_runs import build_trial, own_runs

from lab.advice.devices import (
    ASSUMED_UTILIZATION,
    DEVICES,
    Timing,
    default_device,
    find_speeds,
)
from lab.advice.shapes import list_shapes, nearest_shape
from lab.config.flops import encoder_weights
from lab.errors import UserError

H100 = DEVICES["h100"]


def timed(device: str, parameters: float, speed: float) -> Timing:
    return Timing(parameters=parameters, device=device, flops_per_second=speed)


def test_speed_is_assumed_by_name_where_no_run_was_made_and_its_source_is_given() -> None:
    timings = (timed("cpu", 1e5, 1e10), timed("NVIDIA A100-SXM4-80GB", 1e5, 9e12))
    found = find_speeds(H100, timings).at(1e6)
    assert found.flops_per_second == pytest.approx(ASSUMED_UTILIZATION * 67e12)
    assert "assumed" in found.because
    assert "data sheet" in found.because


def test_speed_is_the_median_of_the_own_runs_of_nearest_size_on_the_device() -> None:
    name = "NVIDIA H100 80GB HBM3"
    timings = (
        timed(name, 1e5, 1e12), timed(name, 1e6, 3e12), timed(name, 1e6, 2e12),
        timed(name, 1e6, 9e12), timed("cpu", 1e7, 1e10),
    )  # fmt: skip
    speeds = find_speeds(H100, timings)
    assert speeds.at(4e5) == speeds.of_largest()
    assert speeds.of_largest().flops_per_second == 3e12
    assert speeds.of_largest().because == "measured: 3 own runs of 1,000,000 parameters"
    assert speeds.at(3e5).flops_per_second == 1e12
    assert speeds.at(3e5).because == "measured: 1 own run of 100,000 parameters"


def test_speed_of_a_processor_without_own_runs_is_refused() -> None:
    with pytest.raises(UserError, match="known from own runs only"):
        find_speeds(DEVICES["cpu"], ())


@pytest.mark.parametrize(
    ("device", "name"),
    [("cpu", "cpu"), ("NVIDIA A100-SXM4-80GB", "a100"), ("Tesla T4", "t4"), ("NVIDIA L4", "l4")],
)
def test_device_of_own_runs_is_recognized(device: str, name: str) -> None:
    assert default_device((timed(device, 1e5, 1e10),)) == DEVICES[name]
    assert default_device((timed("NVIDIA L40", 1e5, 1e10),)) is None


def test_every_device_with_a_peak_has_a_source_and_memory() -> None:
    for device in DEVICES.values():
        assert (device.peak is None) == (device.memory is None) == (not device.source)


def test_shapes_contain_all_that_were_run_and_grow_in_width_and_depth() -> None:
    shapes = list_shapes(own_runs().shapes)
    assert set(own_runs().shapes) <= set(shapes)
    for one, other in pairwise(shapes):
        assert encoder_weights(one) < encoder_weights(other)
        assert one.layers <= other.layers
    wide = [shape for shape in shapes if shape.hidden > 512]
    assert [shape.hidden / shape.layers for shape in wide] == pytest.approx([64] * len(wide), 0.07)
    assert all(shape.ffn == 4 * shape.hidden for shape in shapes)


def test_nearest_shape_is_the_nearest_by_ratio() -> None:
    small, large = (build_trial(width, 2, 1e12).encoder for width in (64, 128))
    middle = (encoder_weights(small) * encoder_weights(large)) ** 0.5
    assert nearest_shape((small, large), 0.9 * middle) == small
    assert nearest_shape((small, large), 1.1 * middle) == large
