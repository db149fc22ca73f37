"""The gradient of a step, of its whole batch, whoever computes which piece of it.

A batch is divided among workers, and what a worker has into micro-batches where its memory asks
for it. Neither changes what is computed, for each piece's losses are divided by the places of
the whole batch (trap 7); only the order in which numbers are added differs.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lab.config.budget import Spent
from lab.config.flops import masked_slots
from lab.config.phases import UpdatedNetworks
from lab.config.ramps import StepSettings
from lab.config.trial import Trial
from lab.data.batches import Batch, Batches
from lab.training import counter_rng
from lab.training.distributed import SingleProcess, Workers
from lab.training.objectives.base import Objective
from lab.training.objectives.masking import TokenCounts

_ALONE = SingleProcess()
_SAYS_SO = ("DefaultCPUAllocator: ", "could not create a primitive")


class _Part(NamedTuple):
    """What one worker has of a step.

    Attributes:
        step: which.
        learns: whose turn it is.
        first: place of its first window in the batch.
        windows: its own of the batch.
    """

    step: int
    learns: UpdatedNetworks
    first: int
    windows: Batch


class Gradients:
    """Takes the gradient of one step after another.

    Args:
        objective: what is minimised; moved to its device by the caller.
        batches: the training windows, by their length.
        trial: seeds, length and what takes turns.
        workers: who shares the work.
        most: positions of a micro-batch, at most; None for as many as there are.

    Attributes:
        objective: what is minimised.
        workers: who shares the work.
        micro: windows of a micro-batch in the latest step, or in the first before it.
        most: as given; halved where memory does not suffice.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Mapping[int, Batches],
        trial: Trial,
        *,
        workers: Workers = _ALONE,
        most: int | None = None,
    ) -> None:
        self.objective, self.workers, self.most = objective, workers, most
        self._batches, self._seed = batches, trial.seeds.mask
        self._length = trial.data.length
        self._model = workers.wrap(objective, whole=len(trial.objective.phase_shares()) == 1)
        self._rehearsed: set[tuple[UpdatedNetworks, int, int, int]] = set()
        self.micro = self._windows(trial.at(0.0))

    def take(self, spent: Spent, learns: UpdatedNetworks, now: StepSettings) -> dict[str, Tensor]:
        """Leave the gradient of a step in the weights, and return its figures for the record.

        A step reads on where the run is: behind as many windows of its length as hold the tokens
        that have been read. So no window is read twice in an epoch, whatever a batch has, and the
        batch is a function of what is spent.

        Args:
            spent: before the step.
            learns: whose turn it is.
            now: the step's settings.

        Raises:
            RuntimeError: not even one window fits into memory.
        """
        part, self.micro = self._part(spent, learns, now), self._windows(now)
        shape = (learns, now.length, now.batch, masked_slots(now.length, now.mask_prob))
        if self.workers.count > 1 and shape not in self._rehearsed:
            self._rehearse(part)
            self._rehearsed.add(shape)
        while (parts := self._attempt(part)) is None:
            if self.workers.count > 1:  # the others wait in the exchange of gradients
                raise torch.OutOfMemoryError("out of memory after a rehearsal that fitted")
            self._halve(now.length)
        names = list(parts)
        summed = self.workers.sum(torch.stack([parts[name].double() for name in names]))
        return self.objective.health(dict(zip(names, summed.float(), strict=True)))

    def _part(self, spent: Spent, learns: UpdatedNetworks, now: StepSettings) -> _Part:
        rank, count = self.workers.rank, self.workers.count
        start, end = (now.batch * place // count for place in (rank, rank + 1))
        read = spent.tokens // now.length
        windows = self._batches[now.length].between(read + start, read + end)
        offset = self._offset(spent.steps, now.length)
        return _Part(spent.steps, learns, start, windows._replace(offset=offset))

    def _offset(self, step: int, length: int) -> int:
        """Return the row of the position table at which windows of `length` begin.

        Short ones begin at its start in half of the steps and anywhere in the others. Chance says
        which these are: every second one would be the steps of one network where two alternate.
        """
        room = self._length - length
        if not room:
            return 0
        alone = torch.zeros(1, dtype=torch.int64)
        chance = counter_rng.uniform(self._seed, counter_rng.OFFSET, step, alone, 1).item()
        return int((2 * chance - 1) * (room + 1)) if chance > 0.5 else 0

    def _windows(self, now: StepSettings) -> int:
        """Return the windows of a micro-batch."""
        own = -(-now.batch // self.workers.count)
        return own if self.most is None else min(own, max(1, self.most // now.length))

    def _rehearse(self, part: _Part) -> None:
        """Find micro-batches that fit for all before anyone waits for another's gradient.

        What fits once fits again in each batch of that shape.
        """
        while True:
            fits = self._attempt(part, rehearsal=True) is not None
            if not self.workers.sum(torch.tensor(0 if fits else 1)).item():
                break
            self._halve(part.windows.ids_BT.shape[1])

    def _attempt(self, part: _Part, *, rehearsal: bool = False) -> dict[str, Tensor] | None:
        """Return the step's parts, this worker's share of them; None where memory did not do."""
        self.objective.zero_grad()
        try:
            return self._accumulate(part, rehearsal=rehearsal)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        finally:
            if rehearsal:
                self.objective.zero_grad()
        return None

    def _accumulate(self, part: _Part, *, rehearsal: bool) -> dict[str, Tensor]:
        pieces = list(self._pieces(part))
        places = self._places(part, len(pieces))
        total: dict[str, Tensor] = {}
        for left, (seed, piece) in zip(reversed(range(len(pieces))), pieces, strict=True):
            # Dropout is the only chance left in torch's own generator; tie it to step and place.
            _seed_dropout(seed, piece.ids_BT.device)
            with self._apart() if left or rehearsal else nullcontext():
                loss = self._model(piece, part.step, part.learns, places)
                # Workers' gradients are averaged, and are to be added.
                (loss.total * self.workers.count).backward()
            for name, value in loss.parts.items():
                total[name] = total[name] + value if name in total else value
        return total

    def _pieces(self, part: _Part) -> Iterator[tuple[int, Batch]]:
        """Yield each micro-batch, and the seed of its dropout."""
        device = next(self.objective.parameters()).device
        for start in range(0, len(part.windows.ids_BT), self.micro):
            piece = part.windows.rows(start, start + self.micro).to(device)
            # Of a seed, CPUs use the lower 32 bits alone; an odd factor keeps places apart in them.
            yield self._seed * 1_000_003 + part.step + (part.first + start) * 0x9E3779B1, piece

    def _places(self, part: _Part, pieces: int) -> TokenCounts | None:
        if pieces == self.workers.count == 1:  # the objective sees the batch and counts for itself
            return None
        device = next(self.objective.parameters()).device
        own = torch.stack(tuple(self.objective.places(part.windows.to(device), part.step)))
        return TokenCounts(*self.workers.sum(own))

    def _apart(self) -> AbstractContextManager[None]:
        """Return a context in which no gradient is exchanged."""
        if isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return nullcontext()

    def _halve(self, length: int) -> None:
        if self.micro == 1:
            raise torch.OutOfMemoryError("out of memory with a single window at a time")
        self.micro = -(-self.micro // 2)
        self.most = self.micro * length
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generator that dropout draws from on `device`.

    `torch.manual_seed` seeds those of all devices, and where there is no GPU it formats a stack
    trace for the time when there is one: half a percent of a step at nano.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether an error says so; on CPUs neither torch nor oneDNN has a class for it."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in _SAYS_SO
    )
