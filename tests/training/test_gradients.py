"""One step, however it is divided: workers and micro-batches change nothing but rounding."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from members import COUNTS_V, LENGTH, MEMBERS, Member, each, texts, ticking
from members import trial as small
from prepared_text import PreparedText
from torch import distributed, multiprocessing
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lab.config import trial as spec
from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.metrics import METRICS
from lab.config.objectives.electra import ElectraConfig
from lab.config.optimizer import AdamConfig
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

STEPS, BATCH = 16, 16
DIVIDED = ((2, 8), (2, 2), (4, 1))  # workers, and windows of a micro-batch
SAID = torch.OutOfMemoryError("out of memory")
LONGEST = 500  # seconds; most of them where other work holds the cores
LIMIT = 1e-5  # relative difference of the losses
LADDER = tuple(
    {member.objective.kind: member for member in reversed(MEMBERS)}.values()
)  # the first member of each kind
TURNS = next(member for member in MEMBERS if member.id == "alternation_2")
MOVING = next(member for member in MEMBERS if member.id == "electra_moving")
FROZEN = next(member for member in MEMBERS if member.id == "electra_frozen_post")
RUNGS = (*LADDER, TURNS, MOVING, FROZEN)


ELECTRA = next(member for member in MEMBERS if member.id == "electra_tokens")


def asked(member: Member, dropout: float = 0.0) -> Any:
    shape = small(member)
    amount = STEPS * BATCH * shape.data.length
    return replace(
        shape,
        batch=BATCH,
        encoder=replace(shape.encoder, dropout=dropout),
        optim=AdamConfig(lr=1e-3),
        budget=Budget(kind="tokens", amount=amount),
    )


class Run:
    """A run from its start; `ready` may alter it before it begins."""

    def __init__(
        self,
        member: Member,
        workers: Workers,
        micro: int | None,
        dropout: float = 0.0,
        ready: Callable[[Gradients], None] = lambda _: None,
    ) -> None:
        trial = asked(member, dropout)
        objective = build_objective(trial, COUNTS_V)
        batches = texts(trial)
        most = micro and micro * LENGTH
        self.gradients = Gradients(objective, batches, trial, workers=workers, most=most)
        ready(self.gradients)
        optimizer = optim.build_optimizer(objective, trial.optim)
        steps = train_steps(self.gradients, optimizer, trial=trial, clock=ticking())
        self.curve = [{name: v.item() for name, v in step.parts.items()} for step in steps]


def curve(member: Member, workers: Workers, micro: int | None) -> list[dict[str, float]]:
    """Return what each step of a run reports."""
    return Run(member, workers, micro).curve


class Short:
    """Memory for so many windows: the pass of more, or of one at a certain turn, fails.

    Args:
        windows: that fit.
        passes: how many passes memory lasts for whatever they have.
        error: by which it is said.
    """

    def __init__(self, windows: int, passes: int = 0, error: Exception = SAID) -> None:
        self._windows, self._left, self._error, self.failed = windows, passes, error, 0

    def __call__(self, gradients: Gradients) -> None:
        gradients.objective.register_forward_pre_hook(self._pass)

    def _pass(self, _: Any, given: tuple[Any, ...]) -> None:
        self._left -= 1
        if self._left < 0 and len(given[0].ids_BT) > self._windows:
            self.failed += 1
            raise self._error


class Exchanges:
    """Counts how often gradients are exchanged."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, gradients: Gradients) -> None:
        gradients._model.register_comm_hook(None, self._exchange)

    def _exchange(
        self, _: Any, bucket: distributed.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        self.count += 1
        return allreduce_hook(distributed.group.WORLD, bucket)


class Chance:
    """Notes what torch's generator would give to each piece."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, ...]] = []

    def __call__(self, gradients: Gradients) -> None:
        gradients.objective.register_forward_pre_hook(self._note)

    def _note(self, *_: Any) -> None:
        before = torch.get_rng_state()
        self.drawn.append(tuple(torch.rand(4).tolist()))
        torch.set_rng_state(before)


def in_pairs(rank: int, workers: Workers, folder: str) -> None:
    """Run what two workers do on this one."""
    one_short = Run(ELECTRA, workers, None, ready=Short(2) if rank else lambda _: None)
    often, once = Exchanges(), Exchanges()
    Run(ELECTRA, workers, BATCH // 2 // 4, ready=often)
    Run(ELECTRA, workers, None, ready=once)
    none_fits = ""
    try:
        Run(ELECTRA, workers, None, ready=Short(0) if rank else lambda _: None)
    except torch.OutOfMemoryError as error:
        none_fits = str(error)
    said = {
        "one short": [one_short.gradients.micro, one_short.curve],
        "exchanges": [often.count, once.count],
        "none fits": none_fits,
        "dropout": Run(ELECTRA, workers, None, dropout=0.1).curve,
    }
    Path(folder, f"pair-{rank}.json").write_text(json.dumps(said))


def work(rank: int, count: int, folder: str) -> None:
    """Run every member on this worker, whole and in micro-batches."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    meeting = f"file://{folder}/meeting-{count}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    workers = ProcessGroup()
    for member in RUNGS:
        for micro in (micro for among, micro in DIVIDED if among == count):
            seen = curve(member, workers, micro)
            if rank == count - 1:  # all say the same; the last one is asked
                Path(folder, f"{member.id}-{count}-{micro}.json").write_text(json.dumps(seen))
    if count == 2:
        in_pairs(rank, workers, folder)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("workers")
    for count in sorted({count for count, _ in DIVIDED}):
        spawned = multiprocessing.spawn(work, (count, str(made)), nprocs=count, join=False)
        until = time.monotonic() + LONGEST
        try:
            while not spawned.join(5):
                assert time.monotonic() < until, "the workers wait for each other"
        finally:
            for process in spawned.processes:
                process.kill()
    return made


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


def same(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return all(
        b == pytest.approx(a, rel=LIMIT) for a, b in zip(losses(one), losses(other), strict=True)
    )


@pytest.mark.slow
@each(RUNGS)
def test_workers_and_micro_batches_give_the_same_curve(member: Member, folder: Path) -> None:
    whole = curve(member, SingleProcess(), None)
    assert len(whole) == STEPS
    files = sorted(folder.glob(f"{member.id}-*.json"))
    assert len(files) == len(DIVIDED)
    divided = [json.loads(file.read_text()) for file in files]
    for other in (curve(member, SingleProcess(), BATCH // 4), *divided):
        for step, (one, two) in enumerate(zip(losses(whole), losses(other), strict=True)):
            assert two == pytest.approx(one, rel=LIMIT), step


# Memory that runs out.
@pytest.mark.parametrize(
    ("fits", "passes", "ends"),
    [(BATCH, 0, BATCH), (5, 0, 4), (1, 0, 1), (5, 7, 4)],
    ids=["never", "at once", "but for one window", "later"],
)
def test_out_of_memory_halves_the_micro_batch_and_the_losses_stay(
    whole: list[dict[str, float]], fits: int, passes: int, ends: int
) -> None:
    short = Short(fits, passes)
    run = Run(ELECTRA, SingleProcess(), None, ready=short)
    assert run.gradients.micro == ends
    assert 2**short.failed * ends == BATCH  # halved each time, and never tried again
    assert same(whole, run.curve)


def test_out_of_memory_amid_a_step_leaves_nothing_of_it(whole: list[dict[str, float]]) -> None:
    run = Run(
        ELECTRA, SingleProcess(), 4, ready=Short(2, passes=4 + 3)
    )  # the second step's last piece
    assert run.gradients.micro == 2
    assert same(whole, run.curve)


def test_no_room_for_one_window_is_one_clear_error() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="with a single window at a time"):
        Run(ELECTRA, SingleProcess(), None, ready=Short(0))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"),
        RuntimeError("could not create a primitive"),  # seen of oneDNN, with hardly any left
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:30],
)
def test_each_way_of_saying_that_memory_is_out_is_understood(error: Exception) -> None:
    assert Run(ELECTRA, SingleProcess(), None, ready=Short(8, error=error)).gradients.micro == 8


def test_other_errors_are_no_lack_of_memory() -> None:
    class Broken(Short):
        def _pass(self, *_: Any) -> None:
            self.failed += 1
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    broken = Broken(0)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Run(ELECTRA, SingleProcess(), None, ready=broken)
    assert broken.failed == 1


@pytest.mark.slow
def test_workers_halve_together_where_one_is_short(
    pair: list[dict[str, Any]], whole: list[dict[str, float]]
) -> None:
    for said in pair:
        micro, curve = said["one short"]
        assert micro == 2
        assert same(whole, curve)
    assert pair[0]["one short"] == pair[1]["one short"]


@pytest.mark.slow
def test_workers_give_up_together_where_one_has_no_room_for_a_window(
    pair: list[dict[str, Any]],
) -> None:
    assert ["with a single window at a time" in said["none fits"] for said in pair] == [True] * 2


@pytest.mark.slow
def test_gradients_are_exchanged_once_a_step(pair: list[dict[str, Any]]) -> None:
    # All of them fit into one bucket, and what is rehearsed is not exchanged.
    assert [said["exchanges"] for said in pair] == [[STEPS, STEPS]] * 2


@pytest.mark.slow
def test_dropout_of_a_piece_depends_on_its_place_in_the_batch(pair: list[dict[str, Any]]) -> None:
    halves = Run(ELECTRA, SingleProcess(), BATCH // 2, dropout=0.1).curve
    assert not same(halves, Run(ELECTRA, SingleProcess(), BATCH // 2).curve)  # it is on
    assert all(same(halves, said["dropout"]) for said in pair)


def test_no_two_pieces_have_the_same_dropout() -> None:
    chance = Chance()
    Run(ELECTRA, SingleProcess(), BATCH // 4, ready=chance)
    assert len(chance.drawn) == len(set(chance.drawn)) == 4 * STEPS


# The same, by memory that does run out: of the address space of a process.
NEEDY = spec.Trial(
    encoder=EncoderConfig(
        layers=2, hidden=64, ffn=1024, heads=2, embedding=32, init_std=0.1, dropout=0
    ),
    objective=ElectraConfig(kind="electra"),
    data=DataConfig(vocab=64, length=256),
    batch=16,
    optim=AdamConfig(lr=1e-3),
    budget=Budget(kind="tokens", amount=2 * 16 * 256),
)


def needs(field: str) -> int:
    """Return bytes of address space, as /proc names them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def short_of_memory() -> None:
    """Run whole batches with room for some windows, then for none; say what became of it."""
    import ctypes
    import resource

    from lab.training import loop

    loop.keep_freed_memory = lambda: None  # what is kept would be room beside what is measured
    torch.set_num_threads(1)
    free, seen = resource.RLIM_INFINITY, Counter[str]()
    recognised = gradient._out_of_memory

    def note(error: MemoryError | RuntimeError) -> bool:
        seen[type(error).__name__] += 1
        return recognised(error)

    gradient._out_of_memory = note
    ids_NT = np.random.default_rng(0).integers(5, 64, (40, 256)).astype(np.uint16)

    def run(micro: int | None, room: int = 0) -> tuple[int, list[float]]:
        objective = build_objective(NEEDY, torch.ones(64))
        if room:
            within(room)
        most = micro and micro * NEEDY.data.length
        gradients = Gradients(objective, {NEEDY.data.length: Batches(ids_NT, 1)}, NEEDY, most=most)
        optimizer = optim.build_optimizer(objective, NEEDY.optim)
        steps = train_steps(gradients, optimizer, trial=NEEDY, clock=ticking())
        curve = [step.parts["train/loss"].item() for step in steps]
        return gradients.micro, curve

    def within(room: int) -> None:
        ctypes.CDLL(None).malloc_trim(0)
        resource.setrlimit(resource.RLIMIT_AS, (needs("VmSize") + room, free))

    said: dict[str, Any] = {}
    run(1)  # whatever is loaded or compiled only once
    before = needs("VmSize")
    said["free"] = run(4)
    said["short"] = run(None, room=max(needs("VmPeak") - before, 2**22) + 2**23)
    said["raised"] = dict(seen)
    try:
        run(None, room=2**20)
    except Exception as error:
        said["none"] = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_AS, (free, free))
    sys.stdout.write(json.dumps(said))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_memory_that_runs_out_halves_the_micro_batch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import test_gradients; test_gradients.short_of_memory()"],
        cwd=Path(__file__).parent,
        # What is freed goes back at once, so that what is in use is what is needed.
        env=os.environ
        | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (given, free), (found, short) = said["free"], said["short"]
    assert given == 4
    assert found in {8, 4}
    assert said["raised"]
    assert short == pytest.approx(free, rel=LIMIT)
    assert said["none"] == "OutOfMemoryError: out of memory with a single window at a time"


# The micro-batch of a trial.
@pytest.mark.usefixtures("few_sentences")
def test_micro_batch_is_in_each_row_and_in_the_checkpoint_and_is_not_sought_again(
    prepared_text: PreparedText, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spec.Trial(
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
        trial=asked,
        folder=tmp_path / "trial",
        text=prepared_text.text,
        held_out=held_out,
        metric=METRICS["probe/pos/accuracy"],
    )
    sizes: list[int] = []
    forward = Electra.forward

    def short(self: Objective, batch: Batch, *given: Any) -> Any:
        sizes.append(len(batch.ids_BT))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, batch, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Electra, "forward", short)
    wishes = iter(["running"] * 5 + ["interrupted"] * 99)
    outcome = trial.run_trial(work, wish=lambda: next(wishes))  # type: ignore[arg-type,return-value]
    assert outcome.state == "interrupted"
    assert sizes[:3] == [8, 4, 2]
    newest = sorted((work.folder / "checkpoints").iterdir())[-1]
    assert json.loads((newest / "state.json").read_text())["place"]["most"] == 2 * 16
    sizes.clear()
    assert trial.run_trial(work).state == "finished"
    assert set(sizes) == {2}
    micros = [row["health/micro_batch"] for row in record.read_curve(work.folder)]
    assert micros == [8, 2, 2, 2, 2]  # nothing is known before the first step


@pytest.mark.usefixtures("few_sentences")
def test_trial_without_room_for_a_window_fails_in_one_line(
    prepared_text: PreparedText, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much")

    monkeypatch.setattr(Electra, "forward", short)
    outcome = trial.run_trial(
        Assignment(
            trial=replace(NEEDY, data=prepared_text.data, batch=4),
            folder=tmp_path,
            text=prepared_text.text,
            held_out=held_out,
            metric=METRICS["probe/pos/accuracy"],
        )
    )
    assert outcome.state == "failed"
    assert outcome.reason == "OutOfMemoryError: out of memory with a single window at a time"
