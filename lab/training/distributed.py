"""The processes that train one trial together, each on its part of every batch."""

import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Workers(ABC):
    """What a process knows of the others.

    Attributes:
        rank: this one's number; the first, 0, scores and records.
        count: of all of them.
    """

    rank: int
    count: int

    @abstractmethod
    def wrap(self, module: nn.Module, *, whole: bool) -> nn.Module:
        """Return the module as one whose gradients are averaged over all.

        Args:
            module: alike on all.
            whole: whether every step reaches every weight.
        """

    @abstractmethod
    def sum(self, values_N: Tensor) -> Tensor:
        """Return the elementwise sum over all."""

    @abstractmethod
    def first(self, value: float) -> float:
        """Return the first one's value, whatever the others have."""


class SingleProcess(Workers):
    """One process."""

    rank, count = 0, 1

    def wrap(self, module: nn.Module, *, whole: bool) -> nn.Module:  # noqa: ARG002
        """Return the module as it is."""
        return module

    def sum(self, values_N: Tensor) -> Tensor:
        """Return the values."""
        return values_N

    def first(self, value: float) -> float:
        """Return the value."""
        return value


class ProcessGroup(Workers):
    """All of torch's process group, which the caller has set up.

    Words between workers go by way of gloo, whatever gradients take: they must not wait for a
    GPU's queue.
    """

    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._words = distributed.new_group(backend="gloo")

    def wrap(self, module: nn.Module, *, whole: bool) -> nn.Module:
        """Return the module under DistributedDataParallel."""
        with warnings.catch_warnings():
            # The name that torch wants from 2.13 on is not there before.
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=not whole
            )

    def sum(self, values_N: Tensor) -> Tensor:
        """Return the elementwise sum over all."""
        total_N = values_N.cpu()  # a copy, or gloo would write over what it is given
        total_N = total_N.clone() if total_N is values_N else total_N
        distributed.all_reduce(total_N, group=self._words)
        return total_N.to(values_N.device)

    def first(self, value: float) -> float:
        """Return the first one's value, whatever the others have."""
        told = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(told, 0, group=self._words)
        return told.item()
