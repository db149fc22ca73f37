"""Finished sweeps over sizes and budgets in a storage: MLflow runs and records of a known law."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from lab.config.experiment import Experiment, Job, Resources, SearchConfig
from lab.config.flops import mean_cost
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome
from lab.config.trial import Trial, content_hash
from lab.loading.search_space import build_trial, expand_cells
from lab.reporting.scaling.parameter_counts import BLOCKS, count_parameters
from lab.scaling.law import Law
from lab.storage import identity, record
from lab.storage.mirror import LocalOnly
from lab.tracking import tags
from lab.tracking.client import default_uri
from lab.tracking.parameters import flatten_settings, parse_setting
from lab.tracking.store import MlflowStore

METRIC = "mlm/nats_per_character"
SIZES = ("nano32", "nano48", "nano96")
BUDGETS = (2.5e11, 5e11, 1e12, 2e12)
LAW = Law(E=1.5, A=40.0, B=300.0, alpha=0.4, beta=0.45)
_NOISE = 0.001  # of the log losses: added in odd repeats, subtracted in even ones


def store_sweep(
    storage: Path,
    budgets: Sequence[float] = BUDGETS,
    *,
    name: str = "scaling",
    sizes: Sequence[str] = SIZES,
    seeds: int = 2,
    began: float = 1e9,
    shift: float = 0.0,
) -> None:
    """Store a finished sweep: a run and a record for each trial.

    Args:
        storage: folder of the storage.
        budgets: compared budgets, in FLOPs.
        name: name of the sweep.
        sizes: compared sizes.
        seeds: number of repeats of each cell.
        began: Unix time at which the trials began.
        shift: difference of the log losses from the law.
    """
    storage.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(
        name=name,
        question="Which size is best at which budget?",
        metric=METRICS[METRIC],
        base={
            "encoder": {"layers": 2},
            "objective": {"kind": "mlm"},
            "batch": 64,
            "budget": {"kind": "flops", "amount": 1e12},
        },
        compare={"encoder.size": tuple(sizes), "budget.amount": tuple(budgets)},
        tune={},
        search=SearchConfig(seeds=seeds),
        resources=Resources(),
    )
    writer = MlflowStore(default_uri(storage), storage / "artifacts")
    known = identity.storage_identity(storage, LocalOnly())
    writer.begin(experiment, {}, {tags.SPACE_FILE: "a: 1\n"}, storage=known)
    number = 0
    for cell in expand_cells(experiment):
        for repeat in range(1, seeds + 1):
            trial = build_trial(experiment.base, cell)
            seeded = replace(trial, seeds=trial.seeds.repeat(repeat))
            job = Job(
                number=number, role="repeat", cell=cell, tuned={}, repeat=repeat, trial=seeded,
                compared=experiment.compare,
            )  # fmt: skip
            fingerprint = content_hash(asdict(seeded))
            rows = _rows(seeded, shift + (_NOISE if repeat % 2 else -_NOISE))
            end = Outcome(
                state="finished", reason="", rows=rows, started_at=began, seconds=9.0, busy=8.0
            )
            writer.sync(job, fingerprint, "finished", rows, end)
            _write_record(storage / "trials" / fingerprint, seeded, end)
            number += 1
    writer.close("finished", {"slots": 1.0})


def _rows(trial: Trial, noise: float) -> tuple[MetricRow, ...]:
    cost = mean_cost(trial)
    steps = round(trial.budget.amount / cost.flops)
    flat = {path: parse_setting(text) for path, text in flatten_settings(asdict(trial)).items()}
    parameters, tokens = count_parameters(flat)[BLOCKS], steps * cost.tokens
    loss = float(LAW.loss(np.array(parameters), np.array(tokens)) * np.exp(noise))
    spent = {"steps": steps, "tokens": tokens, "flops": steps * cost.flops, "seconds": 9.0}
    start = {f"spent/{name}": 0.0 for name in spent} | {METRIC: 9.0}
    return start, {f"spent/{name}": float(value) for name, value in spent.items()} | {METRIC: loss}


def _write_record(folder: Path, trial: Trial, outcome: Outcome) -> None:
    record.begin_record(folder, trial)
    record.write_rows(folder, outcome.rows)
    record.write_outcome(folder, outcome)
