"""Run a function in the processes of a group of workers."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, multiprocessing

PRELOADED = ["torch", "torch._dynamo", "lab.trials.run"]
TIMEOUT = 500  # seconds; most of it for machines that are busy with other work

Work = Callable[[int, int, str], None]


def run_workers(work: Work, count: int, folder: Path) -> None:
    """Call `work(rank, count, folder)` in each of `count` processes of a gloo group.

    A server imports torch once for all groups of this process, and forks the workers.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    spawned = multiprocessing.start_processes(
        _join_group, (work, count, str(folder)), count, join=False, start_method="forkserver"
    )
    deadline = time.monotonic() + TIMEOUT
    try:
        while not spawned.join(5):
            assert time.monotonic() < deadline, f"{count} workers: no end in {TIMEOUT} s"
    finally:
        for process in spawned.processes:
            process.kill()


def _join_group(rank: int, work: Work, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rendezvous = f"file://{folder}/rendezvous-{count}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=count)
    work(rank, count, folder)
    distributed.destroy_process_group()
