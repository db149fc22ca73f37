"""Check the tags of runs that a report reads: another program may have changed the store.

The tags of a sweep's runs are written by the lab alone. A report of changed tags would be wrong or
end in an error of pandas or matplotlib, so they are refused before.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from lab.config.costs.second_objective import COSTS
from lab.config.metrics import find_metric
from lab.config.results import State
from lab.errors import UserError
from lab.tracking import tags

_STATES = {*get_args(State), tags.STATE_NEW}
_ROLES = {"search", "repeat", tags.SUPERSEDED}
_ANSWERS = {"ranking", "path", "noise"}
_FINGERPRINT = re.compile(r"[\w-]{1,64}", re.ASCII)
_MAX_NUMBER = 10**9
_DIGITS = 18  # of a number that Python and pandas hold as an integer
_MAX_VALUE = 1e300  # MLflow stores infinity as the largest number
_SPENT = ("spent/steps", "spent/tokens", "spent/flops", "spent/seconds")
_REMEDY = (
    "delete the sweep's runs in MLflow, or its database, and run lab.sweep again, which makes them "
    "again from the records in --storage"
)

Check = Callable[[str], bool]


class ChangedTagError(UserError):
    """A tag or a metric is not as the lab writes it; the message is one line."""


def check_sweep(run: Any) -> None:
    """Check the tags and the measures of a sweep's run.

    Raises:
        ChangedTagError: a tag is missing, or a tag or a measure is not as the lab writes it.
    """
    reason = find_bad_sweep_tag(tags.remove_prefix(run.data.tags))
    if reason := reason or find_bad_measure(run.data.metrics):
        raise changed_run_error(run, reason)


def find_bad_sweep_tag(values: Mapping[str, str]) -> str | None:
    """Return why the tags of a sweep are not as the lab writes them; None if they are.

    Args:
        values: tags by name without the prefix `lab.`.
    """
    optional = {tags.ANSWER, tags.OVERLAPS, tags.EXAMPLES, tags.CONSTRAINTS, tags.COST}
    if reason := _find_bad(values, _SWEEP, optional):
        return reason
    if not _is_cell(json.loads(values[tags.REFERENCE]), json.loads(values[tags.COMPARE])):
        return f"tag {tags.full_name(tags.REFERENCE)} is no cell of the comparison"
    return None


def find_bad_measure(measures: Mapping[str, float]) -> str | None:
    """Return why the measures of a sweep are not as the lab writes them; None if they are.

    Args:
        measures: metrics of the sweep's run: its duration, its slots, FLOPs of shared runs.
    """
    for name, value in measures.items():
        if not _is_number(value) or value < 0:
            return f"metric {name} is {value!r}, not a finite number from 0 on"
    return None


def check_trials(runs: Iterable[Any], sweep: Mapping[str, str]) -> None:
    """Check the tags and the metrics of the runs of a sweep's trials.

    Args:
        runs: MLflow runs of the trials.
        sweep: tags of the sweep's run, which `check_sweep` has accepted.

    Raises:
        ChangedTagError: a tag is missing or not as the lab writes it, or a metric is not finite.
    """
    compare, tune = json.loads(sweep[tags.COMPARE]), json.loads(sweep[tags.TUNE])

    checks = _TRIAL | {
        tags.CELL: lambda text: _is_cell(_parse(text), compare),
        tags.TUNED: lambda text: _is_point(_parse(text), tune),
    }
    for run in runs:
        blocks = (name for name in run.data.tags if name.startswith(tags.full_name(tags.BLOCKS)))
        of_blocks = {name.removeprefix(tags.PREFIX): _is_number_list for name in blocks}
        optional = {tags.PROVENANCE, tags.TRUNK, tags.RUNG, tags.COST_VALUE, tags.PROPOSED_BY}
        values = tags.remove_prefix(run.data.tags)
        if reason := _find_bad(values, checks | of_blocks, optional):
            raise changed_run_error(run, reason)
        for name, value in run.data.metrics.items():
            if not _is_number(value):
                raise changed_run_error(run, f"metric {name} is {value!r}, not a finite number")


def check_numbers(runs: Iterable[Any]) -> None:
    """Check that no two runs of trials of the same code have the same number.

    Runs of one trial (`search.drop_duplicates`) and superseded runs are no repetition. The store
    has another one if, for example, a copy of its database was restored or its tags were changed.

    Args:
        runs: MLflow runs of the trials, one for each number and fingerprint, whose tags
            `check_trials` has accepted.

    Raises:
        ChangedTagError: two runs have the same number; the message names both.
    """
    by_number: dict[tuple[str, str], Any] = {}
    for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id)):
        values = tags.remove_prefix(run.data.tags)
        if values[tags.ROLE] == tags.SUPERSEDED:
            continue
        number = values[tags.NUMBER]
        first = by_number.setdefault((values.get(tags.CODE, ""), number), run)
        if first is not run:
            trials = (each.data.tags[tags.full_name(tags.FINGERPRINT)] for each in (first, run))
            raise ChangedTagError(
                f"MLflow runs {first.info.run_id} and {run.info.run_id}: both have tag "
                f"{tags.full_name(tags.NUMBER)} {number}, and are of different trials "
                f"({' and '.join(trials)}); run the same lab.sweep command again, which keeps the "
                "run of the sweep's trial and marks the other one as superseded"
            )


def check_points(rows: Mapping[tuple[int, str, int], Mapping[str, float]]) -> None:
    """Check the evaluations of trials.

    Args:
        rows: metrics of each evaluation, by number and fingerprint of the trial, and step.

    Raises:
        ChangedTagError: a value is not finite, or an evaluation lacks what the trial had spent.
    """
    for (number, _, step), row in rows.items():
        where = f"trial {number}, step {step}"
        bad = [name for name, value in row.items() if not _is_number(value)]
        if bad:
            value = str(row[bad[0]])[:60]
            raise ChangedTagError(
                f"MLflow: {where}: {bad[0]} is {value!r}, not a finite number; {_REMEDY}"
            )
        missing = [name for name in _SPENT if name not in row]
        if missing:
            raise ChangedTagError(f"MLflow: {where}: {missing[0]} is missing; {_REMEDY}")


def _find_bad(
    values: Mapping[str, str], checks: Mapping[str, Check], optional: set[str]
) -> str | None:
    for name, is_valid in checks.items():
        if name not in values and name in optional:
            continue
        if name not in values:
            return f"tag {tags.full_name(name)} is missing"
        if not is_valid(values[name]):
            return f"tag {tags.full_name(name)} is {values[name][:60]!r}"
    return None


def changed_run_error(run: Any, reason: str) -> ChangedTagError:
    """Return the exception for a run that is not as the lab writes it.

    Args:
        run: MLflow run.
        reason: what is not as the lab writes it.
    """
    return ChangedTagError(
        f"MLflow run {run.info.run_id}: {reason}, which the lab does not write; {_REMEDY}"
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < _MAX_VALUE


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_finite(value: Any) -> bool:
    """Return whether a value has no number that is infinite or not a number."""
    match value:
        case dict():
            return all(map(_is_finite, value.values()))
        case list():
            return all(map(_is_finite, value))
        case float():
            return math.isfinite(value)
    return True


def _is_cell(cell: Any, compare: Mapping[str, list[Any]]) -> bool:
    """Return whether a mapping has one of the compared values of each path."""
    return (
        _is_mapping(cell)
        and cell.keys() == compare.keys()
        and all(value in compare[path] for path, value in cell.items())
    )


def _is_point(tuned: Any, tune: Mapping[str, dict[str, Any]]) -> bool:
    """Return whether a mapping has values of some of the distributions."""
    return (
        _is_mapping(tuned)
        and tuned.keys() <= tune.keys()
        and all(
            value in tune[path]["choices"] if "choices" in tune[path] else _is_number(value)
            for path, value in tuned.items()
        )
    )


def is_digits(text: str) -> bool:
    """Return whether a text is a number of at most 18 decimal digits."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def _is_integer(text: str) -> bool:
    return is_digits(text) and int(text) <= _MAX_NUMBER


def _is_number_list(text: str) -> bool:
    numbers = _parse(text)
    return isinstance(numbers, list) and all(map(_is_number, numbers))


def _is_comparison(text: str) -> bool:
    compare = _parse(text)
    return _is_mapping(compare) and all(
        isinstance(values, list) and values and _is_finite(values) for values in compare.values()
    )


def _is_tuning(text: str) -> bool:
    tune = _parse(text)
    return _is_mapping(tune) and _is_finite(tune) and all(map(_is_distribution, tune.values()))


def _is_distribution(value: Any) -> bool:
    if not _is_mapping(value):
        return False
    if "choices" in value:
        return isinstance(value["choices"], list) and bool(value["choices"])
    low, high, is_log = value.get("low"), value.get("high"), value.get("log")
    if not (_is_number(low) and _is_number(high) and isinstance(is_log, bool)):
        return False
    return low < high and (low > 0 or not is_log)


def _is_finite_mapping(text: str) -> bool:
    value = _parse(text)
    return _is_mapping(value) and _is_finite(value)


def _is_search(text: str) -> bool:
    search = _parse(text)
    if not (_is_mapping(search) and _is_finite(search)):
        return False
    prior = search.get("prior", [])
    return isinstance(prior, list) and all(isinstance(name, str) for name in prior)


def _is_limits(text: str) -> bool:
    limits = _parse(text)
    return _is_mapping(limits) and all(map(_is_number, limits.values()))


def _is_overlaps(text: str) -> bool:
    overlaps = _parse(text)
    return (
        _is_mapping(overlaps)
        and all(isinstance(of_text, list) for of_text in overlaps.values())
        and all(_is_overlap(each) for of_text in overlaps.values() for each in of_text)
    )


def _is_overlap(value: Any) -> bool:
    counts = ("found", "questions", "short")
    return _is_mapping(value) and "task" in value and all(type(value.get(c)) is int for c in counts)


def _is_text(text: str) -> bool:  # noqa: ARG001
    return True


_SWEEP: Mapping[str, Check] = {
    tags.QUESTION: _is_text,
    tags.STATE: _STATES.__contains__,
    tags.METRIC: lambda text: find_metric(text) is not None,
    tags.ANSWER: _ANSWERS.__contains__,
    tags.COMPARE: _is_comparison,
    tags.REFERENCE: _is_finite_mapping,
    tags.TUNE: _is_tuning,
    tags.SEARCH: _is_search,
    tags.CONSTRAINTS: _is_limits,
    tags.COST: COSTS.__contains__,
    tags.OPENED: is_digits,
    tags.OVERLAPS: _is_overlaps,
    tags.EXAMPLES: _is_finite_mapping,
}
_TRIAL: dict[str, Check] = {
    tags.NUMBER: _is_integer,
    tags.REPEAT: _is_integer,
    tags.FINGERPRINT: lambda text: _FINGERPRINT.fullmatch(text) is not None,
    tags.STATE: _STATES.__contains__,
    tags.ROLE: _ROLES.__contains__,
    tags.REASON: _is_text,
    tags.RUNG: lambda text: _is_number(_parse(text)),
    tags.COST_VALUE: lambda text: _is_number(_parse(text)),
    tags.PROPOSED_BY: _is_text,
    tags.PROVENANCE: lambda text: re.fullmatch(r"\w*", text, re.ASCII) is not None,
    tags.TRUNK: lambda text: re.fullmatch(r"\w*", text, re.ASCII) is not None,
}
