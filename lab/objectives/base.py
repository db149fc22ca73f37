"""What every objective promises."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lab.data import Batch
from lab.model import Encoder


class Loss(NamedTuple):
    """What a step learns from and what it reports.

    Attributes:
        total: scalar, differentiable.
        parts: detached scalars for the record, by the names they are logged under.
    """

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """Something to pre-train.

    Attributes:
        encoder: what probes, fine-tuning and export receive.
    """

    encoder: Encoder

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> Loss:
        """Return the loss of `batch`.

        Chance depends on the objective's seed, the examples and `step` alone; evaluation mode
        and a repeated call change nothing.
        """

    @abstractmethod
    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter once, by the network that owns it; `encoder`'s come first.

        Shared tables belong to the network that is kept.
        """


class Detector(Objective):
    """An objective that can say which tokens were replaced."""

    @abstractmethod
    def detect(self, ids_BT: Tensor, text_BT: Tensor) -> Tensor:
        """Return logits, shape (B, T); positive means replaced."""


def mean(value: Tensor, where: Tensor) -> Tensor:
    """Return the mean of `value` over the true places of `where`, sum over sum; 0 over none."""
    return (value * where).sum() / where.sum().clamp(min=1)


def entropy(share: Tensor) -> Tensor:
    """Return the loss of always answering with the base rate `share`, in nats (trap 8)."""
    nats: Tensor = torch.special.entr(share) + torch.special.entr(1 - share)
    return nats
