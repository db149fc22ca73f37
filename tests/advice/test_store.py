"""Advice from a tracking store, as a sweep writes it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from experiments import outcome

from lab import advise
from lab.config.experiment import Job
from lab.config.flops import encoder_weights, mean_cost
from lab.loading import search_space
from lab.scaling.law import Law
from lab.tracking import client, store, tags

METRIC = "mlm/nats_per_character"
LAW = Law(E=1.5, A=40.0, B=300.0, alpha=0.4, beta=0.45)
SPACE = {
    "question": "Which size?",
    "metric": METRIC,
    "base": {
        "encoder": {"size": "nano", "layers": 2},
        "objective": {"kind": "mlm"},
        "batch": 64,
        "optim": {"lr": {"rate": 1.2e-3, "parameters": {"at": 1e5, "exponent": -0.2}}},
        "budget": {"kind": "flops", "amount": 1e12},
    },
    "compare": {
        "encoder.size": ["nano32", "nano", "tiny"],
        "budget.amount": [5e11, 1e12, 2e12],
    },
    "search": {"seeds": 2},
}


def write_sweep(folder: Path) -> None:
    """Write a finished sweep whose losses follow the law to the default store of a storage."""
    rng = np.random.default_rng(0)
    experiment = search_space.check_experiment("scaling", dict(SPACE))
    writer = store.MlflowStore(client.default_uri(folder), folder)
    writer.begin(experiment, {"command": "sweep"}, {tags.SPACE_FILE: json.dumps(SPACE)})
    cells = search_space.expand_cells(experiment)
    for number, (cell, repeat) in enumerate((cell, n) for cell in cells for n in (1, 2)):
        trial = search_space.build_trial(experiment.base, cell)
        trial = dataclasses.replace(trial, seeds=trial.seeds.repeat(repeat))
        cost = mean_cost(trial)
        steps = round(trial.budget.amount / cost.flops)
        tokens = float(steps * cost.tokens)
        loss = LAW.loss(np.array(float(encoder_weights(trial.encoder))), np.array(tokens))
        spent = {"steps": steps, "tokens": tokens, "flops": steps * cost.flops, "seconds": 40.0}
        first = {f"spent/{key}": 0.0 for key in spent} | {METRIC: 9.0}
        last = {f"spent/{key}": float(value) for key, value in spent.items()}
        last[METRIC] = float(loss * np.exp(0.001 * rng.standard_normal()))
        end = dataclasses.replace(outcome(first, last), device="cpu")
        job = Job(number=number, role="repeat", cell=cell, tuned={}, repeat=repeat, trial=trial)
        writer.sync(job, f"{number:012x}", end.state, end.rows, end)
    writer.close("finished", {"slots": 2.0, "wall_seconds": 900.0})


def test_advice_from_a_store_of_a_finished_sweep(
    unsynced: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path)
    out = tmp_path / "advised.yaml"
    options = ["--flops", "2e13", "--storage", str(tmp_path), "--output", str(out)]
    status = advise.main(options)
    output, error = capsys.readouterr()
    assert status == 0, error
    assert "10 times the largest budget of scaling" in output
    assert "power law that gives all runs of scaling their rates" in output
    assert "measured: 6 own runs of 396,544 parameters" in output
    assert "the learning rate has no trend" in error
    trial = search_space.build_trial(search_space.load_experiment(out).base, {})
    expected = 1.2e-3 * (encoder_weights(trial.encoder) / 1e5) ** -0.2
    assert trial.optim.lr == pytest.approx(expected, rel=1e-2)
