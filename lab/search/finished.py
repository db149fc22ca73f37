"""Which of a sweep's runs its storage already holds, without writing anything."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any

from lab.config.data import DataConfig
from lab.config.experiment import Experiment
from lab.config.metrics import finetuned
from lab.config.preparatory_runs import preparatory_runs, unstarted_identity
from lab.config.trial import Path, Trial
from lab.errors import UserError
from lab.loading import search_space
from lab.loading.task_table import load_task
from lab.search.designs import search_points
from lab.storage import record

_ENDED = ("finished", "diverged")  # what the same command does not run again


@dataclass(frozen=True, kw_only=True)
class FinishedTrials:
    """Runs of one cell that need no more training.

    Attributes:
        trained: how many.
        finetuned: how many of them have the score of every task too.
    """

    trained: int
    finetuned: int


@dataclass(frozen=True, kw_only=True)
class TrialIdentities:
    """What names the inputs of trials that read the same texts (`Supply.identity`).

    Attributes:
        scratch: where chance draws all weights.
        started: where weights are read, for each file of them in the cache.
    """

    scratch: str
    started: tuple[str, ...] = ()

    def names(self, trial: Trial) -> Iterator[str]:
        """Yield the names that the record of a trial can have."""
        yield from map(trial.fingerprint, (self.scratch, *self.started))
        for run in set(preparatory_runs(trial).values()):  # where one did not finish
            yield trial.fingerprint(unstarted_identity(self.scratch, self.name_of_run(run)))

    def name_of_run(self, run: Trial) -> str:
        """Return the name of the record of a preparatory run, which starts from scratch."""
        return run.fingerprint(self.scratch)


Prepared = Mapping[
    tuple[DataConfig, ...], TrialIdentities
]  # where all exist, by the texts that trials read


def has_ended(run: Trial, storage: File, prepared: Prepared) -> bool:
    """Return whether a preparatory run needs no more training."""
    known = prepared.get(run.texts)
    name = None if known is None else known.name_of_run(run)
    return name is not None and record.read_state(storage / "trials" / name) in _ENDED


def count_finished(
    experiment: Experiment, storage: File, prepared: Prepared
) -> tuple[FinishedTrials, ...]:
    """Return the finished runs of each cell, in the order of `space.cells`.

    A record counts where its folder is named by the fingerprint that the sweep would give it, and
    its settings are a cell's apart from nuisances and seeds.

    Args:
        experiment: what is asked.
        storage: of the records; need not exist.
        prepared: texts, corruptions and weights to start from.
    """
    wanted = _wanted(experiment)
    found: dict[tuple[int, int], dict[str, bool]] = {}
    for folder in sorted((storage / "trials").glob("*")):
        trial = _ended(folder, prepared)
        place = None if trial is None else wanted.get(_key(trial, experiment))
        if place is not None:
            found.setdefault(place, {})[folder.name] = _is_finetuned(experiment, folder)
    return tuple(
        _of_cell(experiment, cell, found)
        for cell in range(len(search_space.expand_cells(experiment)))
    )


def _of_cell(
    experiment: Experiment, cell: int, found: Mapping[tuple[int, int], dict[str, bool]]
) -> FinishedTrials:
    trained = complete = 0
    for repeat in range(experiment.search.seeds + 1):
        runs = list(found.get((cell, repeat), {}).values())
        room = 1 if repeat else search_points(experiment)
        trained += min(room, len(runs))
        complete += min(room, sum(runs))
    return FinishedTrials(trained=trained, finetuned=complete)


def _wanted(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """Return cell and repeat by what a trial's configuration must be, nuisances left out."""
    return {
        _key(trial, experiment, repeat): (number, repeat)
        for number, cell in enumerate(search_space.expand_cells(experiment))
        for trial in [search_space.build_trial(experiment.base, cell)]
        for repeat in range(experiment.search.seeds + 1)
    }


def _key(trial: Trial, experiment: Experiment, repeat: int = 0) -> str:
    settings = asdict(trial) | {"seeds": asdict(trial.seeds.repeat(repeat))}
    for path in experiment.tune:
        _remove(settings, path)
    return json.dumps(settings, sort_keys=True)


def _remove(settings: dict[str, Any], path: Path) -> None:
    """Remove a path; a trial of another objective may lack it, or hold a number on the way."""
    *above, last = path.split(".")
    inner: Any = settings
    for name in above:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(last, None)


def _ended(folder: File, prepared: Prepared) -> Trial | None:
    if record.read_state(folder) not in _ENDED:
        return None
    try:
        trial, _ = record.read_trial(folder)
    except UserError:  # of another version
        return None
    known = prepared.get(trial.texts)
    return trial if known is not None and folder.name in known.names(trial) else None


def _is_finetuned(experiment: Experiment, folder: File) -> bool:
    """Return whether a trial needs no fine-tuning any more; one that diverged gets none."""
    if record.read_state(folder) == "diverged":
        return True
    last = (record.read_curve(folder) or ({},))[-1]
    tasks = (load_task(name).name for name in experiment.finetune.tasks)
    return all(finetuned(task).name in last for task in tasks)
