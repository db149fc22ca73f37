"""Count the trials of a sweep that its storage already holds, without writing to it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any, NamedTuple

from lab.config.data import DataConfig
from lab.config.experiment import Experiment, shorten
from lab.config.metrics import finetuned
from lab.config.preparatory_runs import preparatory_runs, unstarted_identity
from lab.config.trial import Path, Trial
from lab.errors import UserError
from lab.loading import search_space
from lab.loading.task_table import load_task
from lab.search.designs import Stage, list_stages
from lab.search.feasibility import count_infeasible
from lab.storage import record

_ENDED = ("finished", "diverged")  # states of trials that the same command does not run again


@dataclass(frozen=True, kw_only=True)
class FinishedTrials:
    """Number of trials of one stage of a cell that need no more training.

    Attributes:
        trained: number of trials that need no more training.
        finetuned: number of these that need no fine-tuning either, as those at rungs.
    """

    trained: int
    finetuned: int


@dataclass(frozen=True, kw_only=True)
class TrialIdentities:
    """Identities of the inputs of trials that read the same texts (`TrialInputs.identity`).

    Attributes:
        scratch: identity of the inputs without initial weights.
        started: identities with each file of initial weights in the cache.
    """

    scratch: str
    started: tuple[str, ...] = ()

    def names(self, trial: Trial) -> Iterator[str]:
        """Yield all names that the record of a trial can have."""
        yield from map(trial.fingerprint, (self.scratch, *self.started))
        for run in set(preparatory_runs(trial).values()):  # names where this run did not finish
            yield trial.fingerprint(unstarted_identity(self.scratch, self.name_of_run(run)))

    def name_of_run(self, run: Trial) -> str:
        """Return the name of the record of a preparatory run, which has random initial weights."""
        return run.fingerprint(self.scratch)


# By the texts that trials read, where all of the texts and their held-out corruptions exist.
Prepared = Mapping[tuple[DataConfig, ...], TrialIdentities]


def has_ended(run: Trial, storage: File, prepared: Prepared) -> bool:
    """Return whether a preparatory run needs no more training."""
    identities = prepared.get(run.data_configs)
    name = None if identities is None else identities.name_of_run(run)
    return name is not None and record.read_state(storage / "trials" / name) in _ENDED


def count_finished(
    experiment: Experiment, storage: File, prepared: Prepared
) -> tuple[FinishedTrials, ...]:
    """Return the number of finished trials of each stage of each cell, as `plan.plan_cells`.

    A record is counted where its folder has the name that the sweep would give it, and its settings
    equal those of a cell, except for nuisance parameters. Its seeds must be those of a repeat or of
    the search.

    Args:
        experiment: experiment to run.
        storage: folder of records and caches; need not exist.
        prepared: identities of the trials' inputs, by texts.
    """
    jobs = _list_jobs(experiment)
    finished: dict[_Job, dict[str, bool]] = {}
    for folder in sorted((storage / "trials").glob("*")):
        trial = _read_ended(folder, prepared)
        for job in () if trial is None else jobs.get(_key(trial, experiment), ()):
            trials = finished.setdefault(job, {})
            trials[folder.name] = job.share < 1 or _is_finetuned(experiment, folder)
    return tuple(
        _count_stage(number, stage, finished)
        for number, cell in enumerate(search_space.expand_cells(experiment))
        for stage in list_stages(experiment, count_infeasible(experiment, cell))
    )


class _Job(NamedTuple):
    """Cell, repeat and budget of search trials that differ in their nuisance parameters only.

    Attributes:
        cell: number of the cell.
        repeat: number of the repeat.
        share: share of the full budget, below 1 at a rung.
    """

    cell: int
    repeat: int
    share: float


def _count_stage(
    cell: int, stage: Stage, finished: Mapping[_Job, dict[str, bool]]
) -> FinishedTrials:
    trained = finetuned = 0
    for repeat, most in stage.trials.items():
        trials = list(finished.get(_Job(cell, repeat, stage.share), {}).values())
        trained += min(most, len(trials))
        finetuned += min(most, sum(trials))
    return FinishedTrials(trained=trained, finetuned=finetuned)


def _list_jobs(experiment: Experiment) -> dict[str, set[_Job]]:
    """Return the jobs by the `_key` of their trials.

    Two cells share a trial if the budget at a rung of one cell is the full budget of the other.
    """
    jobs: dict[str, set[_Job]] = {}
    for number, cell in enumerate(search_space.expand_cells(experiment)):
        full = search_space.build_trial(experiment.base, cell)
        for stage in list_stages(experiment):
            trial = shorten(full, stage.share)
            for repeat in stage.trials:
                key = _key(trial, experiment, repeat)
                jobs.setdefault(key, set()).add(_Job(number, repeat, stage.share))
    return jobs


def _key(trial: Trial, experiment: Experiment, repeat: int = 0) -> str:
    """Return the settings of a trial with the seeds of a repeat, without nuisance parameters."""
    settings = asdict(trial) | {"seeds": asdict(trial.seeds.repeat(repeat))}
    for path in experiment.tune:
        _remove(settings, path)
    return json.dumps(settings, sort_keys=True)


def _remove(settings: dict[str, Any], path: Path) -> None:
    """Remove a path; a trial of another objective may lack it, or have a number at a part of it."""
    *above, last = path.split(".")
    inner: Any = settings
    for name in above:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(last, None)


def _read_ended(folder: File, prepared: Prepared) -> Trial | None:
    """Return the trial of a record; None where it has not ended or is not one of the sweep."""
    if record.read_state(folder) not in _ENDED or record.read_outcome(folder) is None:
        return None
    try:
        trial, _ = record.read_trial(folder)
    except UserError:  # record of another version of the lab
        return None
    identities = prepared.get(trial.data_configs)
    return trial if identities is not None and folder.name in identities.names(trial) else None


def _is_finetuned(experiment: Experiment, folder: File) -> bool:
    """Return whether a trial needs no fine-tuning: it has all scores, or has diverged."""
    if record.read_state(folder) == "diverged":
        return True
    last = (record.read_curve(folder) or ({},))[-1]
    tasks = (load_task(name).name for name in experiment.finetune.tasks)
    return all(finetuned(task).name in last for task in tasks)
