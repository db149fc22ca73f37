"""One step, however it is divided: workers and micro-batches change nothing but rounding."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from members import COUNTS_V, MEMBERS, Member, each, ticking, windows
from members import trial as small
from torch import distributed, multiprocessing

from lab import optim, spec
from lab.budget import Budget
from lab.data import Batches
from lab.gradient import Gradients
from lab.objectives import build
from lab.train import train
from lab.workers import Alone, Group, Workers

STEPS, BATCH = 50, 16
WORKERS = (2, 4)
LIMIT = 1e-5  # relative difference of the losses
LADDER = tuple(
    {member.objective.kind: member for member in reversed(MEMBERS)}.values()
)  # the first member of each kind
TURNS = next(member for member in MEMBERS if member.id == "alternation_2")
RUNGS = (*LADDER, TURNS)


def asked(member: Member) -> Any:
    shape = small(member)
    amount = STEPS * BATCH * shape.data.length
    return replace(
        shape,
        batch=BATCH,
        encoder=replace(shape.encoder, dropout=0.0),
        optim=spec.Optim(lr=1e-3),
        budget=Budget(kind="tokens", amount=amount),
    )


def curve(member: Member, workers: Workers, micro: int | None) -> list[dict[str, float]]:
    """Return what each step of a run reports."""
    trial = asked(member)
    objective = build(trial, COUNTS_V)
    batches = Batches(windows(30).astype(np.uint16), BATCH, trial.seeds.order)
    gradients = Gradients(objective, batches, trial, workers=workers, micro=micro)
    optimizer = optim.build(objective, trial.optim)
    steps = train(gradients, optimizer, trial=trial, clock=ticking())
    return [{name: value.item() for name, value in step.parts.items()} for step in steps]


def work(rank: int, count: int, folder: str) -> None:
    """Run every member on this worker, whole and in micro-batches."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    meeting = f"file://{folder}/meeting-{count}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    workers = Group()
    for member in RUNGS:
        for micro in (BATCH // count, max(1, BATCH // count // 4)):
            seen = curve(member, workers, micro)
            if rank == count - 1:  # all say the same; the last one is asked
                file = Path(folder, f"{member.id}-{count}-{BATCH // count // micro}.json")
                file.write_text(json.dumps(seen))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("workers")
    for count in WORKERS:
        multiprocessing.spawn(work, (count, str(made)), nprocs=count)
    return made


def losses(steps: list[dict[str, float]]) -> list[list[float]]:
    return [
        [value for name, value in sorted(step.items()) if name.startswith("train/")]
        for step in steps
    ]


@pytest.mark.slow
@each(RUNGS)
def test_workers_and_micro_batches_give_the_same_curve(member: Member, folder: Path) -> None:
    whole = curve(member, Alone(), None)
    assert len(whole) == STEPS
    files = sorted(folder.glob(f"{member.id}-*.json"))
    assert len(files) == 2 * len(WORKERS)
    divided = [json.loads(file.read_text()) for file in files]
    for other in (curve(member, Alone(), BATCH // 4), *divided):
        for step, (one, two) in enumerate(zip(losses(whole), losses(other), strict=True)):
            assert two == pytest.approx(one, rel=LIMIT), step
