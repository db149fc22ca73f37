"""Check that what MLflow stores twice agrees: settings, and the last values of metrics.

A trial's settings are its parameters and, as far as they are compared or tuned, tags of its run.
The last value of each metric is also one of the values of its curve. Another program that changes
one of the two, or deletes one, would change the conclusions of a report.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from lab.config.trial import Path, Value
from lab.tracking import tags
from lab.tracking.checked_tags import changed_run_error
from lab.tracking.parameters import flatten_settings, parse_setting
from lab.tracking.stored_runs import Point

_STEPS = "spent/steps"  # a metric of each evaluation


def check_starts(runs: Iterable[Any]) -> None:
    """Check that runs, which are sorted by their start, have one.

    Raises:
        ChangedTagError: a run has none.
    """
    for run in runs:
        if type(run.info.start_time) is not int:
            raise changed_run_error(run, "it has no start time")


def check_settings(runs: Iterable[Any], cost: str | None) -> None:
    """Check the parameters and the second objective of trials.

    Args:
        runs: MLflow runs of the trials, whose tags `check_trials` has accepted.
        cost: name of the sweep's second objective; None without one.

    Raises:
        ChangedTagError: a parameter differs from the tag of the compared or tuned settings, the
            budget is not a number, or the value of the second objective is missing.
    """
    for run in runs:
        if reason := _find_bad_setting(run, cost):
            raise changed_run_error(run, reason)


def check_last_values(runs: Iterable[Any], points: Iterable[Point]) -> None:
    """Check that the last value of each metric is the value of the metric's last evaluation.

    Args:
        runs: MLflow runs of the trials.
        points: values of their metrics (`read_points`).

    Raises:
        ChangedTagError: the last value of a metric is missing or another one.
    """
    values: dict[str, dict[str, dict[int, set[float]]]] = defaultdict(dict)
    for run, name, step, value in points:
        # A trial that was continued may have stored an evaluation twice, with other durations.
        values[run].setdefault(name, {}).setdefault(step, set()).add(value)
    for run in runs:
        if reason := _find_bad_last_value(run.data.metrics, values[run.info.run_id]):
            raise changed_run_error(run, reason)


def _find_bad_setting(run: Any, cost: str | None) -> str | None:
    values, params = tags.remove_prefix(run.data.tags), run.data.params
    if tags.BUDGET_AMOUNT in params and not _is_amount(params[tags.BUDGET_AMOUNT]):
        return f"parameter {tags.BUDGET_AMOUNT} is {params[tags.BUDGET_AMOUNT][:60]!r}"
    for name in (tags.CELL, tags.TUNED):
        settings: Mapping[Path, Value] = json.loads(values[name])
        for path, value in settings.items():
            # Some paths, such as `encoder.size`, are no parameters of a built trial, and each
            # repeat has seeds of its own.
            is_stored = path in params and _is_scalar(value) and not path.startswith("seeds.")
            # A trial that ends at a rung has a share of the budget of its cell.
            if is_stored and path == tags.BUDGET_AMOUNT and tags.RUNG in values:
                value = json.loads(values[tags.RUNG]) * value
            if is_stored and not _is_same(params[path], value):
                return (
                    f"parameter {path} is {params[path][:60]!r}, and tag {tags.full_name(name)} "
                    f"has {str(value)[:60]!r}"
                )
    if cost and values[tags.STATE] == "finished" and tags.COST_VALUE not in values:
        return f"tag {tags.full_name(tags.COST_VALUE)} is missing"
    return None


def _find_bad_last_value(
    last: Mapping[str, float], values: Mapping[str, Mapping[int, set[float]]]
) -> str | None:
    end = max(values.get(_STEPS, {0: set()}))
    for name, steps in values.items():
        own_end = max(steps)
        if name in last and last[name] not in steps[own_end]:
            return (
                f"the last value of metric {name} is {last[name]!r}, and at step {own_end} it is "
                f"{min(steps[own_end])!r}"
            )
        if name not in last and own_end == end:  # earlier: the last value is not a number
            return f"the last value of metric {name} is missing"
    return None


def _is_amount(text: str) -> bool:
    value = parse_setting(text)
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _is_scalar(value: Value) -> bool:
    return isinstance(value, bool | int | float)


def _is_same(text: str, value: Value) -> bool:
    return parse_setting(text) == parse_setting(flatten_settings(value)[""])
