"""Select the trials of a sweep by the code that computed them.

A change of the code gives all trials of a sweep new fingerprints, so the same command trains them
again. The MLflow run of the sweep then has the trials of several code digests.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.config.trial import Path
from lab.tracking import tags

_SHOWN_DIGITS = 12  # of a commit
COMPARED = "code"  # the compared path if trials of several code digests are compared


@dataclass(frozen=True, kw_only=True)
class CodeVersion:
    """Trials of a sweep with the same code digest.

    Attributes:
        code: code digest; empty if the trials were stored without one.
        trials: number of the trials, without superseded ones.
        commits: commits at which they were computed, in the order of the trials: the first twelve
            digits, and ` with uncommitted changes` if the code differed from the commit.
        differing: paths of settings whose values differ from those of the trials of the last
            command, for the same cell; empty for trials that are in the report.
    """

    code: str
    trials: int
    commits: tuple[str, ...]
    differing: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Runs of trials to report, and the code digests of these and of all others.

    Attributes:
        runs: MLflow runs to report, by code digest, that of the last command first.
        used: code digests of `runs`.
        omitted: code digests of the other runs.
    """

    runs: list[Any]
    used: tuple[CodeVersion, ...]
    omitted: tuple[CodeVersion, ...]


def select_runs(
    runs: Sequence[Any], current: str, tuned: Sequence[Path], *, across_code: bool
) -> Selection:
    """Return the runs of the trials to report.

    Args:
        runs: MLflow runs of all trials of a sweep.
        current: code digest of the sweep's last command.
        tuned: paths of the nuisance parameters.
        across_code: whether to include trials of other code digests. A trial is left out
            nevertheless if its settings, except the nuisance parameters and those that only one of
            the two versions of the code has, differ from those of the present code's trial of the
            same cell and repeat.
    """
    by_code: dict[str, list[Any]] = {current: []}
    for run in sorted(runs, key=lambda run: run.info.start_time, reverse=True):
        by_code.setdefault(_tag(run, tags.CODE), []).append(run)
    counterparts = {_cell_and_repeat(run): run.data.params for run in by_code[current]}
    chosen: list[Any] = []
    used, omitted = [], []
    for code, its_runs in by_code.items():
        differing = {
            run.info.run_id: _differing(
                run.data.params, counterparts.get(_cell_and_repeat(run), {}), tuned
            )
            for run in its_runs
        }
        included: list[Any] = []
        others: list[Any] = []
        for run in its_runs:
            equal = across_code and not differing[run.info.run_id]
            (included if equal or code == current else others).append(run)
        chosen += included
        if included:
            used.append(_describe(code, included))
        if others:
            paths = {path for run in others for path in differing[run.info.run_id]}
            omitted.append(_describe(code, others, tuple(sorted(paths)) if across_code else ()))
    return Selection(runs=chosen, used=tuple(used), omitted=tuple(omitted))


def compare_codes(sweep: dict[str, str], runs: Sequence[Any], codes: Sequence[str]) -> None:
    """Make the code digest a compared setting, in the tags of a sweep and of its runs.

    Args:
        sweep: tags of the sweep's run without their prefix; changed in place.
        runs: MLflow runs of trials; changed in place.
        codes: code digests of the runs; the reference is a setting with the first one.
    """
    compare = json.loads(sweep[tags.COMPARE]) | {COMPARED: list(codes)}
    reference = json.loads(sweep[tags.REFERENCE]) | {COMPARED: codes[0]}
    sweep |= {tags.COMPARE: json.dumps(compare), tags.REFERENCE: json.dumps(reference)}
    for run in runs:
        cell = json.loads(_tag(run, tags.CELL)) | {COMPARED: _tag(run, tags.CODE)}
        run.data.tags[tags.full_name(tags.CELL)] = json.dumps(cell)


def _describe(code: str, runs: Sequence[Any], differing: tuple[Path, ...] = ()) -> CodeVersion:
    counted = [run for run in runs if _tag(run, tags.ROLE) != tags.SUPERSEDED]
    counted.sort(key=lambda run: int(_tag(run, tags.NUMBER)))
    commits = map(_commits, counted)
    return CodeVersion(
        code=code,
        trials=len(counted),
        commits=tuple(dict.fromkeys(commit for each in commits for commit in each)),
        differing=differing,
    )


def _commits(run: Any) -> list[str]:
    changes = " with uncommitted changes" if _tag(run, tags.DIRTY) == "true" else ""
    commits = _tag(run, tags.COMMIT).split(tags.SEPARATOR)
    return [f"{commit[:_SHOWN_DIGITS]}{changes}" for commit in commits if commit]


def _differing(params: dict[str, str], others: dict[str, str], tuned: Sequence[Path]) -> set[Path]:
    """Return the paths that two trials both have with different values, except tuned ones."""
    return {
        path
        for path in params.keys() & others.keys()
        if params[path] != others[path]
        and not any(path == each or path.startswith(f"{each}.") for each in tuned)
    }


def _cell_and_repeat(run: Any) -> tuple[str, str]:
    return _tag(run, tags.CELL), _tag(run, tags.REPEAT)


def _tag(run: Any, name: str) -> str:
    return str(run.data.tags.get(tags.full_name(name), ""))
