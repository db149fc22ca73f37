"""Frames of sweeps with given scores, to compare sweeps without a tracking store."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from simulated.sweeps import METRIC

from lab.reporting.comparison.sweep_results import SweepResult, read_result
from lab.tracking import tags
from lab.tracking.code_versions import CodeVersion
from lab.tracking.frames import SweepFrames

WEIGHT = "objective.disc_weight"
SETTINGS: dict[str, Any] = {
    "budget.kind": "flops", "budget.amount": 1e12, "evaluations": 4, "batch": 64,
    "data.source.kind": "embedded", "data.share": 1.0, "data.vocab": 2_048, "data.length": 16,
    "objective.kind": "electra", "encoder.hidden": 32, "encoder.layers": 2,
}  # fmt: skip
FIRST = {"a": [0.71, 0.73, 0.70, 0.76], "b": [0.70, 0.60, 0.69, 0.81]}
SECOND = {"c": [0.62, 0.63, 0.62]}
DATA = "text-1a2b held-out-3c4d.npz pairs-5e6f.json"


def sweep(
    name: str,
    scores: Mapping[str, Sequence[float]],
    metric: str = METRIC,
    settings: Mapping[str, Any] = SETTINGS,
    **changes: str,
) -> SweepFrames:
    """Return the frames of a sweep without tuned settings; NaN is the score of a failed trial.

    Args:
        name: name of the sweep.
        scores: scores of the repeats of each cell, by label.
        metric: ranking metric.
        settings: settings of all trials.
        changes: tags of the sweep that differ.
    """
    weights = [float(cell + 1) for cell in range(len(scores))]
    rows = [
        {
            "number": 100 * cell + repeat, "fingerprint": f"{name}{cell}-{repeat}", "run_id": "",
            "state": "failed" if math.isnan(score) else "finished", "reason": "", "role": "repeat",
            "repeat": repeat, "cell": label, "tuned": "", "score": score, "untrained": 0.5,
            "achieved": 1.0, "device": "cpu", "shared": False, tags.CODE: "c0de",
            **dict.fromkeys(tags.PROCESS, ""), tags.MASKED: "", **settings, WEIGHT: weights[cell],
            metric: score, "spent/flops": 1e12, "spent/steps": 10, "spent/tokens": 1e6,
        }
        for cell, (label, of_cell) in enumerate(scores.items())
        for repeat, score in enumerate(of_cell, 1)
    ]  # fmt: skip
    trials = pd.DataFrame(rows)
    own_tags = {
        tags.METRIC: metric, tags.ANSWER: "ranking", tags.STATE: "finished", tags.QUESTION: "Why?",
        tags.COMPARE: json.dumps({WEIGHT: weights}), tags.TUNE: "{}", tags.DATA: DATA,
        tags.REFERENCE: json.dumps({WEIGHT: weights[0]}),
    }  # fmt: skip
    curves = trials[["number", metric, "spent/flops", "spent/tokens"]].assign(step=10)
    return SweepFrames(
        name=name, sweep=own_tags | changes, measures={}, texts={}, trials=trials, curves=curves,
        codes=(CodeVersion(code="c0de", trials=len(trials), commits=()),),
    )  # fmt: skip


def read(*sweeps: SweepFrames) -> list[SweepResult]:
    """Return the sweeps with the answers of their own reports."""
    return [read_result(each) for each in sweeps]
