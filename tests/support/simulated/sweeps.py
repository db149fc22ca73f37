"""A tracking store with simulated sweeps: learning curves, a failed trial and diverged ones."""

import dataclasses
from pathlib import Path

import numpy as np

from lab.config.experiment import Experiment, Job, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.loading.search_space import build_trial, expand_cells
from lab.tracking import store, tags

METRIC = "detect/bigram/auroc"
WIDTH = "objective.generator.width"
LR = "optim.lr"
BASE = {
    "encoder": {"size": "tiny"},
    "objective": {"kind": "electra"},
    "budget": {"kind": "flops", "amount": 1e12},
}


def build_experiment(name: str, compare: dict, tune: dict, repeats: int) -> Experiment:
    return Experiment(
        name=name,
        question="Does a <smaller> generator learn more per FLOP?",
        metric=METRICS[METRIC],
        base=BASE,
        compare=compare,
        tune=tune,
        search=SearchConfig(trials=6 if tune else 1, seeds=repeats),
        resources=Resources(),
    )


def build_curve(end: float, generator: np.random.Generator) -> tuple[MetricRow, ...]:
    """Return a learning curve from 0.5 at step 0 to `end` at 1e12 FLOPs."""
    rows = []
    for i in range(9):
        share = i / 8
        growth = 1 - np.exp(-4 * share)
        row = {
            f"spent/{k}": v * share
            for k, v in (
                ("tokens", 4e6),
                ("flops", 1e12),
                ("paper_flops", 1.4e12),
                ("six_n", 8e11),
                ("seconds", 120.0),
            )
        }
        row |= {
            "spent/steps": round(1_000 * share),
            METRIC: 0.5
            + (end - 0.5) * growth / (1 - np.exp(-4))
            + (generator.normal(0, 0.001) if i else 0),
            "detect/unigram/auroc": 0.5 + 0.3 * growth + generator.normal(0, 0.002),
            "probe/pos/accuracy": 0.6 + 0.2 * growth * end + generator.normal(0, 0.01),
        }
        if i:
            row |= {
                "train/discriminator_loss": 0.42 - 0.1 * growth + generator.normal(0, 0.004),
                "train/generator_loss": 6 - 2 * growth,
                "health/majority_loss": 0.41 - 0.02 * growth,
                "health/replacement_rate": 0.14 - 0.05 * growth,
                "health/recall_replaced": 0.4 * growth,
                "health/generator_accuracy": 0.25 * growth,
                "health/grad_norm_generator": 2 - growth,
                "health/grad_norm_discriminator": 1.5 - growth,
            }
        rows.append(row)
    return tuple(rows)


def outcome(rows: tuple[MetricRow, ...], state: State = "finished", reason: str = "") -> Outcome:
    return Outcome(state=state, reason=reason, rows=rows, started_at=1e9, seconds=140.0, busy=130.0)


def populate(
    uri: str,
    folder: Path,
    experiment: Experiment,
    effect: dict[float, float],
    data: str = "text-d41d8cd98f00 held-out-7215ee9c7d9d.npz",
) -> None:
    """Store a sweep of `experiment` with scores of 0.7 + effect of the width + noise."""
    writer = store.MlflowStore(uri, folder)
    texts = {
        tags.SPACE_FILE: "question: resolved\nbase:\n  batch: 128\n",
    }
    provenance = {
        "command": f"python -m lab.sweep {experiment.name}.yaml", "last_command.commit": "0123abc",
        "data": data,
    }  # fmt: skip
    writer.begin(experiment, provenance, texts)
    generator = np.random.default_rng(1)
    repeat_noise = generator.normal(0, 0.002, size=20)
    number = 0
    for cell in expand_cells(experiment):
        rates = (5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3) if experiment.tune else (None,)
        for role, repeat in [("search", 0)] * len(rates) + [
            ("repeat", i + 1) for i in range(experiment.search.seeds)
        ]:
            rate = rates[number % len(rates)] if role == "search" else 1.5e-3
            tuned = {LR: rate} if experiment.tune else {}
            trial = build_trial(BASE, cell | tuned)
            trial = dataclasses.replace(trial, seeds=trial.seeds.repeat(repeat))
            job = Job(number=number, role=role, cell=cell, tuned=tuned, repeat=repeat, trial=trial)
            loss = 0 if rate is None else 0.05 * np.log(rate / 1.5e-3) ** 2
            width = cell.get(WIDTH, 0.0)
            rows = build_curve(
                0.7
                + effect.get(width, 0.0)
                - loss
                + repeat_noise[repeat]
                + generator.normal(0, 0.002),
                generator,
            )
            end = outcome(rows)
            if rate == 5e-3:
                end = outcome(rows[:3], "diverged", "loss is nan at step 251")
            writer.sync(job, f"{number:012x}", end.state, end.rows, end)
            number += 1
    first, *_ = expand_cells(experiment)
    trial = build_trial(BASE, first)
    failed = Job(number=number, role="repeat", cell=first, tuned={}, repeat=99, trial=trial)
    writer.sync(failed, "f" * 12, "failed", (), outcome((), "failed", "out of memory"))
    writer.close(
        "finished", {"slots": 2.0, "wall_seconds": 900.0, "setup_seconds": 30.0, "slot_share": 0.93}
    )
