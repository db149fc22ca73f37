"""Means of the values of optimizer steps between two scored points."""

from collections import Counter

import torch

from lab.config.results import MetricRow
from lab.training.loop import CompletedStep


class StepMeans:
    """Means of the losses and health values of the steps since the last scored point.

    Each mean is over the steps that have the value: if networks are trained alternately, no step
    has all values.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps: Counter[str] = Counter()

    def add(self, step: CompletedStep) -> None:
        """Add the values of a step; the sums stay on the device to avoid synchronization."""
        for name, value in step.parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps.update(step.parts.keys())

    def take(self) -> MetricRow:
        """Return the means and reset them."""
        means = {name: (value / self.steps[name]).item() for name, value in self.sums.items()}
        self.sums.clear()
        self.steps.clear()
        return means
