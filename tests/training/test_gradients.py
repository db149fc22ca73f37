"""Gradients of a step: workers and micro-batches change them by rounding only."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from members import COUNTS_V, LENGTH, MEMBERS, Member, each, texts, ticking
from members import trial as member_trial
from prepared_text import PreparedText
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from workers import run_workers

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.metrics import METRICS
from lab.config.objectives.electra import ElectraConfig
from lab.config.optimizer import AdamConfig
from lab.config.trial import Trial
from lab.data.batches import Batch, Batches
from lab.storage import record
from lab.training import gradients as gradient
from lab.training import optimizer as optim
from lab.training.distributed import ProcessGroup, SingleProcess, Workers
from lab.training.gradients import Gradients
from lab.training.loop import train_steps
from lab.training.objectives import Electra, build_objective
from lab.training.objectives.base import Objective
from lab.trials import run as trial
from lab.trials.assignment import Assignment

STEPS, BATCH = 8, 16
DIVISIONS = ((2, 8), (2, 2), (4, 1))  # number of workers, windows of a micro-batch
OUT_OF_MEMORY = torch.OutOfMemoryError("out of memory")
LIMIT = 1e-5  # relative difference of the losses
FIRST_OF_KIND = tuple({member.objective.kind: member for member in reversed(MEMBERS)}.values())
ALTERNATION = next(member for member in MEMBERS if member.id == "alternation_2")
RAMPS = next(member for member in MEMBERS if member.id == "electra_moving")
FROZEN = next(member for member in MEMBERS if member.id == "electra_frozen_post")
# Shared tables, the reward from whole windows, the auxiliary loss, and turns by epochs.
EPOCHS = next(member for member in MEMBERS if member.id == "epoch_alternation")
# Losses that are divided by token counts of their own; compared in one process only.
ONE_PROCESS = ("electra_auxiliary", "reinforce_half_all_tokens", "random_bernoulli")
COMPARED = (*FIRST_OF_KIND, ALTERNATION, RAMPS, FROZEN, EPOCHS)
ELECTRA = next(member for member in MEMBERS if member.id == "electra_tokens")


def short_trial(member: Member, dropout: float = 0.0) -> Any:
    base = member_trial(member)
    amount = STEPS * BATCH * base.data.length
    return replace(
        base,
        batch=BATCH,
        encoder=replace(base.encoder, dropout=dropout),
        optim=AdamConfig(lr=1e-3),
        budget=Budget(kind="tokens", amount=amount),
    )


class Run:
    """A complete run; `prepare` may change the gradients before the first step."""

    def __init__(
        self,
        member: Member,
        workers: Workers,
        micro: int | None,
        dropout: float = 0.0,
        prepare: Callable[[Gradients], None] = lambda _: None,
    ) -> None:
        trial = short_trial(member, dropout)
        objective = build_objective(trial, COUNTS_V)
        batches = texts(trial)
        most = micro and micro * LENGTH
        self.gradients = Gradients(
            objective, batches, trial, workers=workers, micro_batch_limit=most
        )
        prepare(self.gradients)
        optimizer = optim.build_optimizer(objective, trial.optim)
        steps = train_steps(self.gradients, optimizer, trial=trial, clock=ticking())
        self.curve = [{name: v.item() for name, v in step.parts.items()} for step in steps]


def curve(member: Member, workers: Workers, micro: int | None) -> list[dict[str, float]]:
    """Return the metrics of each step of a run."""
    return Run(member, workers, micro).curve


class LimitedMemory:
    """Limited memory, simulated: forward passes with too many windows raise an error.

    Args:
        windows: number of windows that fit.
        passes: number of first passes that succeed with any number of windows.
        error: error to raise.

    Attributes:
        failed: number of passes that raised the error.
    """

    def __init__(self, windows: int, passes: int = 0, error: Exception = OUT_OF_MEMORY) -> None:
        self._windows, self._left, self._error, self.failed = windows, passes, error, 0

    def __call__(self, gradients: Gradients) -> None:
        gradients.objective.register_forward_pre_hook(self._pass)

    def _pass(self, _: Any, arguments: tuple[Any, ...]) -> None:
        self._left -= 1
        if self._left < 0 and len(arguments[0].ids_BT) > self._windows:
            self.failed += 1
            raise self._error


class Exchanges:
    """Counts the exchanges of gradients between workers."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, gradients: Gradients) -> None:
        gradients._model.register_comm_hook(None, self._exchange)

    def _exchange(
        self, _: Any, bucket: distributed.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        self.count += 1
        return allreduce_hook(distributed.group.WORLD, bucket)


class RandomStates:
    """Records the next random numbers of torch's generator before each micro-batch."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, ...]] = []

    def __call__(self, gradients: Gradients) -> None:
        gradients.objective.register_forward_pre_hook(self._record)

    def _record(self, *_: Any) -> None:
        before = torch.get_rng_state()
        self.drawn.append(tuple(torch.rand(4).tolist()))
        torch.set_rng_state(before)


def run_one_of_two(rank: int, workers: Workers, folder: str) -> None:
    """Run the cases for two workers on one of them, and write the results to a file."""
    limited = Run(ELECTRA, workers, None, prepare=LimitedMemory(2) if rank else lambda _: None)
    divided, undivided = Exchanges(), Exchanges()
    Run(ELECTRA, workers, BATCH // 2 // 4, prepare=divided)
    Run(ELECTRA, workers, None, prepare=undivided)
    message = ""
    try:
        Run(ELECTRA, workers, None, prepare=LimitedMemory(0) if rank else lambda _: None)
    except torch.OutOfMemoryError as error:
        message = str(error)
    results = {
        "limited": [limited.gradients.micro_batch_size, limited.curve],
        "exchanges": [divided.count, undivided.count],
        "none fits": message,
        "dropout": Run(ELECTRA, workers, None, dropout=0.1).curve,
    }
    Path(folder, f"pair-{rank}.json").write_text(json.dumps(results))


def run_worker(rank: int, count: int, folder: str) -> None:
    """Run each compared member on one of `count` workers, and write the curves to files."""
    workers = ProcessGroup()
    for member in COMPARED:
        for micro in (micro for workers_count, micro in DIVISIONS if workers_count == count):
            steps = curve(member, workers, micro)
            if rank == count - 1:  # the metrics are sums over all workers
                Path(folder, f"{member.id}-{count}-{micro}.json").write_text(json.dumps(steps))
    if count == 2:
        run_one_of_two(rank, workers, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("workers")
    for count in sorted({count for count, _ in DIVISIONS}):
        run_workers(run_worker, count, results)
    return results


@pytest.fixture(scope="module")
def pair(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"pair-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def whole() -> list[dict[str, float]]:
    return curve(ELECTRA, SingleProcess(), None)


def losses(steps: list[dict[str, float]]) -> list[list[float]]:
    return [
        [value for name, value in sorted(step.items()) if name.startswith("train/")]
        for step in steps
    ]


def losses_agree(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return all(
        b == pytest.approx(a, rel=LIMIT) for a, b in zip(losses(one), losses(other), strict=True)
    )


@pytest.mark.slow
@each(COMPARED)
def test_workers_and_micro_batches_give_the_same_curve(member: Member, folder: Path) -> None:
    whole = curve(member, SingleProcess(), None)
    assert len(whole) == STEPS
    files = sorted(folder.glob(f"{member.id}-*.json"))
    assert len(files) == len(DIVISIONS)
    divided = [json.loads(file.read_text()) for file in files]
    for other in (curve(member, SingleProcess(), BATCH // 4), *divided):
        for step, (one, two) in enumerate(zip(losses(whole), losses(other), strict=True)):
            assert two == pytest.approx(one, rel=LIMIT), step


@each(tuple(member for member in MEMBERS if member.id in ONE_PROCESS))
def test_micro_batches_give_the_same_curve(member: Member) -> None:
    whole = curve(member, SingleProcess(), None)
    assert losses_agree(whole, curve(member, SingleProcess(), 3))


# Exhausted memory, simulated.
@pytest.mark.parametrize(
    ("fits", "passes", "final"),
    [(BATCH, 0, BATCH), (5, 0, 4), (1, 0, 1), (5, 7, 4)],
    ids=["all fit", "from the first step", "one window fits", "in a later step"],
)
def test_out_of_memory_halves_the_micro_batch_and_does_not_change_the_losses(
    whole: list[dict[str, float]], fits: int, passes: int, final: int
) -> None:
    memory = LimitedMemory(fits, passes)
    run = Run(ELECTRA, SingleProcess(), None, prepare=memory)
    assert run.gradients.micro_batch_size == final
    assert 2**memory.failed * final == BATCH  # later steps keep the reduced size
    assert losses_agree(whole, run.curve)


def test_out_of_memory_within_a_step_discards_its_partial_gradient(
    whole: list[dict[str, float]],
) -> None:
    memory = LimitedMemory(2, passes=4 + 3)  # fails at the last micro-batch of the second step
    run = Run(ELECTRA, SingleProcess(), 4, prepare=memory)
    assert run.gradients.micro_batch_size == 2
    assert losses_agree(whole, run.curve)


def test_error_if_a_single_window_does_not_fit() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="with a single window at a time"):
        Run(ELECTRA, SingleProcess(), None, prepare=LimitedMemory(0))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"),
        RuntimeError("could not create a primitive"),  # raised by oneDNN
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:30],
)
def test_each_out_of_memory_error_is_recognised(error: Exception) -> None:
    run = Run(ELECTRA, SingleProcess(), None, prepare=LimitedMemory(8, error=error))
    assert run.gradients.micro_batch_size == 8


def test_other_errors_are_raised() -> None:
    class Broken(LimitedMemory):
        def _pass(self, *_: Any) -> None:
            self.failed += 1
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    broken = Broken(0)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Run(ELECTRA, SingleProcess(), None, prepare=broken)
    assert broken.failed == 1


@pytest.mark.slow
def test_all_workers_halve_the_micro_batch_if_one_is_out_of_memory(
    pair: list[dict[str, Any]], whole: list[dict[str, float]]
) -> None:
    for results in pair:
        micro, curve = results["limited"]
        assert micro == 2
        assert losses_agree(whole, curve)
    assert pair[0]["limited"] == pair[1]["limited"]


@pytest.mark.slow
def test_all_workers_fail_if_a_single_window_does_not_fit_on_one(
    pair: list[dict[str, Any]],
) -> None:
    assert all("with a single window at a time" in results["none fits"] for results in pair)


@pytest.mark.slow
def test_gradients_are_exchanged_once_per_step(pair: list[dict[str, Any]]) -> None:
    # All gradients fit into one bucket; dry runs do not exchange any.
    assert [results["exchanges"] for results in pair] == [[STEPS, STEPS]] * 2


@pytest.mark.slow
def test_dropout_of_a_micro_batch_depends_on_its_position_in_the_batch(
    pair: list[dict[str, Any]],
) -> None:
    halves = Run(ELECTRA, SingleProcess(), BATCH // 2, dropout=0.1).curve
    without_dropout = Run(ELECTRA, SingleProcess(), BATCH // 2).curve
    assert not losses_agree(halves, without_dropout)
    assert all(losses_agree(halves, results["dropout"]) for results in pair)


def test_all_micro_batches_have_different_dropout() -> None:
    states = RandomStates()
    Run(ELECTRA, SingleProcess(), BATCH // 4, prepare=states)
    assert len(states.drawn) == len(set(states.drawn)) == 4 * STEPS


# Exhausted memory, in a process with a limited address space.
LARGE_TRIAL = Trial(
    encoder=EncoderConfig(
        layers=2, hidden=64, ffn=1024, heads=2, embedding=32, init_std=0.1, dropout=0
    ),
    objective=ElectraConfig(kind="electra"),
    data=DataConfig(vocab=64, length=256),
    batch=16,
    optim=AdamConfig(lr=1e-3),
    budget=Budget(kind="tokens", amount=2 * 16 * 256),
)


def address_space(field: str) -> int:
    """Return a size in bytes from /proc/self/status, such as VmSize or VmPeak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def run_with_limited_address_space() -> None:
    """Run full batches with memory for some windows, then for none; print the results as JSON."""
    import ctypes
    import resource

    from lab.training import loop

    loop.keep_freed_memory = lambda: None  # kept blocks would be memory outside the limit
    torch.set_num_threads(1)
    unlimited, raised = resource.RLIM_INFINITY, Counter[str]()
    is_out_of_memory = gradient._is_out_of_memory

    def count(error: MemoryError | RuntimeError) -> bool:
        raised[type(error).__name__] += 1
        return is_out_of_memory(error)

    gradient._is_out_of_memory = count
    ids_NT = np.random.default_rng(0).integers(5, 64, (40, 256)).astype(np.uint16)

    def run(micro: int | None, available: int = 0) -> tuple[int, list[float]]:
        objective = build_objective(LARGE_TRIAL, torch.ones(64))
        if available:
            limit(available)
        most = micro and micro * LARGE_TRIAL.data.length
        gradients = Gradients(
            objective,
            {LARGE_TRIAL.data.length: Batches(ids_NT, 1)},
            LARGE_TRIAL,
            micro_batch_limit=most,
        )
        optimizer = optim.build_optimizer(objective, LARGE_TRIAL.optim)
        steps = train_steps(gradients, optimizer, trial=LARGE_TRIAL, clock=ticking())
        curve = [step.parts["train/loss"].item() for step in steps]
        return gradients.micro_batch_size, curve

    def limit(available: int) -> None:
        ctypes.CDLL(None).malloc_trim(0)
        size = address_space("VmSize") + available
        resource.setrlimit(resource.RLIMIT_AS, (size, unlimited))

    results: dict[str, Any] = {}
    run(1)  # loads and compiles everything that needs memory only once
    before = address_space("VmSize")
    results["unlimited"] = run(4)
    needed = max(address_space("VmPeak") - before, 2**22)
    results["limited"] = run(None, available=needed + 2**23)
    results["raised"] = dict(raised)
    try:
        run(None, available=2**20)
    except Exception as error:
        results["none"] = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
    sys.stdout.write(json.dumps(results))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's address space limits")
def test_exhausted_address_space_halves_the_micro_batch() -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import test_gradients; test_gradients.run_with_limited_address_space()",
        ],
        cwd=Path(__file__).parent,
        # malloc returns freed blocks at once, so the address space is the memory in use.
        env=os.environ
        | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout)
    micro, expected = results["unlimited"]
    reduced, actual = results["limited"]
    assert micro == 4
    assert reduced in {8, 4}
    assert results["raised"]
    assert actual == pytest.approx(expected, rel=LIMIT)
    assert results["none"] == "OutOfMemoryError: out of memory with a single window at a time"


# The micro-batch of a trial.
@pytest.mark.usefixtures("few_sentences")
def test_reduced_micro_batch_is_recorded_and_restored_from_the_checkpoint(
    prepared_text: PreparedText, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Trial(
        encoder=EncoderConfig(
            layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, norm="pre"
        ),
        objective=ElectraConfig(kind="electra"),
        data=prepared_text.data,
        batch=8,
        budget=Budget(kind="tokens", amount=16 * 8 * 16),
        evaluations=4,
    )
    work = Assignment(
        trial=small,
        folder=tmp_path / "trial",
        text=prepared_text.text,
        held_out=held_out,
        pairs=None,
        metric=METRICS["probe/pos/accuracy"],
    )
    sizes: list[int] = []
    forward = Electra.forward

    def limited(self: Objective, batch: Batch, *arguments: Any) -> Any:
        sizes.append(len(batch.ids_BT))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, batch, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Electra, "forward", limited)
    signals = iter(["running"] * 5 + ["interrupted"] * 99)
    outcome = trial.run_trial(work, requested_state=lambda: next(signals))  # type: ignore[arg-type,return-value]
    assert outcome.state == "interrupted"
    assert sizes[:3] == [8, 4, 2]
    newest = sorted((work.folder / "checkpoints").iterdir())[-1]
    assert json.loads((newest / "state.json").read_text())["place"]["micro_batch_limit"] == 2 * 16
    sizes.clear()
    assert trial.run_trial(work).state == "finished"
    assert set(sizes) == {2}
    micros = [row["health/micro_batch"] for row in record.read_curve(work.folder)]
    assert micros == [8, 2, 2, 2, 2]  # reduced in the first step


@pytest.mark.usefixtures("few_sentences")
def test_trial_fails_with_a_one_line_reason_if_a_window_does_not_fit(
    prepared_text: PreparedText, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much")

    monkeypatch.setattr(Electra, "forward", fail)
    outcome = trial.run_trial(
        Assignment(
            trial=replace(LARGE_TRIAL, data=prepared_text.data, batch=4),
            folder=tmp_path,
            text=prepared_text.text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )
    )
    assert outcome.state == "failed"
    assert outcome.reason == "OutOfMemoryError: out of memory with a single window at a time"
