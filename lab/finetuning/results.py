"""What fine-tuning has given, beside the record of the trial that it began from.

`finetune/<hash>.json` holds the runs of one task under one protocol; it is written again as each
seed ends, in one piece, so no seed is run twice.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path as File
from statistics import median

from lab import __version__
from lab.config.metrics import CHARGES, finetuned
from lab.config.results import MetricRow
from lab.config.trial import content_hash
from lab.finetuning.finetuner import FinetuneProtocol, Finetuner, FinetuneRun
from lab.storage import record
from lab.tasks.examples import Examples


class FinetuneResults:
    """The runs of one encoder on one task under one protocol.

    Args:
        folder: of the trial's record.
        task: what is learned.
        given: the protocol.
        steps: of pre-training behind the encoder.
    """

    def __init__(self, folder: File, task: Examples, given: FinetuneProtocol, steps: int) -> None:
        key = content_hash([task.fingerprint, asdict(given), steps, __version__])
        self.name = f"finetune/{key}.json"  # in the record
        self.file = folder / self.name
        self._score, self._metric = finetuned(task.name).name, task.form.metric
        self._about = {"task": task.name, "protocol": asdict(given), "steps": steps}

    def runs(self) -> dict[int, FinetuneRun]:
        """Return what there is, by seed."""
        try:
            said = json.loads(self.file.read_text())["runs"]
            return {run["seed"]: FinetuneRun(**run) for run in said}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):  # not what was written: it is made again
            return {}

    def keep(self, run: FinetuneRun) -> None:
        """Add a run."""
        runs = self.runs() | {run.seed: run}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        said = self._about | {"runs": [asdict(runs[seed]) for seed in sorted(runs)]}
        record.write_json(self.file, json.dumps(said, indent=2))

    def complete(self, seeds: int, tuner: Callable[[], Finetuner]) -> Iterator[FinetuneRun]:
        """Run the seeds that are missing of the first `seeds`; yield each once it is kept.

        Args:
            seeds: runs that there should be.
            tuner: called if any is missing.
        """
        known = self.runs()
        left = [seed for seed in range(seeds) if seed not in known]
        if not left:
            return
        ready = tuner()
        for seed in left:
            run = ready.run(seed)
            self.keep(run)
            yield run

    def summary(self, seeds: int) -> MetricRow | None:
        """Return what a trial's last point says of the first `seeds` runs; None if one is missing.

        Median, lowest and highest score, and all that they cost, by name.
        """
        known = self.runs()
        if not set(range(seeds)) <= known.keys():
            return None
        runs = [known[seed] for seed in range(seeds)]
        scores = [run.scores[self._metric] for run in runs]
        return {
            self._score: median(scores),
            f"{self._score}/low": min(scores),
            f"{self._score}/high": max(scores),
            f"{self._score}/flops": sum(run.flops for run in runs),
            f"{self._score}/seconds": sum(run.seconds for run in runs),
        }


def charge_finetuning(row: MetricRow) -> MetricRow:
    """Return what all tasks of a point cost together, as `finetune/flops` and `/seconds`."""
    return {
        f"finetune/{what}": sum(
            value for name, value in row.items() if re.fullmatch(f"finetune/[^/]+/{what}", name)
        )
        for what in CHARGES
    }
