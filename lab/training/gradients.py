"""Gradient of one optimizer step over the full batch, however workers and micro-batches split it.

A batch is divided among the workers, and a worker's share into micro-batches if it does not fit
into memory. Neither changes the gradient except for rounding, because the losses of each
micro-batch are divided by the token counts of the full batch. A mean of per-worker means would be
a different loss if the counts differ.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lab.config.budget import Spent
from lab.config.flops import masked_slots
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import StepSettings
from lab.config.trial import Trial
from lab.data.batches import Batch, Batches
from lab.training import counter_rng
from lab.training.distributed import SingleProcess, Workers
from lab.training.objectives.base import Objective
from lab.training.objectives.masking import TokenCounts

_SINGLE_PROCESS = SingleProcess()
# Messages of RuntimeErrors by which torch and oneDNN report that CPU memory is exhausted.
_OUT_OF_MEMORY_MESSAGES = ("DefaultCPUAllocator: ", "could not create a primitive")


class _WorkerShare(NamedTuple):
    """One worker's share of a step.

    Attributes:
        step: index of the optimizer step.
        updates: networks that the step updates.
        first: index of the worker's first window in the full batch.
        windows: the worker's windows.
    """

    step: int
    updates: UpdatedNetworks
    first: int
    windows: Batch


class Gradients:
    """Computes the gradient of each optimizer step.

    Args:
        objective: objective to minimise, already on its device.
        batches: training windows by window length.
        trial: seeds, window length and phases.
        workers: processes that share each batch.
        micro_batch_limit: maximum number of positions in a micro-batch; None for no limit.

    Attributes:
        objective: objective to minimise.
        workers: processes that share each batch.
        micro_batch_size: number of windows in a micro-batch of the latest step; before the first
            step, of that step.
        micro_batch_limit: maximum number of positions in a micro-batch; reduced to half of the
            micro-batch's positions each time that memory is exhausted.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Mapping[int, Batches],
        trial: Trial,
        *,
        workers: Workers = _SINGLE_PROCESS,
        micro_batch_limit: int | None = None,
    ) -> None:
        self.objective, self.workers, self.micro_batch_limit = objective, workers, micro_batch_limit
        self._batches, self._seed = batches, trial.seeds.mask
        self._length = trial.data.length
        self._model = workers.wrap(objective, updates_all=len(trial.objective.phase_shares()) == 1)
        self._checked_shapes: set[tuple[UpdatedNetworks, int, int, int]] = set()
        self.micro_batch_size = self._micro_batch_size(trial.settings_at(0.0))

    def epoch(self, spent: Spent) -> int:
        """Return the number of times that the text was read in full.

        It is the number of tokens read, divided by those of all full windows of the text.

        Args:
            spent: resources used so far.
        """
        return spent.tokens // (self._length * len(self._batches[self._length]))

    def compute(
        self, spent: Spent, updates: UpdatedNetworks, settings: StepSettings
    ) -> dict[str, Tensor]:
        """Accumulate the gradient of a step in `.grad`, and return the step's metrics.

        The first window of a batch follows from the tokens read before: it is their number
        divided by the step's window length. The batch is therefore a function of `spent`, and no
        window is read twice in an epoch if the batch size changes.

        Args:
            spent: resources used before the step.
            updates: networks that the step updates.
            settings: settings of the step.

        Raises:
            RuntimeError: A single window does not fit into memory.
        """
        share = self._worker_share(spent, updates, settings)
        self.micro_batch_size = self._micro_batch_size(settings)
        slots = masked_slots(settings.length, settings.mask_prob)
        shape = (updates, settings.length, settings.batch, slots)
        if self.workers.count > 1 and shape not in self._checked_shapes:
            self._reduce_until_all_fit(share)
            self._checked_shapes.add(shape)
        while (parts := self._attempt(share)) is None:
            if self.workers.count > 1:  # the other workers already wait in the gradient exchange
                raise torch.OutOfMemoryError("out of memory after a dry run that fitted")
            self._halve(settings.length)
        names = list(parts)
        summed = self.workers.sum(torch.stack([parts[name].double() for name in names]))
        return self.objective.health(dict(zip(names, summed.float(), strict=True)))

    def _worker_share(
        self, spent: Spent, updates: UpdatedNetworks, settings: StepSettings
    ) -> _WorkerShare:
        rank, count = self.workers.rank, self.workers.count
        start, end = (settings.batch * i // count for i in (rank, rank + 1))
        read = spent.tokens // settings.length
        windows = self._batches[settings.length].between(read + start, read + end)
        offset = self._offset(spent.steps, settings.length)
        return _WorkerShare(spent.steps, updates, start, windows._replace(offset=offset))

    def _offset(self, step: int, length: int) -> int:
        """Return the row of the position table for the first token of windows of `length`.

        Windows shorter than `data.length` start at row 0 in half of the steps, and at a random row
        in the others. These steps are drawn at random: if they were every second one, they would
        all update the same network when two networks alternate.
        """
        largest = self._length - length
        if not largest:
            return 0
        example_1 = torch.zeros(1, dtype=torch.int64)
        drawn = counter_rng.uniform(self._seed, counter_rng.OFFSET, step, example_1, 1).item()
        return int((2 * drawn - 1) * (largest + 1)) if drawn > 0.5 else 0

    def _micro_batch_size(self, settings: StepSettings) -> int:
        """Return the number of windows in a micro-batch."""
        own = -(-settings.batch // self.workers.count)
        return (
            own
            if self.micro_batch_limit is None
            else min(own, max(1, self.micro_batch_limit // settings.length))
        )

    def _reduce_until_all_fit(self, share: _WorkerShare) -> None:
        """Halve the micro-batch until it fits into the memory of every worker.

        This is done in dry runs without gradient exchange: a worker that failed during the
        exchange would leave the others waiting. A batch of the same shape needs the same memory.
        """
        while True:
            fits = self._attempt(share, dry_run=True) is not None
            if not self.workers.sum(torch.tensor(0 if fits else 1)).item():
                break
            self._halve(share.windows.ids_BT.shape[1])

    def _attempt(self, share: _WorkerShare, *, dry_run: bool = False) -> dict[str, Tensor] | None:
        """Return this worker's summands of the step's metrics, or None if memory is exhausted."""
        self.objective.zero_grad()
        try:
            return self._accumulate(share, dry_run=dry_run)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        finally:
            if dry_run:
                self.objective.zero_grad()
        return None

    def _accumulate(self, share: _WorkerShare, *, dry_run: bool) -> dict[str, Tensor]:
        pieces = list(self._micro_batches(share))
        counts = self._token_counts(share, len(pieces))
        total: dict[str, Tensor] = {}
        for left, (seed, piece) in zip(reversed(range(len(pieces))), pieces, strict=True):
            # Only dropout draws from torch's own generator; its seed follows from the step and
            # from the index of the micro-batch's first window.
            _seed_dropout(seed, piece.ids_BT.device)
            with self._without_exchange() if left or dry_run else nullcontext():
                loss = self._model(piece, share.step, share.updates, counts)
                # DistributedDataParallel averages over workers; the gradient is their sum.
                (loss.total * self.workers.count).backward()
            for name, value in loss.parts.items():
                total[name] = total[name] + value if name in total else value
        return total

    def _micro_batches(self, share: _WorkerShare) -> Iterator[tuple[int, Batch]]:
        """Yield the seed of the dropout and the windows of each micro-batch."""
        device = next(self.objective.parameters()).device
        for start in range(0, len(share.windows.ids_BT), self.micro_batch_size):
            piece = share.windows.rows(start, start + self.micro_batch_size).to(device)
            # torch's CPU generator uses only the lower 32 bits of a seed; multiplication by an odd
            # number keeps the seeds of different windows distinct in these bits.
            yield self._seed * 1_000_003 + share.step + (share.first + start) * 0x9E3779B1, piece

    def _token_counts(self, share: _WorkerShare, pieces: int) -> TokenCounts | None:
        """Return the token counts of the full batch; None if it is a single micro-batch."""
        if pieces == self.workers.count == 1:
            return None
        device = next(self.objective.parameters()).device
        own = torch.stack(tuple(self.objective.token_counts(share.windows.to(device), share.step)))
        return TokenCounts(*self.workers.sum(own))

    def _without_exchange(self) -> AbstractContextManager[None]:
        """Return a context in which workers do not exchange gradients."""
        if isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return nullcontext()

    def _halve(self, length: int) -> None:
        if self.micro_batch_size == 1:
            raise torch.OutOfMemoryError("out of memory with a single window at a time")
        self.micro_batch_size = -(-self.micro_batch_size // 2)
        self.micro_batch_limit = self.micro_batch_size * length
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Seed torch's global generator of `device`, which dropout draws from.

    `torch.manual_seed` seeds the generators of all devices. Without a GPU it also formats a stack
    trace for a later CUDA initialization, which takes half a percent of a step at size nano.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether memory is exhausted; on CPUs torch and oneDNN have no error class for it."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        message in str(error) for message in _OUT_OF_MEMORY_MESSAGES
    )
