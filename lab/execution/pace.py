"""Speed of a sweep's optimizer steps on this machine: timed on random tokens, or estimated."""

import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from lab.config.budget import Budget
from lab.config.experiment import Resources
from lab.config.flops import step_cost
from lab.config.trial import Trial
from lab.config.window_growth import FullWindows
from lab.data.batches import Batches
from lab.data.vocabulary import FIRST_WORD
from lab.search import plan
from lab.training import optimizer as optim
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective

_SECONDS = 0.5  # of timed steps, for each shape
_FEWEST = 2  # timed steps; where networks take turns, one of each
_SHAPES = 6  # timed at most
_BATCH_FLOPS = 2e10  # of a timed step; of a larger batch fewer windows are taken
_MEMORY = 2**31  # bytes of a step; a larger one is not timed
# Share of a bare matrix product's speed on one core that optimizer steps of `tiny` reach
# (reports/LOG.md); smaller widths reach less.
_CPU_SHARE = 0.42
# NVIDIA's ELECTRA-Base on an A100 reaches 23 % of its bf16 peak by the honest count
# (DeepLearningExamples); taken for any GPU.
_GPU_FLOPS = 0.23 * 312e12


class SlotSpeeds:
    """FLOP/s of one slot for each trial of a sweep.

    Trials of equal shapes are timed once. Where there are more shapes than `_SHAPES`, those
    between take the speed of the timed one that is nearest in FLOPs a step.

    Args:
        trials: of the sweep.
        resources: of each.

    Attributes:
        basis: how the speeds were found.
    """

    def __init__(self, trials: Iterable[Trial], resources: Resources) -> None:
        self._resources = resources
        self._known: dict[int, float] = {}  # by FLOPs of a step
        self.basis = "estimated for a GPU at 23 % of an A100's bf16 peak"
        if resources.gpus_per_worker:
            return
        shapes = {_shape(trial): trial for trial in trials if _fits(trial)}
        ordered = sorted(shapes.values(), key=lambda trial: step_cost(trial).flops)
        for trial in _spread(ordered, _SHAPES):
            self._known[step_cost(trial).flops] = self._timed(trial)
        self.basis = (
            f"optimizer steps timed here for {len(self._known)} of {len(ordered)} shapes"
            if self._known
            else "estimated from the speed of a matrix product on this machine"
        )

    def of(self, trial: Trial) -> float:
        """Return the honest FLOP/s of a trial on its slot."""
        workers, gpus = self._resources.workers, self._resources.gpus_per_worker
        if gpus:
            return _GPU_FLOPS * gpus * workers
        if not self._known or not _fits(trial):
            return _CPU_SHARE * _product_speed() * self._resources.cpus_per_worker * workers
        flops = step_cost(trial).flops
        return self._known[min(self._known, key=lambda known: abs(known - flops))] * workers

    def _timed(self, trial: Trial) -> float:
        of_worker = max(1, trial.at(0.5).batch // self._resources.workers)
        return measure_flops_per_second(
            replace(trial, batch=of_worker), self._resources.cpus_per_worker
        )


def _fits(trial: Trial) -> bool:
    return plan.estimate_memory(trial) <= _MEMORY


def _shape(trial: Trial) -> Hashable:
    """Return what a step's speed depends on."""
    generator = trial.objective.generator_shape(trial.encoder)
    return trial.objective.kind, trial.encoder, generator, step_cost(trial), trial.data.vocab


def _spread(trials: list[Trial], most: int) -> list[Trial]:
    """Return at most so many of the trials, the first and the last among them."""
    chosen = np.linspace(0, len(trials) - 1, min(most, len(trials))).round().astype(int)
    return [trials[place] for place in chosen.tolist()]


def _product_speed() -> float:
    """Return FLOP/s of a small fp32 matrix product on one core, by processor time."""
    a, b = np.ones((2_048, 128), np.float32), np.ones((128, 512), np.float32)
    a @ b
    began, rounds = time.process_time(), 0
    while time.process_time() - began < 0.2:
        a @ b
        rounds += 1
    return rounds * 2 * 2_048 * 128 * 512 / (time.process_time() - began)


def measure_flops_per_second(trial: Trial, threads: int | None = None) -> float:
    """Return the honest FLOP/s of a trial's optimizer steps on the CPU.

    Random tokens stand in for text: speed depends on shapes. The first step, which also allocates,
    is left out, and a batch beyond `_BATCH_FLOPS` is cut down.

    Args:
        trial: of which steps are run for `_SECONDS`, at least `_FEWEST`.
        threads: of the computation; None for as many as torch takes by itself.
    """
    with _threads(threads):
        steps = _steps(_endless(trial))
        first = next(steps)
        began = time.perf_counter()
        last = [next(steps) for _ in range(_FEWEST)][-1]
        while time.perf_counter() - began < _SECONDS:
            last = next(steps)
        return (last.spent.flops - first.spent.flops) / (time.perf_counter() - began)


def _endless(trial: Trial) -> Trial:
    """Return a trial of the same shapes with a small enough batch and a budget never reached.

    Where settings move with progress, these are the ones at half of the budget.
    """
    now = trial.at(0.5)
    trial = replace(
        trial,
        data=replace(trial.data, length=now.length),
        windows=FullWindows(),
        batch=now.batch,
        budget=Budget(kind="flops", amount=1e30),
    )
    cost = max(step_cost(trial, learns, 0.5).flops for learns in trial.objective.phase_shares())
    return replace(trial, batch=max(1, min(now.batch, int(now.batch * _BATCH_FLOPS / cost))))


def _steps(trial: Trial) -> Iterator[CompletedStep]:
    V, now = trial.data.vocab, trial.at(0.0)
    shape = (now.batch, now.length)
    ids_NT = np.random.default_rng(0).integers(FIRST_WORD, V, shape, np.uint32)
    counts_V = torch.ones(V, dtype=torch.int64)
    counts_V[:FIRST_WORD] = 0
    objective = build_objective(trial, counts_V)
    gradients = Gradients(objective, {now.length: Batches(ids_NT, seed=0)}, trial)
    optimizer = optim.build_optimizer(objective, trial.optim)
    return train_steps(gradients, optimizer, trial=trial, clock=time.perf_counter)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
