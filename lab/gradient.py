"""The gradient of a step, of its whole batch, whoever computes which piece of it.

A batch is divided among workers, and what a worker has into micro-batches where its memory asks
for it. Neither changes what is computed, for each piece's losses are divided by the places of
the whole batch (trap 7); only the order in which numbers are added differs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lab.data import Batch, Batches
from lab.objectives import Objective
from lab.objectives.masking import Places
from lab.spec import Trial
from lab.turns import Learns, shares
from lab.workers import Alone, Workers

_ALONE = Alone()
_SAYS_SO = ("DefaultCPUAllocator: ", "could not create a primitive")


class Gradients:
    """Takes the gradient of one step after another.

    Attributes:
        objective: what is minimised; moved to its device by the caller.
        workers: who shares the work.
        micro: windows of a micro-batch; halved where memory does not suffice.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Batches,
        trial: Trial,
        *,
        workers: Workers = _ALONE,
        micro: int | None = None,
    ) -> None:
        self.objective, self.workers = objective, workers
        self.micro = micro or -(-trial.batch // workers.count)
        self._batches, self._seed = batches, trial.seeds.mask
        self._model = workers.wrap(objective, whole=len(shares(trial.objective)) == 1)
        self._rehearsed: set[Learns] = set()

    def take(self, step: int, learns: Learns) -> dict[str, Tensor]:
        """Leave the gradient of `step` in the weights, and return its figures for the record.

        Raises:
            RuntimeError: not even one window fits into memory.
        """
        whole = self._batches.part(step, self.workers.rank, self.workers.count)
        if self.workers.count > 1 and learns not in self._rehearsed:
            self._rehearse(whole, step, learns)
        while (parts := self._attempt(whole, step, learns)) is None:
            if self.workers.count > 1:  # the others wait in the exchange of gradients
                raise torch.OutOfMemoryError("out of memory after a rehearsal that fitted")
            self._halve()
        names = list(parts)
        summed = self.workers.sum(torch.stack([parts[name].double() for name in names]))
        return self.objective.health(dict(zip(names, summed.float(), strict=True)))

    def _rehearse(self, whole: Batch, step: int, learns: Learns) -> None:
        """Find micro-batches that fit for all before anyone waits for another's gradient.

        Windows are of one length, so what fits once fits again.
        """
        while True:
            fits = self._attempt(whole, step, learns, rehearsal=True) is not None
            if not self.workers.sum(torch.tensor(0 if fits else 1)).item():
                break
            self._halve()
        self._rehearsed.add(learns)

    def _attempt(
        self, whole: Batch, step: int, learns: Learns, *, rehearsal: bool = False
    ) -> dict[str, Tensor] | None:
        """Return the step's parts, this worker's share of them; None where memory did not do."""
        self.objective.zero_grad()
        try:
            return self._accumulate(whole, step, learns, rehearsal=rehearsal)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        finally:
            if rehearsal:
                self.objective.zero_grad()
        return None

    def _accumulate(
        self, whole: Batch, step: int, learns: Learns, *, rehearsal: bool
    ) -> dict[str, Tensor]:
        pieces = list(self._pieces(whole, step))
        places = self._places(whole, step, len(pieces))
        total: dict[str, Tensor] = {}
        for left, (seed, piece) in zip(reversed(range(len(pieces))), pieces, strict=True):
            # Dropout is the only chance left in torch's own generator; tie it to step and place.
            _seed_dropout(seed, piece.ids_BT.device)
            with self._apart() if left or rehearsal else nullcontext():
                loss = self._model(piece, step, learns, places)
                # Workers' gradients are averaged, and are to be added.
                (loss.total * self.workers.count).backward()
            for name, value in loss.parts.items():
                total[name] = total[name] + value if name in total else value
        return total

    def _pieces(self, whole: Batch, step: int) -> Iterator[tuple[int, Batch]]:
        """Yield each micro-batch, and the seed of its dropout."""
        device = next(self.objective.parameters()).device
        first = self._batches.size * self.workers.rank // self.workers.count
        for start in range(0, len(whole.ids_BT), self.micro):
            rows = slice(start, start + self.micro)
            piece = Batch(whole.ids_BT[rows], whole.example_B[rows]).to(device)
            # Of a seed, CPUs use the lower 32 bits alone; an odd factor keeps places apart in them.
            yield self._seed * 1_000_003 + step + (first + start) * 0x9E3779B1, piece

    def _places(self, whole: Batch, step: int, pieces: int) -> Places | None:
        if pieces == self.workers.count == 1:  # the objective sees the batch and counts for itself
            return None
        device = next(self.objective.parameters()).device
        own = torch.stack(tuple(self.objective.places(whole.to(device), step)))
        return Places(*self.workers.sum(own))

    def _apart(self) -> AbstractContextManager[None]:
        """Return a context in which no gradient is exchanged."""
        if isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return nullcontext()

    def _halve(self) -> None:
        if self.micro == 1:
            raise torch.OutOfMemoryError("out of memory with a single window at a time")
        self.micro = -(-self.micro // 2)
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
