"""The interface between the driver and the processes that run trials; checks of resources."""

import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import NamedTuple, Protocol

from lab.config.budget import Spent
from lab.config.code_digest import TRIAL, code_digest
from lab.config.experiment import Resources
from lab.config.metrics import Metric
from lab.config.results import State
from lab.config.trial import Trial
from lab.errors import UserError
from lab.storage.mirror import LocalOnly, Mirror

RESTARTS = 2  # restarts, from its checkpoint, of a trial with a process that was killed


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial that is ready to run, with the files that it needs in the storage.

    Attributes:
        trial: trial to run.
        folder: folder of the record, which includes the checkpoints.
        text: folder of the prepared text.
        held_out: file of the held-out corruptions.
        pairs: file of the prepared minimal pairs; None for those of the package.
        start: file of the initial weights; None for random initialization.
        short_text: folder of the text in short windows, for window growth; None without it.
        metric: metric that ranks the trials of the experiment and selects the best checkpoint.
        resources: resources to run the trial on; other numbers of workers or threads change the
            last bits of its results.
        lineage: hash of the trial without the amount of its budget; equal for all trials that
            differ from it only in that amount.
        mirror: mirror that synchronizes these files and folders with the storage.
        charged: compute and tokens of the trial's preparatory runs, which its budget includes.
        earlier_flops: stand-alone FLOPs of the earlier trials that it starts from, which its budget
            does not include; None if it starts from weights of unknown compute.
        tasks: files of the tasks to fine-tune on after training (`examples.prepare_examples`).
        task_seeds: fine-tuning runs of each task.
        code: code digest of the process that made the assignment; part of the record's name.
    """

    trial: Trial
    folder: File
    text: File
    held_out: File
    pairs: File | None
    metric: Metric
    start: File | None = None
    short_text: File | None = None
    resources: Resources = field(default_factory=Resources)
    lineage: str = ""
    mirror: Mirror = field(default_factory=LocalOnly)
    charged: Spent = field(default_factory=Spent)
    earlier_flops: float | None = 0.0
    tasks: tuple[File, ...] = ()
    task_seeds: int = 1
    code: str = field(default_factory=lambda: code_digest(TRIAL))

    def localize(self, name: str) -> "Assignment":
        """Return this assignment with its files downloaded to local paths of a process.

        Args:
            name: name of the process, unique on this machine. Its record folder is its own; the
                other files are shared by all processes of the machine.
        """
        mirror, shared = self.mirror.for_process(name), self.mirror.for_process("shared")

        def to_shared(path: File | None) -> File | None:
            return None if path is None else shared.map_path(path, self.mirror)

        local = replace(
            self,
            folder=mirror.map_path(self.folder, self.mirror),
            text=shared.map_path(self.text, self.mirror),
            held_out=shared.map_path(self.held_out, self.mirror),
            tasks=tuple(shared.map_path(task, self.mirror) for task in self.tasks),
            pairs=to_shared(self.pairs),
            start=to_shared(self.start),
            short_text=to_shared(self.short_text),
            mirror=mirror,
        )
        mirror.pull(local.folder)
        optional = (local.pairs, local.start, local.short_text)
        for path in (local.text, local.held_out, *local.tasks, *optional):
            if path is not None:
                shared.pull(path)
        return local

    def check_code(self) -> None:
        """Check that this process has the code that the record is named by.

        Raises:
            RuntimeError: the code differs, because it was changed after the sweep started, or
                because this machine has another version of it.
        """
        own = code_digest(TRIAL)
        if own != self.code:
            raise RuntimeError(
                f"the code on this machine (digest {own}) is not the code that the sweep started "
                f"with ({self.code}); run the same command again"
            )

    def push_record(self) -> None:
        """Upload the record to the storage."""
        self.mirror.push(self.folder)


class AssignmentSource(Protocol):
    """A source of assignments that is notified of their progress, in the driver's one thread.

    Attributes:
        stop_file: file that, while it exists, makes running trials save their state and end.
    """

    stop_file: File

    def next(self) -> Assignment | None:
        """Return an assignment for a free slot; None if there is none at present."""

    def done(self) -> bool:
        """Return whether no assignment is left or running."""

    def on_start(self, work: Assignment) -> None:
        """Handle the event that an assignment has got its slot."""

    def poll(self) -> None:
        """Read the progress of the running trials; called several times a second."""

    def on_evaluation(self, work: Assignment) -> None:
        """Handle the event that the record of an assignment has a new scored point."""

    def on_end(self, work: Assignment, error: str | None) -> None:
        """Handle the event that an assignment has ended.

        Args:
            work: assignment that has ended.
            error: error message if its process was killed before it wrote the outcome, else None.
        """


class StopSignal:
    """Reads from the storage, at most once per pause, if a trial should continue.

    Args:
        assignment: assignment with the paths of the driver.
        local: the same assignment with the paths of this process (`Assignment.localize`).
        stop_file: the sweep's stop file at the driver; while it exists, all trials are interrupted.
    """

    def __init__(self, assignment: Assignment, local: Assignment, stop_file: File) -> None:
        self._mirror, self._read_at = local.mirror, time.monotonic()
        self._stop_file = local.mirror.map_path(stop_file, assignment.mirror)

    def __call__(self) -> State:
        """Return the state that the trial should be in: `running` or `interrupted`."""
        if time.monotonic() - self._read_at < self._mirror.pause:
            return "running"
        self._read_at = time.monotonic()
        self._mirror.pull(self._stop_file)
        return "interrupted" if self._stop_file.exists() else "running"


class NodeResources(NamedTuple):
    """CPUs and GPUs of a machine."""

    cpus: float
    gpus: float


def count_slots(resources: Resources, nodes: Iterable[NodeResources]) -> int:
    """Return the number of trials that machines can run at the same time.

    The workers of a trial may be on different machines; the resources of one worker may not.

    Args:
        resources: resources of a trial.
        nodes: available machines.
    """
    workers = sum(_count_workers(resources, node) for node in nodes)
    trials = workers // resources.workers
    return min(resources.slots, trials) if resources.slots else trials


def _count_workers(resources: Resources, node: NodeResources) -> int:
    count = int(node.cpus // resources.cpus_per_worker)
    if resources.gpus_per_worker:
        count = min(count, int(node.gpus) * int(1 / resources.gpus_per_worker))
    return count


def check_resources(resources: Resources) -> None:
    """Check that this machine can run one trial; otherwise the trial would wait forever.

    Raises:
        UserError: this machine has fewer CPUs or GPUs than one trial needs.
    """
    cpus, gpus = (
        resources.workers * each for each in (resources.cpus_per_worker, resources.gpus_per_worker)
    )
    node = local_resources(gpus=gpus > 0)
    if cpus > node.cpus:
        raise UserError(
            f"resources.cpus_per_worker: {cpus} for {resources.workers} "
            f"worker{'s' * (resources.workers > 1)}, and this machine has {node.cpus:g}"
        )
    if gpus > node.gpus:
        raise UserError(
            f"resources.gpus_per_worker: {gpus:g} for {resources.workers} "
            f"worker{'s' * (resources.workers > 1)}, and this machine has {node.gpus:g}"
        )
    if not count_slots(replace(resources, slots=0), [node]):  # shares that no one GPU has left
        raise UserError(
            f"resources.gpus_per_worker: {resources.gpus_per_worker:g} of one GPU for each of "
            f"{resources.workers} workers, and this machine's {node.gpus:g} GPUs hold "
            f"{int(node.gpus) * int(1 / resources.gpus_per_worker)} such workers"
        )


def check_address(address: str) -> None:
    """Check that a server listens at an address, because Ray would retry for 15 minutes.

    Args:
        address: host:port of a cluster's head node. An address without a port, such as `auto`, is
            not checked.

    Raises:
        UserError: no server listens at the address, or it is an address of the Ray client.
    """
    if "://" in address:
        raise UserError(
            f"--address {address}: an address of the Ray client, which is not supported; run the "
            f"command on a node of the cluster, with auto or the head's host:port"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); "
            "write auto on a node of it, or the head's host:port"
        ) from None


def local_resources(*, gpus: bool) -> NodeResources:
    """Return the resources of this machine.

    Args:
        gpus: whether to count the GPUs, which takes seconds; without it the number is 0.
    """
    if gpus:
        import torch

    return NodeResources(len(os.sched_getaffinity(0)), torch.cuda.device_count() if gpus else 0)
