"""What fine-tuning has given, beside the record of the trial that it began from.

`finetune/<hash>.json` holds the runs of one task under one protocol; it is written again as each
seed ends, in one piece, so no seed is run twice.
"""

import json
from dataclasses import asdict
from pathlib import Path as File
from statistics import median

from lab import __version__, record
from lab.examples import Examples
from lab.finetuning import Protocol, Tuned
from lab.spec import content_hash


class Ledger:
    """The runs of one encoder on one task under one protocol.

    Args:
        folder: of the trial's record.
        task: what is learned.
        given: the protocol.
        steps: of pre-training behind the encoder.
    """

    def __init__(self, folder: File, task: Examples, given: Protocol, steps: int) -> None:
        key = content_hash([task.fingerprint(), asdict(given), steps, __version__])
        self.file = folder / "finetune" / f"{key}.json"
        self._about = {"task": task.name, "protocol": asdict(given), "steps": steps}

    def runs(self) -> dict[int, Tuned]:
        """Return what there is, by seed."""
        try:
            said = json.loads(self.file.read_text())["runs"]
            return {run["seed"]: Tuned(**run) for run in said}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):  # not what was written: it is made again
            return {}

    def keep(self, run: Tuned) -> None:
        """Add a run."""
        runs = self.runs() | {run.seed: run}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        said = self._about | {"runs": [asdict(runs[seed]) for seed in sorted(runs)]}
        record.write(self.file, json.dumps(said, indent=2))


def middle(runs: list[Tuned], metric: str) -> float:
    """Return the median score over seeds."""
    return median(run.scores[metric] for run in runs)
