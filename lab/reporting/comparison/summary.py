"""Conclusion and summary of a comparison, and the sections on its sweeps."""

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd

from lab.reporting import (
    code_notes,
    conclusion,
    confounding,
    sentences,
    stats,
    yardsticks,
)
from lab.reporting.comparison.comparability import list_doubts
from lab.reporting.comparison.sweep_results import SweepResult, join_frames, join_runs
from lab.reporting.conclusion import Headline
from lab.reporting.stats import Answer
from lab.tracking import tags

_BUDGET = tags.BUDGET_AMOUNT


class SweepSection(NamedTuple):
    """Section of a comparison on one of its sweeps.

    Attributes:
        name: name of the sweep.
        link: relative address of its own report, without the suffix of the file.
        facts: lines on the sweep.
        space: its search space; empty if the store does not have it.
    """

    name: str
    link: str
    facts: list[tuple[str, str]]
    space: str


def write_headline(sweeps: Sequence[SweepResult], answer: Answer | None, obstacle: str) -> Headline:
    """Return which settings of all sweeps are best, or why there is no answer.

    Args:
        sweeps: the sweeps.
        answer: comparison of all cells; None if there is none.
        obstacle: why scores are not comparable; empty if they are.
    """
    if obstacle:
        return Headline(f"No ranking: {obstacle}.")
    if answer is None:
        return Headline("No answer: no trial has finished.")
    frames, runs = join_frames(sweeps), join_runs(sweeps)
    if stats.has_learned(frames, answer, runs) is False:
        return Headline(conclusion.describe_no_learning(frames.metric.name, answer, runs))
    best = answer.cells[0]
    if len(budgets := _list_budgets(runs)) > 1:
        text = (
            f"{best.label} has the best mean score, {sentences.format_interval(best.score)}; the "
            f"trials have different budgets ({', '.join(budgets)}), so no setting is recommended."
        )
    else:
        text = conclusion.recommend(answer)
    doubt = yardsticks.describe_missing_evidence(frames, answer, runs)
    return Headline(text, (doubt,) if doubt else ())


def _list_budgets(runs: pd.DataFrame) -> list[str]:
    if _BUDGET not in runs:
        return []
    return [f"{amount:g}" for amount in sorted(runs[_BUDGET].dropna().unique())]


def list_facts(
    sweeps: Sequence[SweepResult], answer: Answer | None, *, across_code: bool
) -> list[tuple[str, str]]:
    """Return the lines of the summary.

    Args:
        sweeps: the sweeps.
        answer: comparison of all cells; None if there is none.
        across_code: whether trials of different code digests are compared.
    """
    names = [sweep.name for sweep in sweeps]
    command = shlex.join(["python", "-m", "lab.report", *names, *["--across-code"] * across_code])
    lines: list[tuple[str, str]] = []
    if answer is not None:
        frames, runs = join_frames(sweeps), join_runs(sweeps)
        metric = frames.metric
        lines = [
            *sentences.describe_best(answer),
            *yardsticks.describe_yardsticks(frames, answer, runs),
            ("ranked by", f"{metric.title} ({metric.name}, {metric.direction})"),
            *confounding.describe_confounding(frames),
            *confounding.describe_bias(frames),
        ]
    return [
        *lines,
        ("sweeps differ in", ", ".join(_list_differing(sweeps)) or "no setting"),
        ("reproduce", command),
    ]


def list_flags(sweeps: Sequence[SweepResult], *, ranked: bool) -> list[str]:
    """Return the warnings of the sweeps' own reports, and those on their comparison.

    Args:
        sweeps: the sweeps.
        ranked: whether the report has a ranking.
    """
    own = [
        f"{sweep.name}: {flag}"
        for sweep in sweeps
        for flag in stats.flag_trials(sweep.frames, sweep.answer)
    ]
    costs = [
        f"{sweep.name}: its second objective, {sweep.frames.cost}, has no part in this ranking."
        for sweep in sweeps
        if ranked and sweep.frames.cost is not None
    ]
    states = [(sweep.name, sweep.frames.sweep[tags.STATE]) for sweep in sweeps]
    unfinished = [f"{name} is {state}" for name, state in states if state != "finished"]
    common = [f"Not all sweeps have finished: {', '.join(unfinished)}."] * bool(unfinished)
    doubts = list_doubts(sweeps) if ranked else ()
    return [*doubts, *costs, *_count_shared(sweeps), *common, *own]


def _count_shared(sweeps: Sequence[SweepResult]) -> Iterator[str]:
    """Yield a sentence if sweeps have trials in common: they are one measurement, not two."""
    counts = pd.concat([sweep.runs["fingerprint"] for sweep in sweeps]).value_counts()
    if shared := int((counts > 1).sum()):
        yield (
            f"{shared} compared trial{'s' * (shared > 1)} of one configuration and seed "
            f"{'are' if shared > 1 else 'is'} part of more than one sweep."
        )


def _list_differing(sweeps: Sequence[SweepResult]) -> list[str]:
    """Return the settings whose values differ between the compared trials of sweeps, except seeds.

    Mappings that hold settings are left out, as are settings that only some trials have.
    """
    settings = [name for name in map(str, join_runs(sweeps)) if _is_setting(name)]
    outer = {name[:end] for name in settings for end, sign in enumerate(name) if sign == "."}
    return [
        name
        for name in sorted(set(settings) - outer)
        if len({_values(sweep.runs, name) for sweep in sweeps} - {frozenset()}) > 1
    ]


def _is_setting(name: str) -> bool:
    """Return whether a column of trials is the dotted path of a setting; `batch` has no dot."""
    is_path = "." in name and "/" not in name and not name.startswith("seeds.")
    return is_path or name == "batch"


def _values(runs: pd.DataFrame, name: str) -> frozenset[str]:
    return frozenset(map(sentences.format_value, runs[name].dropna()) if name in runs else ())


def list_sections(sweeps: Sequence[SweepResult]) -> list[SweepSection]:
    """Return the sections on the sweeps, with links to their own reports."""
    return [
        SweepSection(
            name=sweep.name,
            link=f"../{quote(sweep.name, safe='')}/report",
            facts=_list_sweep_facts(sweep),
            space=sweep.frames.texts.get(tags.SPACE_FILE, ""),
        )
        for sweep in sweeps
    ]


def _list_sweep_facts(sweep: SweepResult) -> list[tuple[str, str]]:
    frames = sweep.frames
    states = frames.trials["state"].value_counts()
    return [
        ("question", frames.sweep[tags.QUESTION]),
        ("its own answer", str(conclusion.write_headline(frames, sweep.answer, sweep.runs))),
        ("valid for", conclusion.describe_validity(frames)),
        ("trials", ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"),
        ("cost", sentences.describe_compute(frames)),
        *(("code", note) for note in code_notes.describe_codes(frames)),
        *code_notes.list_provenance(frames),
        ("texts and test sets", frames.sweep.get(tags.DATA, sentences.NONE)),
        ("state", frames.sweep[tags.STATE]),
        ("reproduce", frames.sweep.get(tags.COMMAND, sentences.NONE)),
    ]
