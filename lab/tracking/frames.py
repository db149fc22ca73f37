"""MLflow -> tidy pandas: one row a trial, one row a scored point.

A pure function of the store: the same store gives the same frames, in the same order.
"""

import json
from dataclasses import dataclass
from pathlib import Path as File
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from lab.config.labels import label
from lab.config.metrics import Metric, named
from lab.config.trial import Path, Value
from lab.errors import UserError
from lab.tracking.client import connect_client, database_file
from lab.tracking.store import SUPERSEDED

BASE = "base"  # the only cell's name where nothing is compared
_TEXTS = ("space.yaml", "environment.txt", "diff.patch")


class FramesError(UserError):
    """Nothing can be read under that name; the message is one line for a person."""


@dataclass(frozen=True, kw_only=True)
class SweepFrames:
    """One sweep as the store holds it.

    Attributes:
        name: of the experiment.
        sweep: the parent run's tags without `lab.`: question, metric, state, command, ...
        measures: the parent run's numbers: slots, wall_seconds, ...
        texts: artifact files, name to content; empty where the store cannot serve them.
        trials: one row a trial by number: number, fingerprint, run_id, state, reason, role,
            repeat, cell, tuned (labels), score (ranking metric at the end; NaN unless
            finished), untrained (the same at step 0), achieved (share of the budget), device,
            shared (whether other trials used it too: its seconds compare with none), every
            parameter by dotted path, every last number by metric name.
        curves: one row a scored point by number and step: number, fingerprint, step, and
            every metric by name (NaN where it was not finite or not taken).
    """

    name: str
    sweep: dict[str, str]
    measures: dict[str, float]
    texts: dict[str, str]
    trials: pd.DataFrame
    curves: pd.DataFrame

    @property
    def metric(self) -> Metric:
        """What ranks the trials."""
        metric = named(self.sweep["metric"])
        assert metric is not None  # noqa: S101 - a search space was checked
        return metric

    @property
    def answer(self) -> str:
        """What the card concludes (`spec.Answer`); sweeps before 0.3.0 are rankings."""
        return self.sweep.get("answer", "ranking")

    @property
    def compare(self) -> dict[Path, list[Value]]:
        """Compared values by path."""
        return dict(json.loads(self.sweep["compare"]))

    @property
    def tune(self) -> dict[Path, dict[str, Any]]:
        """Distributions of the nuisances by path, as mappings of their fields."""
        return dict(json.loads(self.sweep["tune"]))

    @property
    def reference(self) -> str:
        """Label of the cell that equals the base; of the first where none does."""
        return label(json.loads(self.sweep["reference"]), self.compare) or BASE


def load_frames(uri: str, name: str) -> SweepFrames:
    """Read the sweep that was opened last under `name`.

    Raises:
        FramesError: there is none.
        StoreError: the store cannot be read.
    """
    file = database_file(uri)
    if file is not None and not file.is_file():
        raise FramesError(f"{file}: no such store; run a sweep, or name one with --tracking-uri")
    client = connect_client(uri)
    experiment = client.get_experiment_by_name(name)
    parents = [] if experiment is None else _runs(client, experiment.experiment_id, _IS_SWEEP)
    if not parents:
        raise FramesError(f"{name}: nothing is stored under that name; there is {_names(client)}")
    parent = max(parents, key=lambda run: int(run.data.tags["lab.opened"]))
    sweep = _tags(parent)
    children = _runs(
        client, experiment.experiment_id, f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    children.sort(key=lambda run: (int(run.data.tags["lab.number"]), run.info.run_id))
    _renumber(children)
    curves = _curves(client, children)
    return SweepFrames(
        name=name,
        sweep=sweep,
        measures=dict(sorted(parent.data.metrics.items())),
        texts=_read_texts(client, parent.info.run_id),
        trials=_trials(children, curves, sweep["metric"], json.loads(sweep["compare"])),
        curves=curves,
    )


def _renumber(runs: list[Any]) -> None:
    """Give runs that another stands for the numbers after all others."""
    free = max((int(run.data.tags["lab.number"]) for run in runs), default=0) + 1
    for place, run in enumerate(r for r in runs if r.data.tags["lab.role"] == SUPERSEDED):
        run.data.tags["lab.number"] = str(free + place)
    runs.sort(key=lambda run: int(run.data.tags["lab.number"]))


_IS_SWEEP = "tags.`lab.kind` = 'sweep'"


def _runs(client: Any, experiment: str, query: str) -> list[Any]:
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], query, max_results=1_000, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _names(client: Any) -> str:
    names = sorted(experiment.name for experiment in client.search_experiments())
    return ", ".join(name for name in names if name != "Default") or "nothing yet"


def _tags(run: Any) -> dict[str, str]:
    tags = sorted(run.data.tags.items())
    return {key.removeprefix("lab."): text for key, text in tags if key.startswith("lab.")}


def _read_texts(client: Any, run: str) -> dict[str, str]:
    stored = {file.path for file in client.list_artifacts(run)}
    with TemporaryDirectory() as folder:  # used by servers only; a database's files lie here
        return {
            name: File(client.download_artifacts(run, name, folder)).read_text(encoding="utf-8")
            for name in _TEXTS
            if name in stored
        }


def _curves(client: Any, runs: list[Any]) -> pd.DataFrame:
    rows: dict[tuple[int, str, int], dict[str, float]] = {}
    for run in runs:
        number, fingerprint = int(run.data.tags["lab.number"]), run.data.tags["lab.fingerprint"]
        for name in run.data.metrics:
            if name.startswith(("by_", "slot/")):
                continue
            for point in client.get_metric_history(run.info.run_id, name):
                rows.setdefault((number, fingerprint, point.step), {})[name] = point.value
    names = sorted({name for row in rows.values() for name in row})
    records = [
        {"number": number, "fingerprint": fingerprint, "step": step}
        | rows[number, fingerprint, step]
        for number, fingerprint, step in sorted(rows)
    ]
    return pd.DataFrame(records, columns=["number", "fingerprint", "step", *names])


def _trials(
    runs: list[Any],
    curves: pd.DataFrame,
    metric: str,
    compared: dict[Path, list[Value]],
) -> pd.DataFrame:
    known = metric in curves
    first = curves[curves["step"] == 0].set_index("number")[metric] if known else pd.Series()
    records = [
        _trial(run, metric, first.get(int(run.data.tags["lab.number"])), compared) for run in runs
    ]
    names = list(dict.fromkeys(name for record in records for name in record))
    return pd.DataFrame(records, columns=names or list(_LEADING))


_LEADING = ("number", "fingerprint", "run_id", "state", "reason", "role", "repeat", "cell", "tuned",
            "score", "untrained", "achieved", "device", "shared")  # fmt: skip


def _trial(
    run: Any, metric: str, untrained: float | None, compared: dict[Path, list[Value]]
) -> dict[str, object]:
    tags, last = _tags(run), dict(sorted(run.data.metrics.items()))
    cell, tuned = json.loads(tags["cell"]), json.loads(tags["tuned"])
    params = {path: _number(text) for path, text in sorted(run.data.params.items())}
    # A process killed between the run's creation and its parameters leaves none.
    spent = last.get(f"spent/{params.get('budget.kind')}", np.nan)
    return {
        "number": int(tags["number"]),
        "fingerprint": tags["fingerprint"],
        "run_id": run.info.run_id,
        "state": tags["state"],
        "reason": tags["reason"],
        "role": tags["role"],
        "repeat": int(tags["repeat"]),
        "cell": label(cell, compared) or BASE,
        "tuned": label(tuned, {}),
        "score": last.get(metric, np.nan) if tags["state"] == "finished" else np.nan,
        "untrained": np.nan if untrained is None else untrained,
        "achieved": spent / float(str(params.get("budget.amount", "nan"))),
        "device": tags.get("device", ""),
        "shared": tags.get("shared") == "True",
        **params,
        # After the parameters: `encoder.size` is compared but no parameter of a built trial.
        **{path: _scalar(value) for path, value in (cell | tuned).items()},
        **{name: value for name, value in last.items() if not name.startswith("by_")},
    }


def _scalar(value: Value) -> Value:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
