"""Work as the driver hands it to whatever carries it out."""

import os
from dataclasses import dataclass
from pathlib import Path as File
from typing import Protocol

from lab.errors import UserError
from lab.metrics import Metric
from lab.spec import Resources, Trial


@dataclass(frozen=True, kw_only=True)
class Work:
    """A trial, ready to run: everything is in place on storage that all machines see.

    Attributes:
        trial: what to run.
        folder: of its record and its checkpoints.
        text: folder of the prepared text.
        held_out: file of the frozen corruptions.
        metric: what ranks trials here, and so which checkpoint is kept as the best.
    """

    trial: Trial
    folder: File
    text: File
    held_out: File
    metric: Metric


class Source(Protocol):
    """Where work comes from and where its ends are told, all in the driver's one thread.

    Attributes:
        stop_file: while it exists, running trials save their state and end.
    """

    stop_file: File

    def next(self) -> Work | None:
        """Return work for a free slot; None where there is none now."""

    def done(self) -> bool:
        """Return whether no work is left and none is out."""

    def scored(self, work: Work) -> None:
        """Hear that a new point stands in the work's record."""

    def ended(self, work: Work, error: str | None) -> None:
        """Hear that work has ended; `error` where its process died before it could record it."""


def slots(resources: Resources) -> int:
    """Return how many trials run at once on this machine."""
    if resources.slots:
        return resources.slots
    at_once = _cores() // resources.cpus
    if resources.gpus:
        at_once = min(at_once, int(_gpus() / resources.gpus))
    return max(1, at_once)


def check(resources: Resources) -> None:
    """Refuse resources of which this machine cannot serve one trial: it would wait for ever.

    Raises:
        UserError: names what is asked and what there is.
    """
    if resources.cpus > _cores():
        raise UserError(f"resources.cpus: {resources.cpus}, and this machine has {_cores()}")
    if resources.gpus and resources.gpus > _gpus():
        raise UserError(f"resources.gpus: {resources.gpus:g}, and this machine has {_gpus()}")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _gpus() -> int:
    import torch  # only where a GPU is asked for: it takes seconds

    return torch.cuda.device_count()
