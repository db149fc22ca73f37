"""What a report concludes in one sentence, and what that is valid for."""

import json
import math
from typing import Any

import pandas as pd

from lab.reporting import sentences, stats
from lab.reporting.compute_to_learn import advise_budget
from lab.reporting.stats import Answer
from lab.tracking.frames import SweepFrames
from lab.tracking.store import SUPERSEDED


def write_headline(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> str:
    """Return the answer to a sweep's question, or why there is none.

    Args:
        frames: the sweep.
        result: its comparison; None where no trial has finished.
        runs: the trials that were compared (`stats.scored`).
    """
    if frames.answer == "path":
        return _path(frames)
    if result is None:
        return "No answer: no trial has finished."
    if frames.answer == "noise":
        return _noise(frames, result)
    if stats.has_learned(frames, result, runs) is False:
        return _nothing_learned(frames.metric.name, result, runs)
    if frames.compare and all(path.startswith("budget.") for path in frames.compare):
        best = result.cells[0]
        return f"{best.label} has the best mean, {sentences.interval(best.score)}; {_NO_SETTING}."
    return _ranking(result)


_NO_SETTING = "only budgets were compared, so no setting is recommended"


def _ranking(result: Answer) -> str:
    best = result.cells[0]
    setting = best.label + (f" with {best.tuned}" if best.tuned else "")
    if len(result.cells) == 1:
        return f"Only one setting has a score: {setting}."
    if result.separable:
        return f"Take {setting}."
    rest = len(result.cells) - len(result.tie)
    worse = f"; the other {rest} are worse" if rest > 1 else "; the other is worse" if rest else ""
    return f"Not separable: {'; '.join(result.tie)}{worse}."


def _path(frames: SweepFrames) -> str:
    asked = frames.trials[frames.trials["role"] != SUPERSEDED]
    states = asked["state"].value_counts()
    finished, total = int(states.get("finished", 0)), len(asked)
    if total and finished == total and frames.sweep["state"] == "finished":
        return f"The whole path works: {total} of {total} trials finished, from text to report."
    others = [f"{n} {state}" for state, n in sorted(states.items()) if state != "finished"]
    listed = f" ({', '.join(others)})" if others else ""
    return f"The path does not work yet: {finished} of {total} trials finished{listed}."


def _noise(frames: SweepFrames, result: Answer) -> str:
    known = [cell.sd for cell in result.cells if not math.isnan(cell.sd)]
    if not known:
        return "No answer: no setting has two finished repeats; no setting is recommended."
    ends = dict.fromkeys(sentences.score(end) for end in (min(known), max(known)))
    return (
        f"Seeds alone spread {frames.metric.name} by a standard deviation of "
        f"{' to '.join(ends)}; no setting is recommended."
    )


def _nothing_learned(metric: str, result: Answer, runs: pd.DataFrame) -> str:
    best = result.cells[0]
    mine = runs[runs["cell"] == best.label]
    before = mine["untrained"].mean()
    scratch = "init_from.kind" not in mine or bool((mine["init_from.kind"] == "scratch").all())
    start = "the untrained encoder" if scratch else "the score at its start"
    line = "chance, 0.5" if math.isnan(before) else f"{start}, {sentences.score(before)}"
    said = (
        f"Nothing was learned that {metric} shows: the best mean, {sentences.interval(best.score)} "
        f"of {best.label}, is not told apart from {line}."
    )
    return f"{said} {_advice(mine)}".strip() if scratch else said


def _advice(runs: pd.DataFrame) -> str:
    needed = ("encoder.hidden", "encoder.layers", "spent/flops")
    if any(name not in runs for name in needed):
        return ""
    hidden, layers, flops = (float(runs[name].mean()) for name in needed)
    return advise_budget(round(hidden), round(layers), flops)


def list_facts(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the lines of the card that a sweep's kind of answer calls for."""
    if frames.answer == "path":
        return []
    if frames.answer == "noise":
        return _spreads(frames, result, runs)
    return sentences.effects(frames, result, runs)


def _spreads(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> list[tuple[str, str]]:
    by_label = {cell.label: cell for cell in result.cells}
    order = [by_label[name] for name in frames.trials["cell"].unique() if name in by_label]
    spread = "; ".join(f"{c.label}: sd {sentences.score(c.sd)} ({c.score.n} seeds)" for c in order)
    lines = [("noise floor", spread)]
    above = {cell.label: stats.is_above_untrained(frames, runs, cell) for cell in order}
    if all(known is None for known in above.values()):
        return lines
    shows = "; ".join(name for name, known in above.items() if known) or "no setting"
    return [*lines, ("training shows", f"mean above untrained, by its 95 % interval: {shows}")]


def describe_validity(frames: SweepFrames) -> str:
    """Return size, budget, window, text and objective of a sweep's trials, in one line."""
    trials = frames.trials
    if "encoder.hidden" not in trials:
        return sentences.NONE
    shapes = trials[["encoder.hidden", "encoder.layers"]].dropna().drop_duplicates()
    sizes = [
        f"{hidden:g} wide × {layers:g} layer{'s' if layers > 1 else ''}"
        for hidden, layers in shapes.to_numpy()
    ]
    unit = _values(trials, "budget.kind").replace("flops", "FLOPs")
    parts = [
        f"encoder {' and '.join(sizes)}",
        f"{_values(trials, 'budget.amount')} {unit} a run",
        f"windows of {_values(trials, 'data.length')}",
        _texts(trials),
        f"{_values(trials, 'data.vocab')} tokens in the vocabulary",
        f"objective {_values(trials, 'objective.kind')}",
    ]
    return ", ".join(parts)


def _values(trials: pd.DataFrame, path: str) -> str:
    """Return the different values at a path: `16`, `16 and 32`."""
    *most, last = map(sentences.plain, trials[path].dropna().unique().tolist())
    return f"{', '.join(most)} and {last}" if most else last


def describe_contamination(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return how much of the task that ranks trials stands in their training text.

    Nothing where no task ranks them, or where nothing was counted.
    """
    task = frames.metric.task
    counted = json.loads(frames.sweep.get("overlaps", "{}"))
    found = [
        f"{overlap['found']:,} of {overlap['questions'] - overlap['short']:,} questions of {task}, "
        f"which ranks the trials, share 13 tokens in a row with the training text {text}"
        for text, overlaps in counted.items()
        for overlap in overlaps
        if overlap["task"] == task
    ]
    return [("contamination", "; ".join(found))] if found else []


def _texts(trials: pd.DataFrame) -> str:
    columns = [n for n in map(str, trials) if n == "data.share" or n.startswith("data.source.")]
    found = [
        _text({str(name).removeprefix("data."): value for name, value in row.items()})
        for row in trials[columns].drop_duplicates().dropna(how="all").to_dict("records")
    ]
    return " and ".join(dict.fromkeys(found))


def _text(row: dict[Any, Any]) -> str:
    kind, share = row.get("source.kind"), float(row.get("share", 1))
    match kind:
        case "embedded":
            name = "the lab's embedded English"
        case "mixture":
            name = "a mixture of sources"
        case _:
            keys = ("source.name", "source.path", "source.paths")
            name = next(
                (text for key in keys if isinstance(text := row.get(key), str)), "text unknown"
            )
    return name if share >= 1 else f"{share:.3g} of {name}"
