"""Work as the driver hands it to whatever carries it out."""

import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import NamedTuple, Protocol

from lab.config.budget import Spent
from lab.config.experiment import Resources
from lab.config.metrics import Metric
from lab.config.results import State
from lab.config.trial import Trial
from lab.errors import UserError
from lab.storage import record
from lab.storage.mirror import LocalOnly, Mirror

RESTARTS = 2  # of a trial of which a process died; it goes on from its checkpoint


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial, ready to run: everything is in place on storage that all machines see.

    Attributes:
        trial: what to run.
        folder: of its record and its checkpoints.
        text: folder of the prepared text.
        held_out: file of the frozen corruptions.
        start: file of the weights that it starts from; None where chance draws them.
        short_text: folder of the text in the short windows that grow; None where none do.
        metric: what ranks trials here, and so which checkpoint is kept as the best.
        resources: what to run it on; no part of what it computes.
        lineage: names all trials that differ from it in the budget's amount alone.
        mirror: what keeps these places equal to a storage that is no folder.
        charged: what its preparatory runs have spent, which its budget counts.
        earlier_flops: stand-alone FLOPs of the earlier trials it starts from, which its budget does
            not count; None where it starts from weights whose compute nobody recorded.
        tasks: files of what it is fine-tuned on once it has finished (`examples.prepare`).
        task_seeds: runs of each.
    """

    trial: Trial
    folder: File
    text: File
    held_out: File
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

    def brought(self, name: str) -> "Assignment":
        """Return the work with its places on this machine, as the storage has them now.

        Args:
            name: of the process, which has a record's folder for itself.
        """
        mirror, shared = self.mirror.apart(name), self.mirror.apart("shared")

        def here(place: File | None) -> File | None:
            return None if place is None else shared.place(place, self.mirror)

        work = replace(
            self,
            folder=mirror.place(self.folder, self.mirror),
            text=shared.place(self.text, self.mirror),
            held_out=shared.place(self.held_out, self.mirror),
            tasks=tuple(shared.place(task, self.mirror) for task in self.tasks),
            start=here(self.start),
            short_text=here(self.short_text),
            mirror=mirror,
        )
        mirror.pull(work.folder)
        for place in (work.text, work.held_out, *work.tasks, work.start, work.short_text):
            if place is not None:
                shared.pull(place)
        return work

    def keep(self) -> None:
        """Let the storage have the record as it is here now."""
        self.mirror.push(self.folder)


class AssignmentSource(Protocol):
    """Where work comes from and where its ends are told, all in the driver's one thread.

    Attributes:
        stop_file: while it exists, running trials save their state and end.
    """

    stop_file: File

    def next(self) -> Assignment | None:
        """Return work for a free slot; None where there is none now."""

    def done(self) -> bool:
        """Return whether no work is left and none is out."""

    def began(self, work: Assignment) -> None:
        """Hear that work has got its slot."""

    def looked(self) -> None:
        """Look how far running trials have come; called several times a second."""

    def scored(self, work: Assignment) -> None:
        """Hear that a new point stands in the work's record."""

    def ended(self, work: Assignment, error: str | None) -> None:
        """Hear that work has ended; `error` where its process died before it could record it."""


class StopSignal:
    """The state that a running trial should be in, asked of the storage now and then.

    Args:
        asked: the trial's work as the driver gave it.
        work: the same, brought here; a file `stop` in its folder ends the trial.
        stop_file: of the sweep, at the driver's; while it exists, all trials are to be interrupted.
    """

    def __init__(self, asked: Assignment, work: Assignment, stop_file: File) -> None:
        self._work, self._asked = work, time.monotonic()
        self._stop_file = work.mirror.place(stop_file, asked.mirror)

    def __call__(self) -> State:
        """Return `running`, `interrupted` or `stopped`."""
        mirror, folder = self._work.mirror, self._work.folder
        if time.monotonic() - self._asked < mirror.pause:
            return "running"
        self._asked = time.monotonic()
        mirror.pull(self._stop_file)
        if self._stop_file.exists():
            return "interrupted"
        mirror.pull(record.stop_file(folder))
        return "stopped" if record.stop_file(folder).exists() else "running"


class NodeResources(NamedTuple):
    """What a machine has."""

    cpus: float
    gpus: float


def count_slots(resources: Resources, nodes: Iterable[NodeResources]) -> int:
    """Return how many trials `nodes` serve at once; a worker has all it needs on one of them."""
    workers = sum(_workers(resources, node) for node in nodes)
    served = workers // resources.workers
    return min(resources.slots, served) if resources.slots else served


def _workers(resources: Resources, node: NodeResources) -> int:
    fit = int(node.cpus // resources.cpus_per_worker)
    if resources.gpus_per_worker:
        fit = min(fit, int(node.gpus) * int(1 / resources.gpus_per_worker))
    return fit


def check_resources(resources: Resources) -> None:
    """Refuse resources of which this machine cannot serve one trial: it would wait for ever.

    Raises:
        UserError: names what is asked and what there is.
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


def check_address(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would knock for a quarter of an hour.

    Args:
        address: host:port of a cluster's head; what has no port, as `auto`, is left to Ray.

    Raises:
        UserError: nothing listens there, or it is Ray's client's.
    """
    if "://" in address:
        raise UserError(
            f"--address {address}: from far away; run the command on a node of the cluster, with "
            f"auto or the head's host:port"
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
    """Return what this machine has.

    Args:
        gpus: whether to look for GPUs; it takes seconds.
    """
    if gpus:
        import torch

    return NodeResources(len(os.sched_getaffinity(0)), torch.cuda.device_count() if gpus else 0)
