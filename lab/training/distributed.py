"""Communication between the processes (workers) that share each batch of one trial."""

import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Workers(ABC):
    """The workers of a trial, seen from one of them.

    Attributes:
        rank: index of this worker; worker 0 scores and records.
        count: number of workers.
    """

    rank: int
    count: int

    @abstractmethod
    def wrap(self, module: nn.Module, *, updates_all: bool) -> nn.Module:
        """Return a module with gradients that are averaged over all workers.

        Args:
            module: module to wrap, with the same weights on all workers.
            updates_all: whether every step has a gradient for every weight.
        """

    @abstractmethod
    def sum(self, values_N: Tensor) -> Tensor:
        """Return the elementwise sum over all workers."""

    @abstractmethod
    def broadcast(self, value: float) -> float:
        """Return the value of worker 0."""


class SingleProcess(Workers):
    """A single process without communication."""

    rank, count = 0, 1

    def wrap(self, module: nn.Module, *, updates_all: bool) -> nn.Module:  # noqa: ARG002
        """Return the module unchanged."""
        return module

    def sum(self, values_N: Tensor) -> Tensor:
        """Return the values unchanged."""
        return values_N

    def broadcast(self, value: float) -> float:
        """Return the value unchanged."""
        return value


class ProcessGroup(Workers):
    """All processes of torch's default process group, which the caller has initialized.

    Sums and broadcasts use gloo, even if gradients use another backend, because they must not wait
    for operations queued on a GPU.
    """

    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._gloo = distributed.new_group(backend="gloo")

    def wrap(self, module: nn.Module, *, updates_all: bool) -> nn.Module:
        """Return the module wrapped in DistributedDataParallel."""
        with warnings.catch_warnings():
            # torch 2.13 deprecates the name `broadcast_buffers`; its new name is not in older ones.
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=not updates_all
            )

    def sum(self, values_N: Tensor) -> Tensor:
        """Return the elementwise sum over all workers."""
        total_N = values_N.cpu()
        # `all_reduce` works in place, so it must get a copy.
        total_N = total_N.clone() if total_N is values_N else total_N
        distributed.all_reduce(total_N, group=self._gloo)
        return total_N.to(values_N.device)

    def broadcast(self, value: float) -> float:
        """Return the value of worker 0."""
        shared = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(shared, 0, group=self._gloo)
        return shared.item()
