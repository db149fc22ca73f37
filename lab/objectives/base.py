"""What every objective promises."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from lab.data import Batch
from lab.model import Encoder
from lab.turns import Learns


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

    def begin(self, learns: Learns) -> None:
        """Make ready for a step in which `learns` learns; the loop calls it before each."""

    @abstractmethod
    def forward(self, batch: Batch, step: int, learns: Learns = Learns.ALL) -> Loss:
        """Return the loss of `batch`, whose gradient reaches the networks that learn.

        Chance depends on the objective's seed, the examples and `step` alone; evaluation mode
        and a repeated call change nothing.
        """

    @abstractmethod
    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter once, by the network that owns it; `encoder`'s come first.

        What two networks share belongs to the one that is kept.
        """


class Detector(Objective):
    """An objective that can say which tokens were replaced."""

    @abstractmethod
    def detect(self, ids_BT: Tensor, text_BT: Tensor) -> Tensor:
        """Return logits, shape (B, T); positive means replaced."""


def mean(value: Tensor, where: Tensor) -> Tensor:
    """Return the mean of `value` over the true places of `where`, sum over sum; 0 over none.

    Among W workers it is the worker's part of the mean over all of them, times W: what
    data-parallel training averages is then the mean of the global batch, whoever holds how many
    places (trap 7).
    """
    return (value * where).sum() / _places(where)


def share(part: Tensor, whole: Tensor) -> Tensor:
    """Return how much of `whole` is `part`, of all workers together; 0 of none."""
    return _of_all(part.sum()) / _of_all(whole.sum()).clamp(min=1)


def _places(where: Tensor) -> Tensor:
    return _of_all(where.sum()).clamp(min=1) / _workers()


def _of_all(count: Tensor) -> Tensor:
    if _workers() > 1:
        distributed.all_reduce(count)
    return count


def _workers() -> int:
    alone = not (distributed.is_available() and distributed.is_initialized())
    return 1 if alone else distributed.get_world_size()


def entropy(share: Tensor) -> Tensor:
    """Return the loss of always answering with the base rate `share`, in nats (trap 8)."""
    nats: Tensor = torch.special.entr(share) + torch.special.entr(1 - share)
    return nats
