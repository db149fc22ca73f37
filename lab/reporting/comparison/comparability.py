"""Whether the scores of several sweeps are comparable.

The rules are those for the trials of one sweep (`lab.loading.comparability`, `lab.config.metrics`).
Between sweeps, the contents of files may differ too where all settings are equal, so the hashes of
texts and test sets must agree.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas as pd

from lab.config.metrics import METRICS, PAIRS, Metric
from lab.loading.validation import NEVER_COMPARED, NEVER_COMPARED_REASON
from lab.reporting import sentences
from lab.reporting.comparison.sweep_results import SweepResult, join_runs
from lab.reporting.other_scores import find_incomparable_path
from lab.tracking import tags

_UNKNOWN = "unknown"
# This metric is comparable between trials with the same held-out documents.
_ON_DOCUMENTS = METRICS["mlm/nats_per_character"]
_RENEW = "the same lab.sweep command with the same code records it, and trains nothing"


def find_obstacle(sweeps: Sequence[SweepResult], *, across_code: bool) -> str:
    """Return why the scores of sweeps are not comparable, in one clause; empty if they are.

    Args:
        sweeps: the sweeps.
        across_code: whether trials of different code digests are compared.
    """
    scored, kinds = _select_scored(sweeps), _check_kinds(sweeps)
    if kinds or not scored:
        return kinds
    runs = join_runs(scored)
    return (
        ("" if across_code else _check_codes(scored))
        or _check_settings(scored[0].frames.metric, runs)
        or _check_texts(scored, runs)
        or _check_test_set(scored[0].frames.metric, scored)
    )


def list_doubts(sweeps: Sequence[SweepResult]) -> Iterator[str]:
    """Yield sentences on differences between sweeps that the store does not record."""
    scored = _select_scored(sweeps)
    runs = join_runs(scored) if scored else pd.DataFrame()
    kinds = set(runs["data.source.kind"]) if "data.source.kind" in runs else set()
    if len(_group(scored, _texts)) > 1 and kinds - {"embedded"}:
        yield (
            "The sweeps differ in vocabulary or window, so the hashes of their texts do not show "
            "whether the files have the same content."
        )
    if len(codes := _group(scored, _codes)) > 1:
        yield (
            f"The trials were computed by different versions of the code ({_list(codes)}): a "
            "difference between sweeps may be one of the code."
        )


def _select_scored(sweeps: Sequence[SweepResult]) -> list[SweepResult]:
    return [sweep for sweep in sweeps if len(sweep.runs)]


def _check_kinds(sweeps: Sequence[SweepResult]) -> str:
    for sweep in sweeps:
        if sweep.frames.answer == "path":
            return f"{sweep.name} tests the steps from text to report (answer: path)"
    metrics = _group(sweeps, lambda sweep: sweep.frames.metric.name)
    if len(metrics) > 1:
        return f"the sweeps are ranked by different metrics ({_list(metrics)})"
    return ""


def _check_codes(sweeps: Sequence[SweepResult]) -> str:
    codes = _group(sweeps, _codes)
    if len(codes) < 2:
        return ""
    return (
        f"the trials were computed by different versions of the code ({_list(codes)}), which "
        "--across-code compares"
    )


def _check_settings(metric: Metric, runs: pd.DataFrame) -> str:
    for name in sorted(NEVER_COMPARED & set(map(str, runs))):
        values = dict.fromkeys(map(sentences.format_value, runs[name]))
        if len(values) > 1:
            return f"trials differ in {name} ({', '.join(values)}): {NEVER_COMPARED_REASON}"
    path = find_incomparable_path(metric, runs)
    if path is not None:
        return f"{metric.name} cannot rank trials that differ in {path}: {metric.reason}"
    path = find_incomparable_path(_ON_DOCUMENTS, runs)
    if path is not None:
        return f"the sweeps have different texts: they differ in {path}"
    return ""


def _check_texts(sweeps: Sequence[SweepResult], runs: pd.DataFrame) -> str:
    paths = [name for name in map(str, runs) if name.startswith("data.")]
    if any(runs[path].map(str).nunique() > 1 for path in paths):
        return ""  # of one text with other vocabularies or windows
    return _check_equal(sweeps, _texts, "text")


def _check_test_set(metric: Metric, sweeps: Sequence[SweepResult]) -> str:
    if metric.name.startswith("detect/"):
        return _check_equal(sweeps, _corruptions, "corruptions of the held-out text")
    if metric.scores_pairs:
        files = _group(sweeps, _pairs)  # names depend on the text, too
        is_known = len(files) == 1 and _UNKNOWN not in files
        return "" if is_known else _check_equal(sweeps, _examples(PAIRS), "minimal pairs")
    if metric.name.startswith("finetune/"):
        return _check_equal(sweeps, _examples(metric.name), f"examples of {metric.task}")
    return ""


def _check_equal(
    sweeps: Sequence[SweepResult], read: Callable[[SweepResult], str], inputs: str
) -> str:
    """Return why sweeps cannot be compared if they differ in the hash of a content."""
    groups = _group(sweeps, read)
    if _UNKNOWN in groups:
        unknown = ", ".join(groups[_UNKNOWN])
        return f"the hash of the {inputs} is not recorded for {unknown}; {_RENEW}"
    return f"the sweeps have different {inputs} ({_list(groups)})" if len(groups) > 1 else ""


def _texts(sweep: SweepResult) -> str:
    return _names(sweep, "text-")


def _corruptions(sweep: SweepResult) -> str:
    return _names(sweep, "held-out-")


def _pairs(sweep: SweepResult) -> str:
    return _names(sweep, "pairs-")


def _names(sweep: SweepResult, prefix: str) -> str:
    """Return the names of the prepared files of one kind; they contain hashes of the content."""
    names = sorted(set(sweep.frames.sweep.get(tags.DATA, "").split()))
    return " ".join(name for name in names if name.startswith(prefix)) or _UNKNOWN


def _examples(metric: str) -> Callable[[SweepResult], str]:
    def read(sweep: SweepResult) -> str:
        known = json.loads(sweep.frames.sweep.get(tags.EXAMPLES, "{}"))
        return str(known.get(metric, _UNKNOWN))

    return read


def _codes(sweep: SweepResult) -> str:
    return " ".join(sorted(version.code for version in sweep.frames.codes)) or _UNKNOWN


def _group(
    sweeps: Iterable[SweepResult], read: Callable[[SweepResult], str]
) -> dict[str, list[str]]:
    """Return the names of the sweeps by a value that each has."""
    groups: dict[str, list[str]] = {}
    for sweep in sweeps:
        groups.setdefault(read(sweep), []).append(sweep.name)
    return groups


def _list(groups: dict[str, list[str]]) -> str:
    return "; ".join(f"{value} in {', '.join(names)}" for value, names in groups.items())
