"""FLOP/s of a sweep's optimizer steps on this machine: timed on random tokens, or estimated."""

import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from lab.config.budget import Budget
from lab.config.costs.memory import estimate_memory
from lab.config.experiment import Resources
from lab.config.flops import step_cost
from lab.config.schedules.window_growth import FullWindows
from lab.config.trial import Trial
from lab.data.batches import Batches
from lab.data.vocabulary import FIRST_WORD
from lab.training import optimizer as optim
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective

_SECONDS = 0.5  # seconds of timed steps per shape
_FEWEST = 2  # minimum number of timed steps: one of each network, where the updates alternate
_SHAPES = 6  # maximum number of timed shapes
_BATCH_FLOPS = 2e10  # maximum FLOPs of a timed step; a larger batch is timed with fewer windows
_MEMORY = 2**31  # maximum bytes of a timed step
# FLOP/s of optimizer steps of the size `tiny`, divided by those of a matrix product on one core
# (reports/LOG.md). Smaller hidden sizes reach a smaller share.
_CPU_SHARE = 0.42
# An A100, used for every GPU: 23 % of its fp32 peak outside of tensor cores, since the lab trains
# in fp32. The share is that of the bf16 peak that NVIDIA's ELECTRA-Base (DeepLearningExamples)
# reaches, by the FLOPs that the lab counts; it was not measured in fp32.
_GPU_FLOPS = 0.23 * 19.5e12


class SlotSpeeds:
    """FLOP/s of one slot for each trial of a sweep.

    Trials of equal shapes are timed once. Of more than `_SHAPES` shapes, only `_SHAPES` are timed;
    the others take the speed of the timed shape that is nearest in FLOPs per step.

    Args:
        trials: trials of the sweep.
        resources: resources of each trial.

    Attributes:
        basis: description of the method, for display.
    """

    def __init__(self, trials: Iterable[Trial], resources: Resources) -> None:
        self._resources = resources
        self._timed: dict[int, float] = {}  # FLOP/s by FLOPs of a step
        self.basis = "estimated for a GPU at 23 % of an A100's bf16 peak"
        if resources.gpus_per_worker:
            return
        shapes = {_shape(trial): trial for trial in trials if _can_be_timed(trial)}
        ordered = sorted(shapes.values(), key=lambda trial: step_cost(trial).flops)
        for trial in _select_evenly(ordered, _SHAPES):
            self._timed[step_cost(trial).flops] = self._measure(trial)
        self.basis = (
            f"optimizer steps timed here for {len(self._timed)} of {len(ordered)} shapes"
            if self._timed
            else "estimated from the speed of a matrix product on this machine"
        )

    def flops_per_second(self, trial: Trial) -> float:
        """Return the FLOP/s of a trial on its slot."""
        workers, gpus = self._resources.workers, self._resources.gpus_per_worker
        if gpus:
            return _GPU_FLOPS * gpus * workers
        if not self._timed or not _can_be_timed(trial):
            return _CPU_SHARE * _matrix_product_speed() * self._resources.cpus_per_worker * workers
        flops = step_cost(trial).flops
        return self._timed[min(self._timed, key=lambda timed: abs(timed - flops))] * workers

    def _measure(self, trial: Trial) -> float:
        batch_per_worker = max(1, trial.settings_at(0.5).batch // self._resources.workers)
        return measure_flops_per_second(
            replace(trial, batch=batch_per_worker), self._resources.cpus_per_worker
        )


def _can_be_timed(trial: Trial) -> bool:
    return estimate_memory(trial) <= _MEMORY


def _shape(trial: Trial) -> Hashable:
    """Return the settings that determine the speed of a step, as a key."""
    generator = trial.objective.generator_shape(trial.encoder)
    return trial.objective.kind, trial.encoder, generator, step_cost(trial), trial.data.vocab


def _select_evenly(trials: list[Trial], most: int) -> list[Trial]:
    """Return at most `most` of the trials at equal distances, including the first and the last."""
    chosen = np.linspace(0, len(trials) - 1, min(most, len(trials))).round().astype(int)
    return [trials[index] for index in chosen.tolist()]


def _matrix_product_speed() -> float:
    """Return the FLOP/s of a small fp32 matrix product on one core, measured in processor time."""
    a, b = np.ones((2_048, 128), np.float32), np.ones((128, 512), np.float32)
    a @ b
    began, rounds = time.process_time(), 0
    while time.process_time() - began < 0.2:
        a @ b
        rounds += 1
    return rounds * 2 * 2_048 * 128 * 512 / (time.process_time() - began)


def measure_flops_per_second(trial: Trial, threads: int | None = None) -> float:
    """Return the FLOP/s of a trial's optimizer steps on the CPU.

    The tokens are random, since speed depends on shapes alone. The first step is not timed, because
    it also allocates memory. A batch of more than `_BATCH_FLOPS` is reduced.

    Args:
        trial: trial to time; its steps are run for `_SECONDS`, and at least `_FEWEST` of them.
        threads: number of threads; None for torch's default.
    """
    with _use_threads(threads):
        steps = _run_steps(_without_end(trial))
        first = next(steps)
        began = time.perf_counter()
        last = [next(steps) for _ in range(_FEWEST)][-1]
        while time.perf_counter() - began < _SECONDS:
            last = next(steps)
        return (last.spent.flops - first.spent.flops) / (time.perf_counter() - began)


def _without_end(trial: Trial) -> Trial:
    """Return a trial of the same shapes with a small enough batch and an unreachable budget.

    Settings that change with progress take their values at half of the budget.
    """
    now = trial.settings_at(0.5)
    trial = replace(
        trial,
        data=replace(trial.data, length=now.length),
        windows=FullWindows(),
        batch=now.batch,
        budget=Budget(kind="flops", amount=1e30),
    )
    cost = max(step_cost(trial, updates, 0.5).flops for updates in trial.objective.phase_shares())
    return replace(trial, batch=max(1, min(now.batch, int(now.batch * _BATCH_FLOPS / cost))))


def _run_steps(trial: Trial) -> Iterator[CompletedStep]:
    V, now = trial.data.vocab, trial.settings_at(0.0)
    shape = (now.batch, now.length)
    ids_NT = np.random.default_rng(0).integers(FIRST_WORD, V, shape, np.uint32)
    counts_V = torch.ones(V, dtype=torch.int64)
    counts_V[:FIRST_WORD] = 0
    objective = build_objective(trial, counts_V)
    gradients = Gradients(objective, {now.length: Batches(ids_NT, seed=0)}, trial)
    optimizer = optim.build_optimizer(objective, trial.optim)
    return train_steps(gradients, optimizer, trial=trial, clock=time.perf_counter)


@contextmanager
def _use_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
