"""Values of the tags of MLflow runs that describe a sweep, its trials and their ends."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lab.config.code_digest import TRIAL, code_digest
from lab.config.experiment import Experiment, Job
from lab.config.mask_counts import describe_masks
from lab.config.metrics import untrained_name
from lab.config.results import Outcome
from lab.config.schedules.trunks import name_trunk
from lab.config.trial import Path, Value, content_hash
from lab.loading.error_messages import SpaceError
from lab.loading.search_space import build_trial, expand_cells
from lab.storage.provenance import Provenance
from lab.tracking import tags


def sweep_identity(experiment: Experiment) -> str:
    """Return the hash of an experiment; options without effect are no part of it.

    So the sweeps of experiments without them keep their runs if the lab gets the options.
    """
    settings = asdict(experiment)
    if not _limits(experiment):
        del settings["constraints"]
    if experiment.cost is None:
        del settings["cost"]
    if not experiment.search.prior:
        del settings["search"]["prior"]
    return content_hash(settings)


def _limits(experiment: Experiment) -> dict[str, float]:
    limits = asdict(experiment.constraints)
    return {name: limit for name, limit in limits.items() if limit is not None}


def sweep_tags(experiment: Experiment, identity: str, storage: str, opened: int) -> dict[str, str]:
    """Return the tags of a sweep's run, by complete name.

    Args:
        experiment: resolved experiment.
        identity: hash of the experiment.
        storage: identity of the storage with the records; empty if there is none.
        opened: Unix time in milliseconds.
    """
    tune = {path: asdict(distribution) for path, distribution in experiment.tune.items()}
    values = {
        tags.KIND: tags.KIND_SWEEP,
        tags.SWEEP: identity,
        tags.STORAGE: storage,
        tags.QUESTION: experiment.question,
        tags.METRIC: experiment.metric.name,
        tags.ANSWER: experiment.answer,
        tags.COMPARE: json.dumps(experiment.compare),
        tags.REFERENCE: json.dumps(_reference(experiment)),
        tags.TUNE: json.dumps(tune),
        tags.SEARCH: json.dumps(asdict(experiment.search)),
        tags.STATE: "running",
        tags.OPENED: str(opened),
        f"{tags.LAST_COMMAND}{tags.CODE}": code_digest(TRIAL),
    }
    if limits := _limits(experiment):
        values[tags.CONSTRAINTS] = json.dumps(limits)
    if experiment.cost is not None:
        values[tags.COST] = experiment.cost
    return tags.add_prefix(values) | {tags.NOTE: experiment.question}


def end_tags(outcome: Outcome) -> dict[str, str]:
    """Return the tags of a trial that has ended, but its state, by short name."""
    return {
        tags.REASON: outcome.reason,
        tags.BEGAN: f"{outcome.started_at:.3f}",
        tags.DEVICE: outcome.device,
        tags.SHARED: str(outcome.shared),
    }


def block_tags(blocks: Mapping[str, Sequence[float]], metric: str) -> dict[str, str]:
    """Return the contributions of blocks that the report of a sweep needs, by short name.

    Args:
        blocks: contribution of each block of the test set to the final value of each score, and to
            its value at step 0 (`metrics.untrained_name`).
        metric: ranking metric; of the values at step 0, only its own is needed.
    """
    needless = {untrained_name(name) for name in blocks} - {untrained_name(metric)}
    return {
        f"{tags.BLOCKS}{name}": json.dumps(list(values))
        for name, values in blocks.items()
        if name not in needless
    }


def job_tags(job: Job, fingerprint: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a trial's run with the state `STATE_NEW`, by complete name.

    Args:
        job: job of the trial.
        fingerprint: fingerprint of the trial.
        more: further tags, by short name.
    """
    values: dict[str, str] = {
        tags.FINGERPRINT: fingerprint,
        tags.NUMBER: str(job.number),
        tags.KIND: tags.KIND_TRIAL,
        tags.STATE: tags.STATE_NEW,
        tags.REASON: "",
        tags.CELL: json.dumps(job.cell),
        tags.TUNED: json.dumps(job.tuned),
        tags.ROLE: job.role,
        tags.REPEAT: str(job.repeat),
        tags.MASKED: describe_masks(job.trial),
        tags.CODE: code_digest(TRIAL),
    }
    if (trunk := name_trunk(job.trial)) is not None:
        values[tags.TRUNK] = trunk
    if job.rung is not None:
        values[tags.RUNG] = json.dumps(job.rung)
    if job.cost is not None:
        values[tags.COST_VALUE] = json.dumps(job.cost)
    if job.proposed_by:
        values[tags.PROPOSED_BY] = job.proposed_by
    return tags.add_prefix(values | dict(more))


def process_tags(entry: Provenance) -> dict[str, str]:
    """Return the values of the tags `tags.PROCESS` for one process, by tag."""
    threads = "" if entry.threads is None else str(entry.threads)
    fields = asdict(entry) | {"dirty": str(entry.dirty).lower(), "threads": threads}
    return {name: fields[name] for name in tags.PROCESS}


def _reference(experiment: Experiment) -> dict[Path, Value]:
    """Return the cell that equals the base, or the first cell if none does."""
    grid = expand_cells(experiment)
    try:
        base = build_trial(experiment.base, {})
        return next((cell for cell in grid if build_trial(experiment.base, cell) == base), grid[0])
    except SpaceError:  # the base may be incomplete: `compare` gives the missing settings
        return grid[0]
