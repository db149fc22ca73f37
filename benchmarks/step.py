"""Measure the time of a training step: `python -m benchmarks.step [--threads N]`.

The benchmark prints, for each shape, steps, tokens and FLOPs per second, their share of the speed
of a square fp32 matrix product, and the share of time of each kind of operation. The matrix product
is timed in the same process, on the same threads and in every round between the shapes. Each time
is the minimum of all rounds, which reduces the influence of other load. The text is random tokens
with Zipf's frequencies; objective, optimizer and loop are those of a trial.
"""

import argparse
import itertools
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import torch

from lab.config.architecture import SIZES, GeneratorConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.flops import step_cost
from lab.config.objectives.electra import ElectraConfig
from lab.config.optimizer import MuonConfig
from lab.config.trial import Trial
from lab.data.batches import Batches
from lab.data.vocabulary import CLS, FIRST_WORD, SEP
from lab.training import optimizer
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective
from lab.training.objectives.generator import cross_entropy

_ROUNDS, _STEPS, _PROFILED = 10, 5, 10
_WINDOWS, _VOCAB, _LENGTH = 20_000, 2_048, 16
_SQUARE = 1_024  # rows and columns of the square matrix product
_PAPER = (32, 19, 30_522)  # windows, masked slots, vocabulary: half a batch of ELECTRA-Small

# Kinds of operations, by prefixes of their names in torch's profiler; the first match counts.
_KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot",),
    "gelu": ("aten::gelu",),
    "layer norm": ("aten::native_layer_norm",),
    "softmax and losses": (
        "aten::_log_softmax", "aten::_softmax", "aten::nll", "aten::binary_cross",
    ),
    "optimizer": ("aten::_fused", "aten::_foreach", "Optimizer", "aten::linalg", "aten::sqrt",
                  "aten::lerp", "aten::addc"),
    "look-ups": ("aten::embedding", "aten::index", "aten::gather", "aten::scatter",
                 "aten::searchsorted"),
    "copies": ("aten::copy", "aten::cat", "aten::fill", "aten::zero", "aten::clone"),
    "sums": ("aten::sum", "aten::cumsum", "aten::amax", "aten::argmax"),
    "other arithmetic": (
        "aten::add", "aten::sub", "aten::mul", "aten::div", "aten::neg", "aten::bitwise",
        "aten::__", "aten::where", "aten::masked", "aten::clamp", "aten::sort", "aten::sigmoid",
    ),
    "dispatch and autograd": ("",),
}  # fmt: skip


class _Timed:
    """A function and its minimal time.

    Args:
        call: the function.
        count: number of calls of a round.

    Attributes:
        call: the function.
        seconds: minimum over the rounds of the mean time of a call.
    """

    def __init__(self, call: Callable[[], object], count: int) -> None:
        self._call, self._count = call, count
        self.seconds = float("inf")
        self.call = call

    def measure(self) -> None:
        """Time a round."""
        began = time.perf_counter()
        for _ in range(self._count):
            self._call()
        self.seconds = min(self.seconds, (time.perf_counter() - began) / self._count)


def main() -> None:
    """Run the measurements and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument(
        "--threads", type=int, default=1, help="number of threads of torch (default: %(default)s)"
    )
    torch.set_num_threads(parser.parse_args().threads)
    square = torch.randn(_SQUARE, _SQUARE)
    trials = _trials()
    steps = {name: _Timed(_steps(trial).__next__, _STEPS) for name, trial in trials.items()}
    peak = _Timed(lambda: square @ square, 4)
    loss = _Timed(_cross_entropy(), 1)
    for _, timed in itertools.product(range(_ROUNDS), [*steps.values(), peak, loss]):
        timed.measure()
    profiles = {name: _profile(step.call) for name, step in steps.items()}
    square_flops = 2 * _SQUARE**3 / peak.seconds
    print(_machine())
    print(f"square product of {_SQUARE}: {square_flops / 1e9:.1f} GFLOP/s\n")
    print(_speeds(trials, steps, square_flops))
    shape = "x".join(map(str, _PAPER))
    print(f"\ncross-entropy {shape}, forward and backward: {loss.seconds * 1e3:.0f} ms\n")
    print(_shares(profiles))


def _speeds(trials: dict[str, Trial], steps: dict[str, _Timed], square_flops: float) -> str:
    """Return the table of the speeds."""
    rows = [("shape", "ms", "steps/s", "tokens/s", "GFLOP/s", "of the product")]
    for name, step in steps.items():
        cost, seconds = step_cost(trials[name]), step.seconds
        rate = cost.flops / seconds
        rows.append(
            (
                name,
                f"{seconds * 1e3:.2f}",
                f"{1 / seconds:.1f}",
                f"{cost.tokens / seconds:,.0f}",
                f"{rate / 1e9:.1f}",
                f"{rate / square_flops:.1%}",
            )
        )
    return _table(rows)


def _shares(profiles: dict[str, dict[str, float]]) -> str:
    """Return the table of the shares of time by kind of operation."""
    rows = [("share of the time", *profiles)]
    rows += [(kind, *(f"{shares[kind]:.1%}" for shares in profiles.values())) for kind in _KINDS]
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return a text table; all columns but the first are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _trials() -> dict[str, Trial]:
    trials = {
        f"nano g{width:g} batch {batch}": _trial("nano", width, batch)
        for width, batch in itertools.product((0.25, 0.5, 1.0), (64, 128))
    }
    muon = MuonConfig(kind="muon", iterations=3)  # the default of the lab's own sizes
    return trials | {
        "nano g0.25 batch 64, Muon": replace(_trial("nano", 0.25, 64), optim=muon),
        "tiny g0.25 batch 128": _trial("tiny", 0.25, 128),
    }


def _trial(size: str, width: float, batch: int) -> Trial:
    return Trial(
        encoder=SIZES[size],
        objective=ElectraConfig(
            kind="electra", mask_prob=0.25, generator=GeneratorConfig(width=width)
        ),
        data=DataConfig(vocab=_VOCAB, length=_LENGTH),
        batch=batch,
        budget=Budget(kind="tokens", amount=1e12),
    )


def _steps(trial: Trial) -> Iterator[CompletedStep]:
    chance = np.random.default_rng(0)
    words_NT = FIRST_WORD + chance.zipf(1.3, (_WINDOWS, _LENGTH)) % (_VOCAB - FIRST_WORD)
    words_NT[:, 0], words_NT[:, -1] = CLS, SEP
    objective = build_objective(trial, torch.ones(_VOCAB))
    batches = {_LENGTH: Batches(words_NT.astype(np.uint16), trial.seeds.order)}
    return train_steps(
        Gradients(objective, batches, trial),
        optimizer.build_optimizer(objective, trial.optim),
        trial=trial,
        clock=time.perf_counter,
    )


def _cross_entropy() -> Callable[[], None]:
    logits_BKV = torch.randn(_PAPER, requires_grad=True)
    labels_BK = torch.randint(_PAPER[-1], _PAPER[:-1])

    def call() -> None:
        logits_BKV.grad = None
        cross_entropy(logits_BKV, labels_BK).sum().backward()

    return call


def _profile(step: Callable[[], object]) -> dict[str, float]:
    """Return the share of time of each kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(_PROFILED):
            step()
    times: Counter[str] = Counter()
    for event in profile.key_averages():
        kind = next(kind for kind, names in _KINDS.items() if event.key.startswith(names))
        times[kind] += event.self_cpu_time_total
    return {kind: times[kind] / times.total() for kind in _KINDS}


def _machine() -> str:
    """Return one line: processor, cores, threads, system and versions."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s), "
        f"{torch.backends.cpu.get_cpu_capability()}, {platform.platform()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    cpuinfo = File("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
