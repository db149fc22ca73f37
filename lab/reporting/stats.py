"""Frames in, numbers out: what the trials say, and what they cannot say.

Cells are compared by their repeats, on seeds that the search never saw. Repeat i shares its
seeds between cells (common random numbers), so a difference between cells is taken within
repeats, with an interval (`intervals`) that holds for the best against all others at once: a
sweep over nothing but seeds finds a winner in one of twenty, not in most.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lab.config.metrics import Metric, among
from lab.config.trial import Path
from lab.reporting.compute_multiplier import ComputeMultiplier, compute_multiplier
from lab.reporting.intervals import Interval, paired_interval, smallest_detectable, t_interval
from lab.tracking.frames import SweepFrames

_EDGE = 0.05  # share of a range, at either end, that counts as its edge
_FEW = 3  # fewer repeats than this leave an interval too wide to use
_BINS = 5
_CHANCE = 0.5  # AUROC of random answers


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is known of one compared setting.

    Attributes:
        label: its name.
        score: mean of its repeats and t interval.
        sd: standard deviation of the repeats; NaN below two.
        difference: this cell minus the best, paired; None for the best itself.
        tied: not told apart from the best.
        tuned: label of its best nuisances.
        picked: score of the search run that picked them, optimistic because it was picked.
        settings: its row of compared and tuned values, by path.
    """

    label: str
    score: Interval
    sd: float
    difference: Interval | None
    tied: bool
    tuned: str
    picked: float
    settings: dict[Path, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The comparison of all cells that have a score.

    Attributes:
        cells: best first.
        reference: the cell that equals the base, or the first; None if it has no score.
        effect: best minus reference, paired; None where they are the same cell.
        multiplier: None where they are the same cell.
        floor: pooled standard deviation within cells; NaN without repeats.
        confirmed: scores are those of repeats, not of the search runs that picked a setting.
        missing: cells without any finished trial.
    """

    cells: tuple[Cell, ...]
    reference: Cell | None
    effect: Interval | None
    multiplier: ComputeMultiplier | None
    floor: float
    confirmed: bool
    missing: tuple[str, ...]

    @property
    def tie(self) -> tuple[str, ...]:
        """Labels of the best cell and of all that are not told apart from it."""
        return tuple(cell.label for cell in self.cells if cell.tied)

    @property
    def separable(self) -> bool:
        """Whether one cell is better than every other."""
        return len(self.cells) > 1 and len(self.tie) == 1


def scored_trials(frames: SweepFrames) -> pd.DataFrame:
    """Return the trials that cells are compared by.

    Finished repeats; where there is none, the best finished search run of each cell. (Its other
    search runs have other nuisances, so their spread is no noise.)
    """
    finished = frames.trials[frames.trials["score"].notna()]
    repeats = finished[finished["role"] == "repeat"]
    return repeats if len(repeats) else _picked(frames)


def _picked(frames: SweepFrames) -> pd.DataFrame:
    """Return each cell's best finished search run."""
    trials = frames.trials
    search = trials[trials["score"].notna() & (trials["role"] == "search")]
    ordered = search.sort_values("score", ascending=not _upwards(frames.metric), kind="stable")
    return ordered.drop_duplicates("cell").sort_values("number")


def _upwards(metric: Metric) -> bool:
    return metric.direction == "maximize"


def compute_answer(frames: SweepFrames) -> Answer | None:
    """Compare the cells; None while no trial has finished."""
    runs = scored_trials(frames)
    if runs.empty:
        return None
    table = runs.pivot_table(index="repeat", columns="cell", values="score", sort=False)
    means = table.mean().sort_values(ascending=not _upwards(frames.metric), kind="stable")
    best = str(means.index[0])
    pairs = {label: paired_interval(table, str(label), best) for label in means.index}
    cells = tuple(_cell(frames, runs, str(label), pairs[label], best) for label in means.index)
    reference = next((cell for cell in cells if cell.label == frames.reference), None)
    other = reference is not None and reference.label != best
    return Answer(
        cells=cells,
        reference=reference,
        effect=paired_interval(table, best, frames.reference) if other else None,
        multiplier=compute_multiplier(frames, runs, best, frames.reference) if other else None,
        floor=smallest_detectable(table),
        confirmed=bool((runs["role"] == "repeat").all()),
        missing=tuple(c for c in frames.trials["cell"].unique() if c not in means.index),
    )


def _cell(frames: SweepFrames, runs: pd.DataFrame, label: str, gap: Interval, best: str) -> Cell:
    mine = runs[runs["cell"] == label]
    picked = _picked(frames).set_index("cell")["score"]
    scores = mine["score"].to_numpy(dtype=float)
    first = mine.iloc[0]
    return Cell(
        label=label,
        score=t_interval(scores),
        sd=float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
        difference=None if label == best else gap,
        tied=label == best or not gap.excludes_zero,
        tuned=str(first["tuned"]),
        picked=float(picked.get(label, math.nan)),
        settings={path: first[path] for path in (*frames.compare, *frames.tune)},
    )


def gain_over_untrained(runs: pd.DataFrame, label: str) -> Interval:
    """Return a cell's scores minus those its runs started with; NaN where no start was scored."""
    mine = runs[runs["cell"] == label]
    return t_interval((mine["score"] - mine["untrained"]).dropna().to_numpy(dtype=float))


def is_above_untrained(frames: SweepFrames, runs: pd.DataFrame, cell: Cell) -> bool | None:
    """Return whether a cell scores better than its runs did before training.

    Its 95 % interval must lie wholly on the better side of the score at step 0, where that was
    taken, and an AUROC's also above chance. None where there is no interval to tell by.
    """
    sign = 1 if _upwards(frames.metric) else -1
    margins = [sign * end for end in _ends_of(gain_over_untrained(runs, cell.label))]
    if frames.metric.name.endswith("/auroc"):
        margins.append(cell.score.low - _CHANCE)
    known = [margin for margin in margins if not math.isnan(margin)]
    return all(margin > 0 for margin in known) if known else None


def _ends_of(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def has_learned(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> bool | None:
    """Return whether the best cell has learned anything; None where no interval tells."""
    return is_above_untrained(frames, runs, result.cells[0])


def untrained_scores(frames: SweepFrames) -> Interval:
    """Return mean and interval of the ranking metric at step 0, one value a trial."""
    return t_interval(frames.trials["untrained"].dropna().to_numpy(dtype=float))


def metric_correlations(frames: SweepFrames) -> pd.DataFrame:
    """Return how other end scores rank the finished trials beside the ranking metric.

    Returns:
        columns metric, rank_correlation (Spearman; 1 is the same order, both read as better
        first; NaN where one is constant), trials.
    """
    finished = frames.trials[frames.trials["score"].notna()]
    rows = []
    for name, metric in among(map(str, finished)).items():
        if name == frames.metric.name:
            continue
        both = finished[["score", name]].dropna()
        agree = metric.direction == frames.metric.direction
        defined = len(both) > 2 and bool((both.nunique() > 1).all())
        rank = float(stats.spearmanr(both["score"], both[name]).statistic) if defined else math.nan
        rows.append(
            {"metric": name, "rank_correlation": rank * (1 if agree else -1), "trials": len(both)}
        )
    return pd.DataFrame(rows, columns=["metric", "rank_correlation", "trials"])


def marginal_means(frames: SweepFrames, path: Path) -> pd.DataFrame:
    """Return each cell's search scores along one nuisance, whatever the others were.

    Returns:
        columns cell, value (a choice, or the middle of one of five bins), best, mean, n.
    """
    search = frames.trials[frames.trials["score"].notna() & (frames.trials["role"] == "search")]
    values = search[path]
    distribution = frames.tune[path]
    if "choices" not in distribution and values.nunique() > _BINS:
        log = bool(distribution["log"])
        scaled = np.log(values.astype(float)) if log else values.astype(float)
        edges = np.linspace(*_ends(distribution), _BINS + 1)
        middle = (edges[:-1] + edges[1:]) / 2
        places = np.clip(np.digitize(scaled, edges) - 1, 0, _BINS - 1)
        values = pd.Series((np.exp(middle) if log else middle)[places], index=search.index)
    best = "max" if _upwards(frames.metric) else "min"
    grouped = search.assign(value=values).groupby(["cell", "value"], sort=True)["score"]
    return grouped.agg(best=best, mean="mean", n="size").reset_index()


def _ends(distribution: dict[str, Any]) -> tuple[float, float]:
    low, high = float(distribution["low"]), float(distribution["high"])
    return (math.log(low), math.log(high)) if distribution["log"] else (low, high)


def edge_values(frames: SweepFrames, cell: Cell) -> tuple[Path, ...]:
    """Return the nuisances whose best value lies at an edge of what was searched."""
    return tuple(p for p, d in frames.tune.items() if _at_edge(cell.settings[p], d))


def _at_edge(value: Any, distribution: dict[str, Any]) -> bool:
    if "choices" in distribution:
        numbers = [c for c in distribution["choices"] if isinstance(c, (int, float))]
        ordered = len(numbers) == len(distribution["choices"]) > 2
        return ordered and value in {min(numbers), max(numbers)}
    low, high = _ends(distribution)
    place = math.log(value) if distribution["log"] else float(value)
    return min(place - low, high - place) <= _EDGE * (high - low)


def flag_trials(frames: SweepFrames, result: Answer | None) -> tuple[str, ...]:
    """Return what a reader must know before trusting the answer, one sentence each."""
    states = frames.trials["state"]
    spoiled = int(states.isin(["diverged", "failed"]).sum())
    found = []
    if spoiled:
        found.append(
            f"{spoiled} of {len(states)} trials diverged or failed "
            f"({spoiled / len(states):.0%}); the ledger gives each reason."
        )
    if result is None or frames.answer == "path":
        return tuple(found)
    if not result.confirmed:
        found.append("No repeat has finished: scores are those of the search runs that were "
                     "picked for being best, hence optimistic.")  # fmt: skip
    few = [cell.label for cell in result.cells if cell.score.n < _FEW]
    if few:
        found.append(f"Fewer than {_FEW} repeats: {'; '.join(few)}.")
    if result.missing:
        found.append(f"No finished trial: {'; '.join(result.missing)}.")
    found.extend(
        f"{cell.label}: the best {path} lies at the edge of its range; widen it."
        for cell in result.cells
        for path in edge_values(frames, cell)
    )
    return tuple(found)
