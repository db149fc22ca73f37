"""Sentences of a report on the code that computed its trials."""

import shlex

from lab.reporting import sentences
from lab.tracking import tags
from lab.tracking.code_versions import CodeVersion
from lab.tracking.frames import SweepFrames


def describe_codes(frames: SweepFrames) -> list[str]:
    """Return sentences on trials of several code digests; none if the sweep has only one digest.

    The first one names the digests in the report. Others name the trials that are left out.
    """
    codes, omitted = frames.codes, frames.omitted_codes
    notes = []
    if len(codes) > 1:
        notes.append(
            f"The trials were computed by {len(codes)} versions of the code, which are compared "
            f"like settings: {_list(codes)}."
        )
    other_code = [each for each in omitted if not each.differing]
    if other_code:
        command = f"python -m lab.report {shlex.quote(frames.name)} --across-code"
        notes.append(
            f"{_count(sum(each.trials for each in other_code))} of other versions of the code are "
            f"left out: {_list(other_code)}; `{command}` compares them too."
        )
    notes += [
        f"{_list([each])} are left out, because they have other values of "
        f"{', '.join(each.differing)}."
        for each in omitted
        if each.differing
    ]
    return notes


def list_provenance(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return code digest, versions, commit and machine of the trials, by name.

    Several values of a name are followed by their numbers of trials.
    """
    lines = []
    for name in (tags.CODE, *tags.PROCESS):
        counts = frames.trials[name].replace("", sentences.NONE).value_counts(sort=False)
        values = [str(value) for value in counts.index]
        if len(values) > 1:
            values = [f"{value} ({_count(n)})" for value, n in counts.items()]
        lines.append((name, "; ".join(values) or sentences.NONE))
    return lines


def _list(codes: "list[CodeVersion] | tuple[CodeVersion, ...]") -> str:
    return ", ".join(
        f"{_count(each.trials)} of code {each.code or 'without a digest'}{_commits(each)}"
        for each in codes
    )


def _commits(version: CodeVersion) -> str:
    if not version.commits:
        return ""
    commits = " and ".join(version.commits)
    return f" (commit{'s' * (len(version.commits) > 1)} {commits})"


def _count(trials: int) -> str:
    return f"{trials} trial{'s' * (trials != 1)}"
