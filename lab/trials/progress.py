"""Progress of a running trial: a small file in its record that the driver reads for its display.

The file is written every few seconds at most. It has no meaning once the trial has ended.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path as File

from lab.storage import atomic, regular_files
from lab.storage.mirror import Mirror, MirrorError

NAME = "progress"
TRAINING = "training"
UNTRAINED, TRAINED = "scoring the untrained encoder", "scoring the trained encoder"


@dataclass(frozen=True, kw_only=True)
class PhaseProgress:
    """Progress within the present phase of a trial.

    Attributes:
        phase: description of the phase.
        share: finished share of the phase, from 0 to 1; None if it is unknown.
    """

    phase: str
    share: float | None = None


def finetuning_phase(task: str) -> str:
    """Return the description of the phase of fine-tuning on a task."""
    return f"fine-tuning on {task}"


# Callback that reports the description of a phase and its finished share.
Tell = Callable[[str, float | None], None]


def ignore_progress(phase: str, share: float | None) -> None:
    """Ignore a progress report."""


class ProgressReporter:
    """Writes the progress of a trial to its record: new phases at once, shares once per pause.

    Args:
        folder: folder of the trial's record.
        mirror: mirror that synchronizes the record with the storage.
    """

    def __init__(self, folder: File, mirror: Mirror) -> None:
        self._file, self._mirror = folder / NAME, mirror
        self._phase, self._written_at = "", 0.0

    def __call__(self, phase: str, share: float | None) -> None:
        """Write the phase and its finished share, unless the phase was written a moment ago.

        Args:
            phase: description of the phase.
            share: finished share of the phase, from 0 to 1; None if it is unknown.
        """
        now = time.monotonic()
        if phase == self._phase and now - self._written_at < self._mirror.pause:
            return
        self._phase, self._written_at = phase, now
        with suppress(OSError, MirrorError):  # a trial must not fail because of the display
            text = json.dumps(asdict(PhaseProgress(phase=phase, share=share)))
            atomic.write_text(self._file, text, durable=False)
            self._mirror.push(self._file)


def read_progress(folder: File) -> PhaseProgress | None:
    """Return the progress in a record; None if the file is missing or damaged."""
    try:
        return PhaseProgress(**json.loads(regular_files.read_text(folder / NAME)))
    except (OSError, ValueError, TypeError):
        return None


def clear_progress(folder: File) -> None:
    """Delete the progress file of an earlier run of the trial."""
    (folder / NAME).unlink(missing_ok=True)
