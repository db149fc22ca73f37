"""How far a running trial is: a small file in its record, which the driver reads for its display.

It is written every few seconds at most, and means nothing once the trial has ended.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path as File

from lab.storage.mirror import Mirror, MirrorError

NAME = "progress"
TRAINING = "training"
UNTRAINED, TRAINED = "scoring the untrained encoder", "scoring the trained encoder"


@dataclass(frozen=True, kw_only=True)
class PhaseProgress:
    """A phase of a trial.

    Attributes:
        phase: what the trial does, in words.
        share: of the phase that is done, from 0 to 1; None where it is not counted.
    """

    phase: str
    share: float | None = None


def finetuning_phase(task: str) -> str:
    """Return the phase of fine-tuning on a task."""
    return f"fine-tuning on {task}"


Tell = Callable[[str, float | None], None]


def ignore_progress(phase: str, share: float | None) -> None:
    """Discard the report."""


class ProgressReporter:
    """Writes down how far a trial is: each new phase, and its share now and then.

    Args:
        folder: of the trial's record.
        mirror: what keeps it equal to a storage that is no folder.
    """

    def __init__(self, folder: File, mirror: Mirror) -> None:
        self._file, self._mirror = folder / NAME, mirror
        self._phase, self._at = "", 0.0

    def __call__(self, phase: str, share: float | None) -> None:
        """Note a phase and the share of it that is done."""
        now = time.monotonic()
        if phase == self._phase and now - self._at < self._mirror.pause:
            return
        self._phase, self._at = phase, now
        partial = self._file.with_name(f"{NAME}.partial")
        with suppress(OSError, MirrorError):  # no trial is lost to its display
            partial.write_text(json.dumps(asdict(PhaseProgress(phase=phase, share=share))))
            partial.replace(self._file)
            self._mirror.push(self._file)


def read_progress(folder: File) -> PhaseProgress | None:
    """Return how far the trial of a record is; None where it does not say."""
    try:
        return PhaseProgress(**json.loads((folder / NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def clear_progress(folder: File) -> None:
    """Remove what an earlier run of the trial has left."""
    (folder / NAME).unlink(missing_ok=True)
