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

from lab import optim
from lab.budget import Budget
from lab.data import Batches
from lab.gradient import Gradients
from lab.objectives import build
from lab.train import train
from lab.workers import Alone, Group, Workers

STEPS, BATCH = 50, 8
WORKERS = (1, 2, 4)
LIMIT = 1e-5  # relative difference of the losses
HELD = {  # what a step reports that is a count's ratio, not a loss
    "health/recall_replaced",
    "health/generator_accuracy",
}


def asked(member: Member) -> Any:
    shape = small(member)
    amount = STEPS * BATCH * shape.data.length
    return replace(shape, batch=BATCH, budget=Budget(kind="tokens", amount=amount))


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
    for member in MEMBERS:
        for micro in (BATCH // count, max(1, BATCH // count // 4)):
            seen = curve(member, workers, micro)
            if rank == count - 1:  # all say the same; the last one is asked
                file = Path(folder, f"{member.id}-{count}-{BATCH // count // micro}.json")
                file.write_text(json.dumps(seen))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("workers")
    for count in WORKERS[1:]:
        multiprocessing.spawn(work, (count, str(made)), nprocs=count)
    return made


def assert_alike(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert len(one) == len(other) == STEPS
    for step, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a.keys() == b.keys()
        for name in a.keys() - HELD:
            assert b[name] == pytest.approx(a[name], rel=LIMIT, abs=1e-7), (step, name)


@pytest.mark.slow
@each()
def test_workers_and_micro_batches_give_the_same_curve(member: Member, folder: Path) -> None:
    whole = curve(member, Alone(), None)
    assert_alike(whole, curve(member, Alone(), BATCH // 4))
    for file in sorted(folder.glob(f"{member.id}-[0-9]-*.json")):
        assert_alike(whole, json.loads(file.read_text()))
    assert len(list(folder.glob(f"{member.id}-[0-9]-*.json"))) == 4
