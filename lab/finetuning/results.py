"""Results of fine-tuning, stored in the record of the pre-trained trial.

`finetune/<hash>.json` contains the runs of one encoder on one task under one protocol and one code.
It is rewritten atomically after each seed, so no finished seed is run again. A change of the code
that computes the scores gives the file another name, so the seeds are run again.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path as File
from statistics import fmean, median

from lab import __version__
from lab.config.code_digest import FINETUNING, code_digest
from lab.config.metrics import FINETUNING_COSTS, UNDEFINED, finetuned
from lab.config.results import MetricRow
from lab.config.trial import content_hash
from lab.finetuning.finetuner import FinetuneProtocol, Finetuner, FinetuneRun
from lab.finetuning.metrics import baseline_entry
from lab.storage import sealed
from lab.tasks.examples import Examples

_LOG = logging.getLogger(__name__)


class FinetuneResults:
    """The fine-tuning runs of one encoder on one task under one protocol, by the present code.

    Args:
        folder: folder of the trial's record.
        task: task of the fine-tuning.
        protocol: hyperparameters of the fine-tuning.
        steps: steps of the encoder's pre-training.

    Attributes:
        name: path of the file in the record.
        file: path of the file.
    """

    def __init__(
        self, folder: File, task: Examples, protocol: FinetuneProtocol, steps: int
    ) -> None:
        code = code_digest(FINETUNING)
        key = content_hash([task.fingerprint, asdict(protocol), steps, __version__, code])
        self.name = f"finetune/{key}.json"
        self.file = folder / self.name
        self._task, self._score = task, finetuned(task.name).name
        self._identity = {
            "task": task.name,
            "protocol": asdict(protocol),
            "steps": steps,
            "code": code,
        }

    def runs(self) -> dict[int, FinetuneRun]:
        """Return the stored runs by seed; none if the file is missing or damaged.

        A run without a score of the task's metric counts as missing.
        """
        try:
            runs = [FinetuneRun(**run) for run in sealed.read(self.file)["runs"]]
            return {run.seed: run for run in runs if self._task.config.metric in run.scores}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s: damaged: %s; its seeds are run again", self.file, error)
            return {}

    def save(self, run: FinetuneRun) -> None:
        """Add a run to the file."""
        runs = self.runs() | {run.seed: run}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        content = self._identity | {"runs": [asdict(runs[seed]) for seed in sorted(runs)]}
        sealed.write(self.file, content, indent=2)

    def complete(self, seeds: int, tuner: Callable[[], Finetuner]) -> Iterator[FinetuneRun]:
        """Run the seeds from 0 to `seeds` - 1 that are missing; yield each run once it is saved.

        Args:
            seeds: number of runs.
            tuner: function that builds the `Finetuner`; called only if a seed is missing.
        """
        stored = self.runs()
        missing = [seed for seed in range(seeds) if seed not in stored]
        if not missing:
            return
        finetuner = tuner()
        for seed in missing:
            run = finetuner.run(seed)
            self.save(run)
            yield run

    def summary(self, seeds: int) -> MetricRow | None:
        """Return the entries of these runs in a trial's last point; None if a run is missing.

        The entries are the median, lowest and highest score, the total FLOPs, the total seconds,
        and the score of the majority baseline (`metrics.majority_baseline`); and, if there are any,
        the number of runs whose score is undefined (`FinetuneRun`).

        Args:
            seeds: number of runs; their seeds are 0 to `seeds` - 1.
        """
        stored = self.runs()
        if not set(range(seeds)) <= stored.keys():
            return None
        runs = [stored[seed] for seed in range(seeds)]
        scores = [run.scores[self._task.config.metric] for run in runs]
        undefined = sum(bool(run.undefined) for run in runs)
        entries = {f"{self._score}/{UNDEFINED}": float(undefined)} if undefined else {}
        return (
            baseline_entry(self._task)
            | entries
            | {
                self._score: median(scores),
                f"{self._score}/low": min(scores),
                f"{self._score}/high": max(scores),
                f"{self._score}/flops": sum(run.flops for run in runs),
                f"{self._score}/seconds": sum(run.seconds for run in runs),
            }
        )

    def median_blocks(self, seeds: int) -> list[float]:
        """Return the contribution of each block of evaluation rows to the median score.

        They are those of the run with the median score, or the means of those of the two middle
        runs: on rows that differ little, the same runs are in the middle. Of equal scores, that of
        the lower seed is the lower one.

        Args:
            seeds: number of runs; their seeds are 0 to `seeds` - 1.

        Returns:
            An empty list if a run is missing, or if the contributions of a middle run are unknown.
        """
        stored = self.runs()
        if not set(range(seeds)) <= stored.keys():
            return []
        runs = [stored[seed] for seed in range(seeds)]
        runs.sort(key=lambda run: run.scores[self._task.config.metric])
        middle = [run.blocks for run in runs[(seeds - 1) // 2 : seeds // 2 + 1]]
        return list(map(fmean, zip(*middle, strict=True))) if all(middle) else []


def charge_finetuning(row: MetricRow) -> MetricRow:
    """Return the total cost of all tasks in a point, as `finetune/flops` and `finetune/seconds`.

    Args:
        row: point with the cost of each task, `finetune/<task>/flops` and `/seconds`.
    """
    return {
        f"finetune/{unit}": sum(
            value for name, value in row.items() if re.fullmatch(f"finetune/[^/]+/{unit}", name)
        )
        for unit in FINETUNING_COSTS
    }
