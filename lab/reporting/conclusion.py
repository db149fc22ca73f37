"""Conclusion of a report in a few sentences, and the lines of its summary."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lab.reporting import other_scores, sentences, stats, yardsticks
from lab.reporting.compute.budget_to_learn import advise_budget
from lab.reporting.pareto.front import compute_front
from lab.reporting.pareto.sentences import describe_front
from lab.reporting.power.sentences import describe_power
from lab.reporting.stats import Answer, Cell
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

_SHOWN = 8  # labels or values that a sentence lists
_TRAINING = {
    "objective.mask_prob": "mask probability",
    "optim.kind": "optimizer",
    "optim.lr": "learning rate",
}


@dataclass(frozen=True)
class Headline:
    """The conclusion of a report.

    Attributes:
        answer: the answer to the question, or the reason why there is none.
        doubts: sentences on other scores and on missing evidence; empty if there is nothing to add.
    """

    answer: str
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.answer, *self.doubts))


def write_headline(frames: SweepFrames, result: Answer | None, runs: pd.DataFrame) -> Headline:
    """Return the answer to a sweep's question, with remarks on other scores and missing evidence.

    If budgets and other settings are compared, the answer compares the settings at the largest
    budget, because a setting with more compute is better in most cases.

    Args:
        frames: frames of the sweep.
        result: comparison of the cells; None if no trial has finished.
        runs: trials by which the cells are compared (`stats.scored_trials`).
    """
    if frames.answer == "path":
        return Headline(_describe_completion(frames))
    if result is None:
        return Headline("No answer: no trial has finished.")
    if frames.answer == "noise":
        return Headline(_describe_noise(frames, result))
    if _select_largest_budget(frames) is not None:
        headline = write_headline(*select_ranked(frames, result, runs))
        return Headline(f"At the largest budget: {headline.answer}", headline.doubts)
    if stats.has_learned(frames, result, runs) is False:
        return Headline(describe_no_learning(frames.metric.name, result, runs))
    if frames.cost is not None and (front := compute_front(frames)) is not None:
        answer = describe_front(frames, front, frames.cost)
    elif frames.compare and all(path.startswith("budget.") for path in frames.compare):
        best = result.cells[0]
        answer = (
            f"{best.label} has the best mean score, {sentences.format_interval(best.score)}; only "
            f"budgets were compared, so no setting is recommended."
        )
    else:
        answer = recommend(result)
    disagreements = other_scores.find_disagreements(frames, result, runs)
    doubts = (
        _describe_edges(frames, result),
        other_scores.summarize_disagreements(disagreements),
        yardsticks.describe_missing_evidence(frames, result, runs),
    )
    return Headline(answer, tuple(filter(None, doubts)))


def _select_largest_budget(frames: SweepFrames) -> SweepFrames | None:
    """Return the trials of the largest budget, if budgets and other settings are compared.

    None otherwise, without a finished trial there, and for a sweep with a second objective.
    """
    amounts = frames.compare.get(tags.BUDGET_AMOUNT, [])
    others = [path for path in frames.compare if not path.startswith("budget.")]
    if len(amounts) < 2 or not others or tags.BUDGET_KIND in frames.compare or frames.cost:
        return None
    largest = max(float(str(amount)) for amount in amounts)
    trials = frames.trials[frames.trials[tags.BUDGET_AMOUNT] == largest]
    if not trials["score"].notna().any():
        return None
    compare = frames.compare | {tags.BUDGET_AMOUNT: [largest]}
    reference = json.loads(frames.sweep[tags.REFERENCE]) | {tags.BUDGET_AMOUNT: largest}
    changed = {tags.COMPARE: json.dumps(compare), tags.REFERENCE: json.dumps(reference)}
    return replace(frames, trials=trials, sweep=frames.sweep | changed)


def recommend(result: Answer) -> str:
    """Return the sentence that recommends the best cell, or names those that are tied."""
    best = result.cells[0]
    setting = best.label + (f" with {best.tuned}" if best.tuned else "")
    missing = f" Without a score: {'; '.join(result.missing)}." if result.missing else ""
    if len(result.cells) == 1:
        return f"Only one setting has a score: {setting}{_describe_divergence(best)}.{missing}"
    if result.separable:
        return f"Recommended setting: {setting}{_describe_divergence(best)}.{missing}"
    tied = [cell.label + _describe_divergence(cell) for cell in result.cells[1:] if cell.tied]
    worse = [cell.label + _describe_divergence(cell) for cell in result.cells[1:] if not cell.tied]
    text = f"{setting}{_describe_divergence(best)} has the best mean score."
    for introduction, labels in (
        ("Not separable from it", tied),
        ("Significantly worse", worse),
    ):
        if labels:
            text += f" {introduction}: {_list_labels(labels)}."
    return f"{text}{missing}"


def _list_labels(labels: list[str]) -> str:
    """Return the first labels and the number of the others."""
    more = len(labels) - _SHOWN
    return "; ".join(labels[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _describe_edges(frames: SweepFrames, result: Answer) -> str:
    """Return a sentence on the tuned settings that are best at an end of their range."""
    total = len(result.cells)
    counts = {
        path: sum(path in stats.edge_values(frames, cell) for cell in result.cells)
        for path in frames.tune
    }
    parts = [f"{path} in {count} of {total}" for path, count in counts.items() if count]
    if not parts:
        return ""
    return f"The best value is at an end of the tried range: {', '.join(parts)} settings."


def _describe_divergence(cell: Cell) -> str:
    """Return the number of a cell's repeats that diverged, in parentheses; empty if none did."""
    if not cell.diverged:
        return ""
    return f" ({cell.diverged} of {cell.diverged + cell.score.n} repeats diverged)"


def _describe_completion(frames: SweepFrames) -> str:
    trials = frames.trials[frames.trials["role"] != tags.SUPERSEDED]
    states = trials["state"].value_counts()
    finished, total = int(states.get("finished", 0)), len(trials)
    if total and finished == total and frames.sweep[tags.STATE] == "finished":
        return f"All steps from text to report work: {total} of {total} trials finished."
    others = [f"{n} {state}" for state, n in sorted(states.items()) if state != "finished"]
    listed = f" ({', '.join(others)})" if others else ""
    return (
        f"Not all steps from text to report have worked: {finished} of {total} trials "
        f"finished{listed}."
    )


def _describe_noise(frames: SweepFrames, result: Answer) -> str:
    deviations = [cell.sd for cell in result.cells if not math.isnan(cell.sd)]
    if not deviations:
        return "No answer: no setting has two finished repeats; no setting is recommended."
    ends = dict.fromkeys(sentences.format_score(end) for end in (min(deviations), max(deviations)))
    return (
        f"Between trials that differ only in their seeds, {frames.metric.name} has a standard "
        f"deviation of {' to '.join(ends)}; no setting is recommended."
    )


def describe_no_learning(metric: str, result: Answer, runs: pd.DataFrame) -> str:
    """Return the conclusion where the best cell is not better than before training."""
    best = result.cells[0]
    best_runs = runs[runs["cell"] == best.label]
    before = best_runs["untrained"].mean()
    from_scratch = "init_from.kind" not in best_runs or bool(
        (best_runs["init_from.kind"] == "scratch").all()
    )
    start = "the untrained encoder" if from_scratch else "the encoder at the start of training"
    baseline = "chance, 0.5" if math.isnan(before) else f"{start}, {sentences.format_score(before)}"
    text = (
        f"{metric} shows no learning: the best mean score, {sentences.format_interval(best.score)} "
        f"for {best.label}, is not significantly better than {baseline}."
    )
    return f"{text} {_advise(best_runs)}".strip() if from_scratch else text


def _advise(runs: pd.DataFrame) -> str:
    columns = ("encoder.hidden", "encoder.layers", "spent/flops")
    if any(name not in runs for name in columns):
        return ""
    hidden, layers, flops = (float(runs[name].mean()) for name in columns)
    return advise_budget(round(hidden), round(layers), flops)


def list_facts(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the lines of the summary that depend on the sweep's kind of answer."""
    if frames.answer == "path":
        return []
    if frames.answer == "noise":
        return _list_noise(frames, result, runs)
    ranked, best, own = select_ranked(frames, result, runs)
    assert best is not None  # noqa: S101 - trials of the largest budget have scores
    return [
        *_describe_selected_budget(frames),
        *_describe_budgets(frames, result),
        *sentences.describe_effects(ranked, replace(best, multiplier=result.multiplier)),
        *yardsticks.describe_yardsticks(ranked, best, own),
        *other_scores.describe_disagreements(ranked, best, own),
        *_describe_selection(ranked, best),
        *describe_power(ranked, best, own),
    ]


def select_ranked(
    frames: SweepFrames, result: Answer | None, runs: pd.DataFrame
) -> tuple[SweepFrames, Answer | None, pd.DataFrame]:
    """Return the frames, comparison and trials that the answer is about.

    They are those of the largest budget if budgets and other settings are compared, and the
    arguments otherwise.
    """
    largest = _select_largest_budget(frames)
    if largest is None:
        return frames, result, runs
    return largest, stats.compute_answer(largest), stats.scored_trials(largest)


def _describe_selected_budget(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return a summary line on the budget that the answer is about; empty if it is about all."""
    if (largest := _select_largest_budget(frames)) is None:
        return []
    (amount,) = largest.compare[tags.BUDGET_AMOUNT]
    unit = largest.trials[tags.BUDGET_KIND].iloc[0]
    text = (
        f"{amount:g} {unit}: the answer and the lines on effects, scores, noise, power and ties "
        f"are about its trials; compute, cost and trials are those of all budgets"
    )
    return [("largest budget", text)]


def _describe_budgets(frames: SweepFrames, result: Answer) -> list[tuple[str, str]]:
    """Return a summary line with the best mean at each budget; empty for a single budget."""
    if _select_largest_budget(frames) is None:
        return []
    amounts = frames.trials.groupby("cell")[tags.BUDGET_AMOUNT].first()
    starts = frames.trials.groupby("cell")["untrained"].mean()
    best: dict[float, str] = {}
    for cell in result.cells:  # the best one first
        best.setdefault(
            float(amounts[cell.label]),
            f"{cell.label}: {sentences.format_score(cell.score.mean)}"
            + (
                ""
                if math.isnan(starts[cell.label])
                else f", {sentences.format_score(starts[cell.label])} before training"
            ),
        )
    return [("best mean at each budget", "\n".join(text for _, text in sorted(best.items())))]


def _describe_selection(frames: SweepFrames, result: Answer) -> list[tuple[str, str]]:
    """Return a summary line on the selection of nuisance parameters.

    Empty if there was no selection, or if there are no differences that it could affect.
    """
    if len(result.cells) == 1:
        return []
    if result.settings:
        text = (
            f"each setting is represented by the nuisance parameters with the best mean; the "
            f"intervals of differences hold for all {result.settings} combinations at once, so "
            f"they contain the error of this selection"
        )
    elif result.confirmed and (frames.trials.loc[_is_searched(frames), "tuned"].nunique() > 1):
        text = (
            "the nuisance parameters of each setting were selected by one trial per candidate; the "
            "intervals of differences are widened for the case that the second-best candidate is "
            "the better one, by its search score and the noise of one trial"
        )
    else:
        return []
    return [("selection", text)]


def _is_searched(frames: SweepFrames) -> "pd.Series[bool]":
    return frames.trials["role"] == "search"


def _list_noise(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> list[tuple[str, str]]:
    by_label = {cell.label: cell for cell in result.cells}
    cells = [by_label[name] for name in frames.trials["cell"].unique() if name in by_label]
    noise = "; ".join(
        f"{cell.label}: standard deviation {sentences.format_score(cell.sd)} ({cell.score.n} seeds)"
        for cell in cells
    )
    lines = [("seed noise", noise)]
    above = {cell.label: stats.is_above_untrained(frames, runs, cell) for cell in cells}
    if all(better is None for better in above.values()):
        return lines
    labels = "; ".join(label for label, better in above.items() if better) or "no setting"
    lines.append(("significantly better than untrained", f"{labels} (95 % interval of the mean)"))
    if beaten := yardsticks.list_beaten(frames, runs, cells):
        lines.append(("significantly better than look-up tables", beaten))
    return lines


def describe_validity(frames: SweepFrames) -> str:
    """Return encoder, budget, window, text, vocabulary and objective of the trials, in one line.

    The budgets of trials that ended at a rung of the search are left out.
    """
    compared = frames.trials[frames.trials["state"] != "stopped"]
    trials = frames.trials if compared.empty else compared
    if "encoder.hidden" not in trials:
        return sentences.NONE
    shapes = trials[["encoder.hidden", "encoder.layers"]].dropna().drop_duplicates()
    hidden: dict[int, list[str]] = {}
    for width, layers in shapes.to_numpy():
        hidden.setdefault(int(layers), []).append(f"{width:g}")
    sizes = [
        f"{layers} layer{'s' if layers > 1 else ''} of hidden size {_join_choices(widths)}"
        for layers, widths in hidden.items()
    ]
    unit = _values(trials, "budget.kind").replace("flops", "FLOPs")
    parts = [
        f"encoder with {_join_choices(sizes)}",
        f"{_values(trials, 'budget.amount')} {unit} per trial",
        f"windows of {_values(trials, 'data.length')} tokens",
        f"training text: {_list_texts(trials)}",
        f"vocabulary of {_values(trials, 'data.vocab')} tokens",
        f"objective {_values(trials, 'objective.kind')}",
        *_describe_training(trials, frames),
    ]
    return ", ".join(parts)


def _describe_training(trials: pd.DataFrame, frames: SweepFrames) -> list[str]:
    """Return mask probability, optimizer and learning rate of the trials, where they are known."""
    parts = []
    for path, name in _TRAINING.items():
        if path not in trials or trials[path].isna().all():
            continue
        if path in frames.tune:
            parts.append(f"{name} tuned")
        elif trials[path].nunique() > _SHOWN:
            ends = (trials[path].min(), trials[path].max())
            parts.append(f"{name} {' to '.join(map(sentences.format_value, ends))}")
        else:
            parts.append(f"{name} {_values(trials, path)}")
    return parts


def _join_choices(texts: list[str]) -> str:
    *most, last = texts
    return f"{', '.join(most)} or {last}" if most else last


def _values(trials: pd.DataFrame, path: str) -> str:
    """Return the distinct values of a parameter as text: `16`, `16 and 32`."""
    *most, last = map(sentences.format_value, trials[path].dropna().unique().tolist())
    return f"{', '.join(most)} and {last}" if most else last


def describe_contamination(frames: SweepFrames) -> list[tuple[str, str]]:
    """Return a summary line on the overlap of the ranking task with the training text.

    Empty if no task ranks the trials, or if the sweep did not count overlaps.
    """
    task = frames.metric.task
    counted = json.loads(frames.sweep.get(tags.OVERLAPS, "{}"))
    counts = [
        f"{overlap['found']:,} of {overlap['questions'] - overlap['short']:,} examples of {task}, "
        f"the task that ranks the trials, share 13 consecutive tokens with the training text {text}"
        + (", from which these lines were removed" if overlap.get("removed") else "")
        for text, overlaps in counted.items()
        for overlap in overlaps
        if overlap["task"] == task
    ]
    return [("contamination", "; ".join(counts))] if counts else []


def _list_texts(trials: pd.DataFrame) -> str:
    columns = [n for n in map(str, trials) if n == "data.share" or n.startswith("data.source.")]
    texts = [
        _describe_text({str(name).removeprefix("data."): value for name, value in row.items()})
        for row in trials[columns].drop_duplicates().dropna(how="all").to_dict("records")
    ]
    return " and ".join(dict.fromkeys(texts))


def _describe_text(row: dict[Any, Any]) -> str:
    kind, share = row.get("source.kind"), float(row.get("share", 1))
    match kind:
        case "embedded":
            name = "the embedded English text"
        case "mixture":
            name = "a mixture of sources"
        case _:
            keys = ("source.name", "source.path", "source.paths")
            name = next((text for key in keys if isinstance(text := row.get(key), str)), "unknown")
    return name if share >= 1 else f"a fraction of {share:.3g} of {name}"
