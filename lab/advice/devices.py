"""Devices with their peak FLOP/s and memory, for expected durations.

The lab trains in fp32 without reduced precision, so the peaks are those of fp32 outside of tensor
cores.
"""

import math
from dataclasses import dataclass

from lab.errors import UserError

# NVIDIA's ELECTRA-Base (DeepLearningExamples) reaches 23 % of an A100's peak in bf16, by the FLOPs
# that the lab counts. Encoders that are narrower than 768 reach less.
ASSUMED_UTILIZATION = 0.23
ASSUMPTION = (
    f"assumed: {ASSUMED_UTILIZATION:.0%} of the peak, the share of an A100's bf16 peak that "
    "NVIDIA's ELECTRA-Base reaches; narrow encoders reach less"
)
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that trials run on.

    Attributes:
        name: value of `--device`.
        model: part of the name that torch gives to the device.
        peak: FLOP/s in fp32; None if it differs between machines, so that only own runs tell.
        memory: bytes; None if it differs between machines.
        source: source of both numbers; empty without them.
    """

    name: str
    model: str
    peak: float | None
    memory: float | None
    source: str


def _gpu(name: str, teraflops: float, gigabytes: float, source: str) -> Device:
    return Device(
        name=name, model=name.upper(), peak=1e12 * teraflops, memory=1e9 * gigabytes, source=source
    )


DEVICES = {
    device.name: device
    for device in (
        _gpu("a100", 19.5, 80, "NVIDIA A100 80GB data sheet"),
        _gpu("h100", 67, 80, "NVIDIA H100 data sheet, SXM5"),
        _gpu("h200", 67, 141, "NVIDIA H200 data sheet, SXM"),
        _gpu("l4", 30.3, 24, "NVIDIA L4 data sheet"),
        _gpu("t4", 8.1, 16, "NVIDIA T4 data sheet"),
        _gpu("v100", 15.7, 32, "NVIDIA V100 data sheet, SXM2"),
        Device(name=CPU, model=CPU, peak=None, memory=None, source=""),
    )
}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Speed of one trial.

    Attributes:
        parameters: number of parameters of its encoder, without embeddings.
        device: name that torch gives to the device.
        flops_per_second: FLOPs of its training divided by the seconds.
    """

    parameters: float
    device: str
    flops_per_second: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """FLOP/s of the training on one device.

    Attributes:
        flops_per_second: FLOP/s.
        because: how they are known.
        memory: bytes of the device; None if unknown.
        device: name of the device.
    """

    flops_per_second: float
    because: str
    memory: float | None
    device: str


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Speeds of training on one device, by the size of the encoder.

    Attributes:
        device: the device.
        timings: speeds of own runs on it; without any, the speed is assumed.
    """

    device: Device
    timings: tuple[Timing, ...]

    def at(self, parameters: float) -> Speed:
        """Return the median speed of the own runs of the nearest size, or the assumed speed.

        Args:
            parameters: number of parameters of the encoder, without embeddings.
        """
        if not self.timings:
            return self._assumed()
        sizes = {timing.parameters for timing in self.timings}
        size = min(sizes, key=lambda each: abs(math.log(each / parameters)))
        speeds = sorted(one.flops_per_second for one in self.timings if one.parameters == size)
        return Speed(
            flops_per_second=speeds[len(speeds) // 2],
            because=f"measured: {len(speeds)} own run{'s' * (len(speeds) > 1)} of {size:,.0f} "
            "parameters",
            memory=self.device.memory,
            device=self.device.name,
        )

    def of_largest(self) -> Speed:
        """Return the speed of the largest own runs, or the assumed speed."""
        return self.at(max((timing.parameters for timing in self.timings), default=1.0))

    def slowest(self) -> Speed:
        """Return the smallest speed of a size, or the assumed speed."""
        sizes = {timing.parameters for timing in self.timings} or {1.0}
        return min(map(self.at, sizes), key=lambda speed: speed.flops_per_second)

    def _assumed(self) -> Speed:
        device = self.device
        assert device.peak is not None  # noqa: S101 - `find_speeds` has checked it
        return Speed(
            flops_per_second=ASSUMED_UTILIZATION * device.peak,
            because=f"{ASSUMPTION}; peak {device.peak:.3g} FLOP/s in fp32: {device.source}",
            memory=device.memory,
            device=device.name,
        )


def find_speeds(device: Device, timings: tuple[Timing, ...]) -> Speeds:
    """Return the speeds of own runs on a device, or the assumed one without own runs.

    Args:
        device: the device.
        timings: speeds of own runs, on any device.

    Raises:
        UserError: there are no own runs on the device, and its peak is not known.
    """
    own = tuple(timing for timing in timings if _runs_on(timing, device))
    if not own and device.peak is None:
        raise UserError(
            f"--device {device.name}: its speed is known from own runs only, and there are none"
        )
    return Speeds(device=device, timings=own)


def default_device(timings: tuple[Timing, ...]) -> Device | None:
    """Return the device of the last own run; None if it is not one of `DEVICES`."""
    named = [each for timing in timings for each in DEVICES.values() if _runs_on(timing, each)]
    return named[-1] if named else None


def _runs_on(timing: Timing, device: Device) -> bool:
    return device.model in timing.device.replace("-", " ").split()


def gpu_of(speed: Speed | None) -> dict[str, float]:
    """Return the resources of a trial on the device of `speed`, as in a search space."""
    return {} if speed is None or speed.device == CPU else {"gpus_per_worker": 1.0}
