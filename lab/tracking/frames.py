"""Read a sweep from MLflow into pandas: one row per trial, and one row per evaluation.

The frames depend on the store alone: the same store gives the same frames, in the same order.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path as File
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from lab.config.costs.second_objective import COSTS, CostName
from lab.config.labels import label
from lab.config.metrics import Metric, find_metric
from lab.config.trial import Path, Value
from lab.errors import UserError
from lab.storage.provenance import parse_provenance
from lab.tracking import long_values, tags
from lab.tracking.checked_tags import (
    check_numbers,
    check_points,
    check_sweep,
    check_trials,
    is_digits,
)
from lab.tracking.checked_values import check_last_values, check_settings, check_starts
from lab.tracking.client import connect_client, database_file, describe_error
from lab.tracking.code_versions import CodeVersion, compare_codes, select_runs
from lab.tracking.parameters import parse_setting
from lab.tracking.search import drop_duplicates, search_runs
from lab.tracking.stored_runs import Point, read_children, read_points

BASE = "base"  # label of the only cell of a sweep that compares nothing


class FramesError(UserError):
    """No sweep of the given name can be read; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class SweepFrames:
    """A sweep as the tracking store has it.

    Attributes:
        name: name of the experiment.
        sweep: tags of the parent run, by name without the prefix `lab.` (`lab.tracking.tags`).
        measures: metrics of the parent run: slots, wall_seconds, ...
        texts: contents of the artifact files, by file name; empty if the store has none. They are
            the search space and, from the provenance of the trials, each different list of
            installed packages and each different patch.
        trials: one row per trial, sorted by number. Columns: number, fingerprint, run_id, state,
            reason, role, repeat, cell and tuned (labels), score (the ranking metric at the end;
            NaN unless the trial has finished), untrained (the ranking metric at step 0), achieved
            (fraction of the budget that was spent), device, shared (whether other trials used the
            device at the same time, so that the trial's seconds are not comparable), code and
            `tags.PROCESS` (provenance of the trial's numbers; empty if it is unknown), masked
            (masked tokens of a full window, as text; empty if it is unknown), trunk (only if trials
            branch from trunks: a name that the branches of one trunk share), every parameter by
            dotted path, and the last value of every metric by name. A sweep with a second objective
            also has cost (its value), and one in which an earlier sweep has proposed settings also
            has proposed_by (name of that sweep, or empty).
        curves: one row per evaluation, sorted by number and step. Columns: number, fingerprint,
            step, and every metric by name (NaN if it was not finite or not computed).
        blocks: contribution of each block of the test set to the final value of a score, by number
            of the trial and name of the metric, and to the ranking metric at step 0, by
            `metrics.untrained_name`; not all trials and metrics have them.
        codes: code digests of the trials, that of the sweep's last command first.
        omitted_codes: code digests of the sweep's trials that are not in the frames.
        other_storages: number of other storages from which the store has a sweep of this name.
        run_id: id of the sweep's run.
        experiment_id: id of the MLflow experiment.
    """

    name: str
    sweep: dict[str, str]
    measures: dict[str, float]
    texts: dict[str, str]
    trials: pd.DataFrame
    curves: pd.DataFrame
    blocks: dict[tuple[int | str, str], list[float]] = field(default_factory=dict)
    codes: tuple[CodeVersion, ...] = ()
    omitted_codes: tuple[CodeVersion, ...] = ()
    other_storages: int = 0
    run_id: str = ""
    experiment_id: str = ""

    @property
    def metric(self) -> Metric:
        """Metric that ranks the trials."""
        metric = find_metric(self.sweep[tags.METRIC])
        assert metric is not None  # noqa: S101 - loading the search space checked it
        return metric

    def rank_by(self, metric: str) -> "SweepFrames":
        """Return the frames with another ranking metric, so with other `score` and `untrained`.

        Args:
            metric: name of a metric with a column in `trials`.
        """
        finished = self.trials["state"] == "finished"
        start = self.curves[self.curves["step"] == 0].set_index("number")
        untrained = start[metric] if metric in start else pd.Series(dtype=float)
        trials = self.trials.assign(
            score=self.trials[metric].where(finished),
            untrained=self.trials["number"].map(untrained).astype(float),
        )
        return replace(self, sweep=self.sweep | {tags.METRIC: metric}, trials=trials)

    @property
    def answer(self) -> str:
        """Kind of conclusion (`Experiment.answer`); sweeps before version 0.3.0 are rankings."""
        return self.sweep.get(tags.ANSWER, "ranking")

    @property
    def cost(self) -> CostName | None:
        """Second objective (`Experiment.cost`); None without one."""
        name = self.sweep.get(tags.COST)
        return next((cost for cost in COSTS if cost == name), None)

    @property
    def constraints(self) -> dict[str, float]:
        """Limits of the trials by name (`Experiment.constraints`)."""
        return dict(json.loads(self.sweep.get(tags.CONSTRAINTS, "{}")))

    @property
    def prior(self) -> list[str]:
        """Names of the earlier sweeps that could propose settings (`SearchConfig.prior`)."""
        return list(json.loads(self.sweep.get(tags.SEARCH, "{}")).get("prior", ()))

    @property
    def compare(self) -> dict[Path, list[Value]]:
        """Compared values, by dotted path."""
        return dict(json.loads(self.sweep[tags.COMPARE]))

    @property
    def tune(self) -> dict[Path, dict[str, Any]]:
        """Distributions of the nuisance parameters by dotted path, as mappings of their fields."""
        return dict(json.loads(self.sweep[tags.TUNE]))

    @property
    def reference(self) -> str:
        """Label of the cell that equals the base, or of the first cell if none does."""
        return label(json.loads(self.sweep[tags.REFERENCE]), self.compare) or BASE


def load_frames(
    uri: str, name: str, *, storage: str = "", run_id: str = "", across_code: bool = False
) -> SweepFrames:
    """Return the sweep of that name; if there are several, the one that was started last.

    Args:
        uri: URI of the tracking store.
        name: name of the sweep.
        storage: identity of a storage. If the store has sweeps of that name from it, only they are
            considered.
        run_id: id of the sweep's run; if given, no other one is considered.
        across_code: whether to include the trials of other code digests than that of the sweep's
            last command. The code digest is then a compared setting (`code_versions`).

    Raises:
        FramesError: the store has no sweep of that name.
        StoreError: the store cannot be read.
        ChangedTagError: another program has changed the sweep in the store.
    """
    file = database_file(uri)
    if file is not None and not file.is_file():
        raise FramesError(
            f"{file}: tracking store not found; run a sweep first, or set --tracking-uri"
        )
    client = connect_client(uri)
    with describe_error(uri):
        return _load_frames(
            client, uri, name, storage=storage, run_id=run_id, across_code=across_code
        )


def _load_frames(
    client: Any, uri: str, name: str, *, storage: str, run_id: str, across_code: bool
) -> SweepFrames:
    experiment = client.get_experiment_by_name(name)
    parents = [] if experiment is None else search_runs(client, experiment.experiment_id, _IS_SWEEP)
    parents = [run for run in parents if run_id in {"", run.info.run_id}]
    if not parents:
        raise FramesError(
            f"{name}: the tracking store has no sweep of this name; its sweeps: {_names(client)}"
        )
    parent = _select_parent(parents, storage)
    children = read_children(client, uri, experiment.experiment_id, parent.info.run_id)
    check_starts(children)
    children = drop_duplicates(children)
    _restore_long_values(client, [parent, *children])
    check_sweep(parent)
    sweep = tags.remove_prefix(parent.data.tags)
    check_trials(children, sweep)
    check_settings(children, sweep.get(tags.COST))
    current = sweep.get(f"{tags.LAST_COMMAND}{tags.CODE}", "")
    tuned = tuple(json.loads(sweep[tags.TUNE]))
    selected = select_runs(children, current, tuned, across_code=across_code)
    children, codes = selected.runs, [version.code for version in selected.used]
    check_numbers(children)
    if len(codes) > 1:
        compare_codes(sweep, children, codes)
    _renumber(children, codes)
    points = list(read_points(client, uri, children))
    check_last_values(children, points)
    curves = _curves(points, children)
    return SweepFrames(
        name=name,
        sweep=sweep,
        measures=dict(sorted(parent.data.metrics.items())),
        texts=_read_space(client, parent.info.run_id)
        | _read_provenance(client, parent.info.run_id, children),
        trials=_trials(children, curves, sweep[tags.METRIC], json.loads(sweep[tags.COMPARE])),
        curves=curves,
        blocks=dict(_read_blocks(children)),
        codes=selected.used,
        omitted_codes=selected.omitted,
        other_storages=len({_storage(run) for run in parents}) - 1,
        run_id=parent.info.run_id,
        experiment_id=parent.info.experiment_id,
    )


def _select_parent(parents: list[Any], storage: str) -> Any:
    """Return the run that was started last, of a storage if it has any."""
    own = [run for run in parents if storage and _storage(run) == storage]
    return max(own or parents, key=_opened)


def _opened(run: Any) -> int:
    text = run.data.tags.get(tags.full_name(tags.OPENED), "")
    return int(text) if is_digits(text) else -1  # -1: `check_sweep` refuses it


def _storage(run: Any) -> str:
    return str(run.data.tags.get(tags.full_name(tags.STORAGE), ""))


def _restore_long_values(client: Any, runs: list[Any]) -> None:
    """Replace the notices in the lab's tags by the values in their artifacts, in place.

    Raises:
        FramesError: the artifact of a value that the frames need is missing.
    """
    known: dict[str, str] = {}
    for run in runs:
        read = partial(_read_artifact, client, run.info.run_id)
        long_values.restore(run.data.tags, read, known)
        for name in (tags.COMPARE, tags.REFERENCE, tags.TUNE, tags.CELL, tags.TUNED):
            text = run.data.tags.get(tags.full_name(name), "{}")
            if not _is_json_object(text):
                raise FramesError(
                    f"MLflow run {run.info.run_id}: the tag {tags.full_name(name)} is not a JSON "
                    f"object: {text[:100]}; the artifact with a long value is missing, or the tag "
                    "was cut by a version before 0.3.0 or changed; delete the tracking store and "
                    "run the same command again, which copies the records to a new one"
                )


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _renumber(runs: list[Any], codes: list[str]) -> None:
    """Give new numbers to superseded runs and those of all codes but the first; sort by number.

    The numbers of jobs would not be unique. The runs with new numbers follow all others: first
    those of each other code in the order of `codes`, then superseded ones.
    """
    role, code = tags.full_name(tags.ROLE), tags.full_name(tags.CODE)

    def sort_key(run: Any) -> tuple[bool, int, int, str]:
        values = run.data.tags
        position = codes.index(values.get(code, ""))
        superseded = values[role] == tags.SUPERSEDED
        return superseded, position, int(values[_NUMBER]), run.info.run_id

    runs.sort(key=sort_key)
    kept = [run for run in runs if sort_key(run)[:2] == (False, 0)]
    free = max((int(run.data.tags[_NUMBER]) for run in runs), default=0) + 1
    for offset, run in enumerate(runs[len(kept) :]):
        run.data.tags[_NUMBER] = str(free + offset)


_IS_SWEEP = f"tags.`{tags.full_name(tags.KIND)}` = '{tags.KIND_SWEEP}'"
_NUMBER = tags.full_name(tags.NUMBER)
_FINGERPRINT = tags.full_name(tags.FINGERPRINT)


def _names(client: Any) -> str:
    names = sorted(experiment.name for experiment in client.search_experiments())
    return ", ".join(name for name in names if name != "Default") or "none yet"


def _read_space(client: Any, run: str) -> dict[str, str]:
    text = _read_artifact(client, run, tags.SPACE_FILE)
    return {} if text is None else {tags.SPACE_FILE: text}


def _read_provenance(client: Any, parent: str, runs: list[Any]) -> dict[str, str]:
    """Return each different list of packages, and each different patch, by a name for it."""
    name = tags.full_name(tags.PROVENANCE)
    hashes = dict.fromkeys(run.data.tags[name] for run in runs if name in run.data.tags)
    names = (tags.PROVENANCE_FILE.format(each) for each in hashes)
    files = (_read_artifact(client, parent, each) for each in names)
    entries = [entry for file in files if file is not None for entry in parse_provenance(file)]
    texts: dict[str, str] = {}
    for entry in entries:
        packages = "".join(f"{name}=={version}\n" for name, version in entry.packages.items())
        _add_text(texts, "installed packages", packages)
        _add_text(texts, f"uncommitted changes to {entry.commit[:12]}", entry.diff)
    return texts


def _add_text(texts: dict[str, str], name: str, text: str) -> None:
    """Add a text under a name that is not used yet, unless it is empty or one of the texts."""
    if text and text not in texts.values():
        names = (name, *(f"{name} ({number})" for number in range(2, len(texts) + 3)))
        texts[next(each for each in names if each not in texts)] = text


def _read_artifact(client: Any, run: str, name: str) -> str | None:
    """Return the content of a text artifact of a run; None if the run has no such artifact."""
    folder = name.rpartition("/")[0] or None
    if name not in {file.path for file in client.list_artifacts(run, folder)}:
        return None
    with TemporaryDirectory() as target:  # used with a server; a database has its files locally
        return File(client.download_artifacts(run, name, target)).read_text(encoding="utf-8")


def _curves(points: Iterable[Point], runs: list[Any]) -> pd.DataFrame:
    trials = {
        run.info.run_id: (int(run.data.tags[_NUMBER]), run.data.tags[_FINGERPRINT]) for run in runs
    }
    rows: dict[tuple[int, str, int], dict[str, float]] = {}
    for run, name, step, value in points:
        if name != tags.SCORE and not name.startswith(tags.SLOT_PREFIX):
            rows.setdefault((*trials[run], step), {})[name] = value
    check_points(rows)
    names = sorted({name for row in rows.values() for name in row})
    records = [
        {"number": number, "fingerprint": fingerprint, "step": step}
        | rows[number, fingerprint, step]
        for number, fingerprint, step in sorted(rows)
    ]
    return pd.DataFrame(records, columns=["number", "fingerprint", "step", *names])


def _read_blocks(runs: list[Any]) -> Iterator[tuple[tuple[int, str], list[float]]]:
    for run in runs:
        number = int(run.data.tags[_NUMBER])
        for name, text in tags.remove_prefix(run.data.tags).items():
            if name.startswith(tags.BLOCKS):
                yield (number, name.removeprefix(tags.BLOCKS)), json.loads(text)


def _trials(
    runs: list[Any],
    curves: pd.DataFrame,
    metric: str,
    compared: dict[Path, list[Value]],
) -> pd.DataFrame:
    start = curves[curves["step"] == 0].set_index("number")
    untrained = start[metric] if metric in curves else pd.Series()
    records = [
        _trial(run, metric, untrained.get(int(run.data.tags[_NUMBER])), compared) for run in runs
    ]
    names = list(dict.fromkeys(name for record in records for name in record))
    trials = pd.DataFrame(records, columns=names or list(_LEADING))
    if tags.PROPOSED_BY in trials:
        trials[tags.PROPOSED_BY] = trials[tags.PROPOSED_BY].fillna("")
    return trials


_LEADING = ("number", "fingerprint", "run_id", "state", "reason", "role", "repeat", "cell", "tuned",
            "score", "untrained", "achieved", "device", "shared", tags.CODE,
            *tags.PROCESS, tags.MASKED)  # fmt: skip


def _trial(
    run: Any, metric: str, untrained: float | None, compared: dict[Path, list[Value]]
) -> dict[str, object]:
    values, last = tags.remove_prefix(run.data.tags), dict(sorted(run.data.metrics.items()))
    cell, tuned = json.loads(values[tags.CELL]), json.loads(values[tags.TUNED])
    params = {path: parse_setting(text) for path, text in sorted(run.data.params.items())}
    # A process that was killed after it created the run has stored no parameters.
    spent = last.get(f"spent/{params.get(tags.BUDGET_KIND)}", np.nan)
    finished = values[tags.STATE] == "finished"
    return {
        "number": int(values[tags.NUMBER]),
        "fingerprint": values[tags.FINGERPRINT],
        "run_id": run.info.run_id,
        "state": values[tags.STATE],
        "reason": values[tags.REASON],
        "role": values[tags.ROLE],
        "repeat": int(values[tags.REPEAT]),
        "cell": label(cell, compared) or BASE,
        "tuned": label(tuned, {}),
        "score": last.get(metric, np.nan) if finished else np.nan,
        "untrained": np.nan if untrained is None else untrained,
        "achieved": spent / float(str(params.get(tags.BUDGET_AMOUNT, "nan"))),
        "device": values.get(tags.DEVICE, ""),
        "shared": values.get(tags.SHARED) == "True",
        **{name: values.get(name, "") for name in (tags.CODE, *tags.PROCESS)},
        tags.MASKED: values.get(tags.MASKED, ""),
        **{name: values[name] for name in (tags.TRUNK,) if name in values},
        **({"cost": float(values[tags.COST_VALUE])} if tags.COST_VALUE in values else {}),
        **{name: values[name] for name in (tags.PROPOSED_BY,) if name in values},
        **params,
        # These follow the parameters because some compared paths, such as `encoder.size`, are no
        # parameters of a built trial.
        **{path: _to_scalar(value) for path, value in (cell | tuned).items()},
        **{name: value for name, value in last.items() if not _is_copy(name)},
    }


def _is_copy(metric: str) -> bool:
    """Return whether a metric is a copy of another one, stored for the MLflow UI."""
    return metric == tags.SCORE or metric.startswith(tags.COPY_PREFIX)


def _to_scalar(value: Value) -> Value:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
