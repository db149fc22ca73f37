"""The values of an evaluation as points of MLflow's metrics.

The time of a point is the start of the run plus the training time, so that the time axis of the
MLflow UI shows seconds of training. The other axis of the UI is an integer step, hence all scores
and training losses are stored again with GFLOPs as steps, and the ranking metric with thousands of
tokens as well.
"""

import math
from collections.abc import Iterator
from typing import Any

from lab.config.metrics import find_metric
from lab.config.results import MetricRow
from lab.tracking import tags

STEPS = "spent/steps"
BATCH = 800  # points per request; MLflow allows 1,000
MetricPoint = tuple[str, float, int, int]  # name, value, step, Unix time in milliseconds


def list_points(row: MetricRow, began: int, ranking: str) -> Iterator[MetricPoint]:
    """Yield each finite value of an evaluation, and its copies for other axes.

    Args:
        row: the evaluation.
        began: start of the run (Unix time in milliseconds).
        ranking: name of the ranking metric.
    """
    when, step, gflops = _time(row, began), int(row[STEPS]), int(row["spent/flops"] / 1e9)
    for name, value in row.items():
        if not math.isfinite(value):
            continue
        yield name, value, step, when
        if find_metric(name) is not None:
            yield f"{tags.BY_GFLOPS}{name}", value, gflops, when
        if name == ranking:
            yield f"{tags.BY_KTOKENS}{name}", value, int(row["spent/tokens"] / 1e3), when


def link_scores(client: Any, run: Any, model: str, row: MetricRow) -> None:
    """Link the scores and training losses of an evaluation with a logged model.

    The points are those that the run of the trial has already, so MLflow stores no further ones.

    Args:
        client: MLflow client.
        run: MLflow run of the trial.
        model: identity of the logged model with the weights that were evaluated.
        row: the evaluation; nothing is linked if it is empty.
    """
    from mlflow.entities import Metric

    linked = [
        Metric(name, value, _time(row, run.info.start_time), int(row[STEPS]), model_id=model)
        for name, value in row.items()
        if find_metric(name) is not None and math.isfinite(value)
    ]
    for start in range(0, len(linked), BATCH):
        client.log_batch(run.info.run_id, metrics=linked[start : start + BATCH])


def _time(row: MetricRow, began: int) -> int:
    return began + round(1_000 * row.get("spent/seconds", 0.0))
