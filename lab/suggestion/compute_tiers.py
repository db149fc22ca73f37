"""The size of the encoder and the number of trials, by the compute of a trial."""

from dataclasses import dataclass

from lab.config.architecture import SIZES
from lab.config.flops import encoder_weights
from lab.loading.size_defaults import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class SizeOption:
    """A named size of the encoder, and the compute from which it is chosen.

    Attributes:
        name: name of the shape (`architecture.SIZES`) and of its settings
            (`size_defaults.DEFAULTS`).
        min_flops: FLOPs of a trial from which the size is chosen. It grows about with the square of
            the number of weights: 1e5 weights are about compute-optimal at 1e13 FLOPs.
        max_window: largest number of positions of a window that is chosen for a task.
    """

    name: str
    min_flops: float
    max_window: int

    @property
    def weights(self) -> int:
        """Number of weights of the encoder's blocks."""
        return encoder_weights(SIZES[self.name])

    @property
    def lr(self) -> float:
        """Peak learning rate of the size's default optimizer."""
        own = DEFAULTS[self.name]
        return float(str(own.optim[own.optimizer]["lr"]))

    def count(self, path: str) -> int:
        """Return an integer default of the size, by its dotted path."""
        return int(str(DEFAULTS[self.name].settings[path]))


# In ascending order. Measurements of the sizes: docs/sizes.md.
TABLE = (
    SizeOption(name="nano32", min_flops=0, max_window=32),
    SizeOption(name="nano48", min_flops=7e11, max_window=32),
    SizeOption(name="nano", min_flops=2e12, max_window=64),
    SizeOption(name="nano96", min_flops=2.5e13, max_window=64),
    SizeOption(name="tiny", min_flops=1e14, max_window=128),
    SizeOption(name="mini", min_flops=1.5e15, max_window=128),
)


@dataclass(frozen=True, kw_only=True)
class RunDesign:
    """The number of trials of a cell.

    Attributes:
        trials: number of learning rates to search; 0 for the size's default rate.
        seeds: number of repeats of the best setting.
        min_flops: FLOPs of a trial from which the design is chosen.
    """

    trials: int
    seeds: int
    min_flops: float


# Trained models come first: with little compute a comparison has fewer trials, not shorter ones.
DESIGNS = (
    RunDesign(trials=5, seeds=5, min_flops=2e13),
    RunDesign(trials=3, seeds=4, min_flops=1e12),
    RunDesign(trials=0, seeds=3, min_flops=0),  # fewer seeds leave intervals too wide to use
)


def pick_size(flops: float) -> SizeOption:
    """Return the largest size with `min_flops` of at most `flops`, the FLOPs of a trial."""
    return [size for size in TABLE if size.min_flops <= flops][-1]


def pick_design(flops: float, before: RunDesign) -> RunDesign:
    """Return the most thorough design that leaves enough compute to each trial.

    Args:
        flops: FLOPs of a trial under the design `before`.
        before: the design for which `flops` were estimated.
    """
    runs = before.trials + before.seeds
    return next(
        design
        for design in DESIGNS
        if flops * runs / (design.trials + design.seeds) >= design.min_flops
    )
