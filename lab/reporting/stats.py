"""Compare the cells of a sweep: means, intervals, the best cell, and warnings about them.

Cells are compared by repeats. Repeat i has the same seeds in every cell (common random numbers).
The intervals of differences (`intervals`) hold for the best cell against all others at once: a
sweep that compares only seeds finds a best cell with a probability of at most 5 %.

The repeats are those of a cell's best setting, with seeds that the search did not use. If every
setting was repeated (`SearchConfig.repeated`), a cell is represented by its setting with the best
mean, and the intervals hold for all settings of all cells at once. Otherwise the intervals are
widened by the error of the search (`intervals.add_search_error`).

A diverged repeat counts as the worst score of all compared trials, the scores before training
included. A repeat that is missing for another reason is left out, and the means of the cells are
adjusted for it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lab.config.metrics import UNDEFINED, Metric
from lab.config.trial import Path
from lab.reporting.compared_scores import (
    crossed_trials,
    diverged_repeats,
    fill_diverged,
    read_scores,
    score_table,
)
from lab.reporting.compute.multiplier import ComputeMultiplier, compute_multiplier
from lab.reporting.finite_test_set import TestSetErrors, add_test_error, read_errors
from lab.reporting.intervals import (
    Interval,
    block_means,
    pooled_deviation,
    t_interval,
)
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

_EDGE = 0.05  # fraction of a range, at either end, that counts as its edge
_FEW = 3  # with fewer repeats, the report warns that intervals are too wide
_BINS = 5  # of a numeric nuisance parameter in `marginal_means`
_LOST = ("diverged", "failed")  # states of ended trials without a score
_CHANCE = 0.5  # AUROC of random predictions

Difference = Callable[[str, str], Interval]  # of two cells, by their labels


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Results of one cell (one combination of compared values).

    Attributes:
        label: name of the cell.
        score: mean score of the finished repeats, with its t interval.
        sd: standard deviation of the scores of the finished repeats; NaN with fewer than two.
        diverged: number of repeats that diverged.
        difference: mean of this cell minus the best cell, over common repeats, in which a diverged
            one has the worst score; None for the best cell.
        tied: whether the cell is the best or is not significantly worse.
        tuned: label of the best nuisance parameters.
        picked: score of the search trial that chose the nuisance parameters; optimistic, because
            it is the best of several scores. NaN if every setting was repeated.
        settings: values of the compared and tuned settings, by dotted path.
    """

    label: str
    score: Interval
    sd: float
    diverged: int
    difference: Interval | None
    tied: bool
    tuned: str
    picked: float
    settings: dict[Path, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The comparison of all cells that have a score.

    Attributes:
        cells: results of the cells, best first, in the order of their means adjusted for missing
            repeats (`intervals.block_means`).
        reference: cell that equals the base, or the first cell; None if it has no score.
        effect: best minus reference, over common repeats; None if they are the same cell.
        multiplier: compute multiplier of the best cell's setting against the reference; None if the
            scores do not limit it.
        noise_sd: pooled standard deviation between repeats of the same cell; NaN without repeats.
        test_error: largest standard error of a difference from the best cell due to the finite test
            set; NaN if it is unknown.
        confirmed: whether the scores are those of repeats, not of single search trials.
        settings: number of settings among which the compared ones were selected by their repeats,
            where every setting was repeated; null otherwise.
        missing: labels of the cells without a finished trial.
    """

    cells: tuple[Cell, ...]
    reference: Cell | None
    effect: Interval | None
    multiplier: ComputeMultiplier | None
    noise_sd: float
    confirmed: bool
    test_error: float
    settings: int | None
    missing: tuple[str, ...]

    @property
    def tied_labels(self) -> tuple[str, ...]:
        """Labels of the best cell and of all cells that do not differ significantly from it."""
        return tuple(cell.label for cell in self.cells if cell.tied)

    @property
    def separable(self) -> bool:
        """Whether one cell is significantly better than every other."""
        return len(self.cells) > 1 and len(self.tied_labels) == 1


def scored_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the trials by which cells are compared.

    These are the finished repeats. If every setting was repeated, these are the finished trials of
    each cell's best setting. If there are no repeats, these are the best finished search trials,
    one per cell. (The other search trials of a cell have other nuisance parameters, so their spread
    does not measure the noise between seeds.) A sweep with a second objective repeats several
    settings of a cell; here it is represented by the one with the best search score, as in a sweep
    without it, and `pareto.front` compares them all.
    """
    crossed = crossed_trials(frames)
    if len(crossed):
        return _best_settings(crossed, frames.metric)
    finished = frames.trials[frames.trials["score"].notna()]
    repeats = finished[finished["role"] == "repeat"]
    if repeats.empty:
        return _best_search_trials(frames)
    return repeats if frames.cost is None else _select_best_scores(frames, repeats)


def _select_best_scores(frames: SweepFrames, repeats: pd.DataFrame) -> pd.DataFrame:
    """Return the repeats of the setting of each cell that has the best search score."""
    repeated = pd.MultiIndex.from_frame(repeats[["cell", "tuned"]])
    searched = frames.trials[frames.trials["role"] == "search"]
    known = searched[pd.MultiIndex.from_frame(searched[["cell", "tuned"]]).isin(repeated)]
    best = _best_search_trials(replace(frames, trials=known))
    if best.empty:  # nothing is tuned
        return repeats
    return repeats[repeated.isin(pd.MultiIndex.from_frame(best[["cell", "tuned"]]))]


def _best_settings(crossed: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return the finished trials of each cell's best setting.

    A setting with more trials that diverged than another one of the cell ranks below it. Means are
    adjusted for trials that are missing for another reason (`intervals.block_means`).
    """
    sign = 1 if _is_maximized(metric) else -1
    finished = crossed[crossed["score"].notna()]
    if finished.empty:
        return finished
    scores = finished.pivot_table(
        index="repeat", columns=["cell", "tuned"], values="score", sort=False
    )
    settings = (
        crossed.assign(diverged=crossed["state"] == "diverged")
        .groupby(["cell", "tuned"], sort=False)
        .agg(diverged=("diverged", "sum"))
        .assign(mean=-sign * block_means(scores))
        .dropna(subset="mean")
        .sort_values(["diverged", "mean"], kind="stable")
        .reset_index()
        .drop_duplicates("cell")
    )
    best = pd.MultiIndex.from_frame(settings[["cell", "tuned"]])
    chosen = pd.MultiIndex.from_frame(crossed[["cell", "tuned"]]).isin(best)
    return crossed[chosen & crossed["score"].notna()]


def _best_search_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the best finished search trial of each cell, where each setting has only one."""
    trials = frames.trials
    single = (trials["role"] == "search") & (trials["repeat"] == 0)
    search = trials[trials["score"].notna() & single]
    ordered = search.sort_values("score", ascending=not _is_maximized(frames.metric), kind="stable")
    return ordered.drop_duplicates("cell").sort_values("number")


def _is_maximized(metric: Metric) -> bool:
    return metric.direction == "maximize"


def compute_answer(frames: SweepFrames) -> Answer | None:
    """Return the comparison of the cells, or None if no trial has finished."""
    runs = scored_trials(frames)
    if runs.empty:
        return None
    settings = _count_settings(frames)
    diverged = diverged_repeats(frames, runs)
    finished = score_table(runs)
    table = fill_diverged(finished, runs, diverged, frames.metric)
    errors, difference = read_errors(frames, runs), compare_cells(frames, runs)
    means = block_means(table).sort_values(
        ascending=not _is_maximized(frames.metric), kind="stable"
    )
    best = str(means.index[0])
    counts = diverged["cell"].value_counts()
    picked = _best_search_trials(frames).set_index("cell")["score"]
    cells = tuple(
        _cell(
            frames,
            runs,
            str(label),
            errors,
            difference=None if label == best else difference(str(label), best),
            diverged=int(counts.get(label, 0)),
            picked=float(picked.get(label, math.nan)),
        )
        for label in means.index
    )
    reference = next((cell for cell in cells if cell.label == frames.reference), None)
    differs = reference is not None and reference.label != best
    return Answer(
        cells=cells,
        reference=reference,
        effect=difference(best, frames.reference) if differs else None,
        multiplier=compute_multiplier(
            frames, runs, best, errors.of_difference(best, frames.reference)
        ),
        test_error=worst_error(errors, best, means.index),
        noise_sd=pooled_deviation(finished),
        confirmed=settings is not None or bool((runs["role"] == "repeat").all()),
        settings=settings,
        missing=tuple(c for c in frames.trials["cell"].unique() if c not in means.index),
    )


def _count_settings(frames: SweepFrames) -> int | None:
    """Return the number of settings of a sweep that repeats each of them; None for other sweeps."""
    return len(crossed_trials(frames)[["cell", "tuned"]].drop_duplicates()) or None


def compare_cells(frames: SweepFrames, runs: pd.DataFrame) -> Difference:
    """Return the function that gives the interval of the difference between two cells.

    The intervals contain the error of the seeds, of the selection of nuisance parameters, and of
    the finite test set, and hold for all pairs of cells at once.

    Args:
        frames: frames of the sweep. With another ranking metric (`SweepFrames.rank_by`), the
            intervals are those of that metric.
        runs: trials by which the cells are compared.
    """
    scores, errors = read_scores(frames, runs), read_errors(frames, runs)

    def difference(label: str, other: str) -> Interval:
        error = errors.of_difference(label, other)
        return add_test_error(scores.difference(label, other), error, scores.settings)

    return difference


def worst_error(errors: TestSetErrors, best: str, labels: Iterable[str]) -> float:
    """Return the largest known error of a difference from the best cell; NaN if none is known."""
    known = [errors.of_difference(str(label), best) for label in labels if label != best]
    return max((error for error in known if not math.isnan(error)), default=math.nan)


def _cell(
    frames: SweepFrames,
    runs: pd.DataFrame,
    label: str,
    errors: TestSetErrors,
    *,
    difference: Interval | None,
    diverged: int,
    picked: float,
) -> Cell:
    cell_runs = runs[runs["cell"] == label]
    scores = cell_runs["score"].to_numpy(dtype=float)
    first = cell_runs.iloc[0]
    return Cell(
        label=label,
        score=add_test_error(t_interval(scores), errors.of_mean(label)),
        sd=float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
        diverged=diverged,
        difference=difference,
        tied=difference is None or not is_worse(difference, frames.metric),
        tuned=str(first["tuned"]),
        picked=picked,
        settings={path: first[path] for path in (*frames.compare, *frames.tune)},
    )


def is_worse(gap: Interval, metric: Metric) -> bool:
    """Return whether the interval of a difference from the best cell has only worse scores."""
    return gap.high < 0 if _is_maximized(metric) else gap.low > 0


def gain_over_untrained(frames: SweepFrames, runs: pd.DataFrame, label: str) -> Interval:
    """Return mean and interval of a cell's gain since step 0; NaN if step 0 was not scored.

    The interval contains the error of the finite test set if it is known
    (`TestSetErrors.of_gain`).
    """
    cell_runs = runs[runs["cell"] == label]
    gains = cell_runs["score"] - cell_runs["untrained"]
    seeds_only = t_interval(gains.dropna().to_numpy(dtype=float))
    return add_test_error(seeds_only, read_errors(frames, cell_runs).of_gain(label))


def is_above_untrained(frames: SweepFrames, runs: pd.DataFrame, cell: Cell) -> bool | None:
    """Return whether a cell scores significantly better than its trials did before training.

    The 95 % interval of the gain since step 0 must contain only improvements, if step 0 was
    scored. An AUROC's interval must also be above chance. None if there is no interval.
    """
    sign = 1 if _is_maximized(frames.metric) else -1
    gain = gain_over_untrained(frames, runs, cell.label)
    margins = [sign * end for end in (gain.low, gain.high)]
    if frames.metric.name.endswith("/auroc"):
        margins.append(cell.score.low - _CHANCE)
    known = [margin for margin in margins if not math.isnan(margin)]
    return all(margin > 0 for margin in known) if known else None


def has_learned(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> bool | None:
    """Return `is_above_untrained` of the best cell."""
    return is_above_untrained(frames, runs, result.cells[0])


def last_search_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the search trials without those that ended at a rung that their setting has passed.

    A setting has a trial at each rung of successive halving that it reaches.
    """
    trials = frames.trials[frames.trials["role"] == "search"]
    continued = trials.duplicated(["cell", "tuned", "repeat"], keep="last")
    return trials[~(continued & (trials["state"] == "stopped"))]


def marginal_means(frames: SweepFrames, path: Path) -> pd.DataFrame:
    """Return the search scores of each cell by the value of one nuisance parameter.

    The values of the other nuisance parameters are ignored.

    Returns:
        Columns cell, value (a choice, or the middle of one of five bins), best, mean, n.
    """
    search = frames.trials[frames.trials["score"].notna() & (frames.trials["role"] == "search")]
    values = search[path]
    distribution = frames.tune[path]
    if "choices" not in distribution and values.nunique() > _BINS:
        log = bool(distribution["log"])
        scaled = np.log(values.astype(float)) if log else values.astype(float)
        edges = np.linspace(*_range(distribution), _BINS + 1)
        middle = (edges[:-1] + edges[1:]) / 2
        bins = np.clip(np.digitize(scaled, edges) - 1, 0, _BINS - 1)
        values = pd.Series((np.exp(middle) if log else middle)[bins], index=search.index)
    best = "max" if _is_maximized(frames.metric) else "min"
    grouped = search.assign(value=values).groupby(["cell", "value"], sort=True)["score"]
    return grouped.agg(best=best, mean="mean", n="size").reset_index()


def _range(distribution: dict[str, Any]) -> tuple[float, float]:
    low, high = float(distribution["low"]), float(distribution["high"])
    return (math.log(low), math.log(high)) if distribution["log"] else (low, high)


def edge_values(frames: SweepFrames, cell: Cell) -> tuple[Path, ...]:
    """Return the nuisance parameters with a best value at an edge of their range."""
    return tuple(p for p, d in frames.tune.items() if _at_edge(cell.settings[p], d))


def _at_edge(value: Any, distribution: dict[str, Any]) -> bool:
    if "choices" in distribution:
        numbers = [c for c in distribution["choices"] if isinstance(c, (int, float))]
        ordered = len(numbers) == len(distribution["choices"]) > 2
        return ordered and value in {min(numbers), max(numbers)}
    low, high = _range(distribution)
    position = math.log(value) if distribution["log"] else float(value)
    return min(position - low, high - position) <= _EDGE * (high - low)


def flag_trials(frames: SweepFrames, result: Answer | None) -> tuple[str, ...]:
    """Return warnings about the reliability of the answer, one sentence each."""
    states = frames.trials["state"]
    lost = int(states.isin(_LOST).sum())
    warnings = list(_flag_deleted(frames))
    if lost:
        warnings.append(
            f"{lost} of {len(states)} trials diverged or failed "
            f"({lost / len(states):.0%}); the table of all trials gives the reasons."
        )
    warnings.extend(_flag_undefined(frames.trials))
    if result is None or frames.answer == "path":
        return tuple(warnings)
    if not result.confirmed:
        warnings.append(
            "No repeat has finished: the score of each setting is that of its best search trial, "
            "hence optimistic."
        )
    few = [cell.label for cell in result.cells if cell.score.n < _FEW]
    if few:
        warnings.append(f"Fewer than {_FEW} repeats: {'; '.join(few)}.")
    if result.missing:
        warnings.append(f"No finished trial: {'; '.join(result.missing)}.")
    for path in frames.tune:
        cells = [cell.label for cell in result.cells if path in edge_values(frames, cell)]
        if cells:
            warnings.append(
                f"The best value of {path} is at the edge of its range for {'; '.join(cells)}: "
                f"widen the range."
            )
    return tuple(warnings)


def _flag_deleted(frames: SweepFrames) -> Iterator[str]:
    """Yield a warning if the tracking store has fewer runs than when the sweep ended."""
    present = int((frames.trials["role"] != tags.SUPERSEDED).sum())
    missing = round(frames.measures.get(tags.TRIALS, 0)) - present
    if frames.sweep.get(tags.STATE) == "finished" and missing > 0:
        yield (
            f"{missing} of {missing + present} trials have no run in the tracking store any more, "
            f"so they are not compared; the command that ran the sweep makes their runs again from "
            f"the records."
        )


def _flag_undefined(trials: pd.DataFrame) -> Iterator[str]:
    """Yield a warning for each task on which fine-tuning runs have no defined score."""
    for name in map(str, trials):
        task, _, entry = name.removeprefix("finetune/").partition("/")
        if name.startswith("finetune/") and entry == UNDEFINED:
            numbers = ", ".join(map(str, trials.loc[trials[name] > 0, "number"]))
            yield (
                f"finetune/{task}: {int(trials[name].sum())} fine-tuning runs diverged or predict "
                f"the same number for all rows, so their scores are undefined or count as 0 "
                f"(trials {numbers})."
            )
