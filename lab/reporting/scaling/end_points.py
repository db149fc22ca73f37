"""End points of a sweep's trials, to which scaling laws are fitted.

An end point is the final score of a compared trial with its size, tokens and budget. End points
are grouped by the compared settings other than size, budget and learning rate (the objective, for
example, or the parametrization of encoders of one shape): each group has its own law. Of several
compared learning rates, a size and budget keeps the one with the smallest mean loss.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lab.config.metrics import Metric, find_metric
from lab.config.trial import Path
from lab.reporting import compared_scores, stats
from lab.reporting.compute.learning_curves import BUDGET, label_settings
from lab.reporting.scaling.parameter_counts import BLOCKS, SHAPE, count_parameters, describe_shape
from lab.scaling.hygiene import plateau_end
from lab.scaling.runs import Run
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

DEFAULT_METRIC = "mlm/nats_per_character"
RATE = "optim.lr"
_SHAPE = tuple(f"encoder.{name}" for name in SHAPE)
SIZE_PATHS = frozenset(("encoder", "encoder.size", *_SHAPE))
RATIO = "objective.generator.width"
OTHER_RATE = "another learning rate"  # beginning of the reason why a trial is no end point
DETECTION = "detect/bigram/auroc"
_CHANCE = 0.5
_LEARNED = 0.05  # AUROC above chance; the largest deviation between seeds on a plateau is .01
_EPOCHS = "spent/epochs"
_TEXT = ("data.vocab", "data.length")
_NEEDED = (
    "objective.kind",
    "budget.kind",
    BUDGET,
    RATE,
    *_SHAPE,
    *_TEXT,
    "spent/tokens",
    "spent/flops",
)


@dataclass(frozen=True, kw_only=True)
class EndPoint:
    """The end of one trial.

    Attributes:
        run: the run that a law is fitted to, with N by `parameter_counts.BLOCKS`.
        number: number of the trial.
        shape: width and layers of the encoder.
        repeat: number of the repeat, which determines the seeds.
        rate: peak learning rate.
        step_tokens: tokens of an optimizer step.
        flops: FLOPs that the trial has spent.
        sizes: numbers of parameters, by the name of the definition.
        ratio: width of the generator relative to that of the encoder; NaN without a generator.
        blocks: contribution of each block of the test set to the loss; empty if unknown.
    """

    run: Run
    number: int
    shape: str
    repeat: int
    rate: float
    step_tokens: float
    flops: float
    sizes: Mapping[str, float]
    ratio: float
    blocks: tuple[float, ...]

    @property
    def flops_per_token(self) -> float:
        """FLOPs per token of the trial."""
        return self.flops / self.run.tokens


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A trial that is no end point.

    Attributes:
        number: number of the trial.
        cell: label of its cell.
        reason: why, in words.
    """

    number: int
    cell: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """End points of runs that differ in size, budget, learning rate and seeds only.

    Attributes:
        label: compared settings that the runs share; empty if the sweep compares no others.
        settings: the same, by dotted path.
        metric: the score, smaller is better.
        ends: end points, in the order of the trials.
        rated: ends of the trials that differ in the learning rate alone at each size and budget,
            for the trend of the optimal rate.
        left_out: all other trials of the group.
        varied: further settings in which the runs differ on purpose.
    """

    label: str
    settings: Mapping[Path, Hashable]
    metric: Metric
    ends: tuple[EndPoint, ...]
    rated: tuple[EndPoint, ...]
    left_out: tuple[LeftOut, ...] = field(default_factory=tuple)
    varied: frozenset[Path] = frozenset()

    @property
    def runs(self) -> tuple[Run, ...]:
        """Runs of the end points."""
        return tuple(end.run for end in self.ends)


def choose_metric(frames: SweepFrames) -> Metric | None:
    """Return the score that laws of a sweep are fitted to; None if it has no such score.

    It is the ranking metric if that is a held-out loss, and `DEFAULT_METRIC` otherwise.
    """
    fallback = find_metric(DEFAULT_METRIC)
    for metric in (frames.metric, fallback):
        if (
            metric is not None
            and metric.direction == "minimize"
            and not metric.own_loss
            and metric.name in frames.trials
            and metric.find_incomparable_path(tuple(frames.compare)) is None
        ):
            return metric
    return None


def group_end_points(frames: SweepFrames) -> tuple[RunGroup, ...]:
    """Return the end points of a sweep by group; empty without a held-out loss or FLOPs budgets.

    Args:
        frames: frames of the sweep.
    """
    metric = choose_metric(frames)
    trials = frames.trials
    if metric is None or not {*_NEEDED} <= {*trials} or _kinds(trials) != {"flops"}:
        return ()
    ranked = frames.rank_by(metric.name)
    compared = stats.scored_trials(ranked)
    if compared.empty:
        return ()
    trials = ranked.trials[ranked.trials["encoder.hidden"].notna()]
    paths = (
        *(path for path in frames.compare if not _is_axis(path)),
        *_other_encoder_paths(frames, trials),
    )
    groups = label_settings(frames, trials, paths)
    return tuple(
        _group(ranked, metric, str(label), trials.loc[groups == label], compared, paths)
        for label in groups.drop_duplicates()
    )


def _kinds(trials: pd.DataFrame) -> set[str]:
    return {kind for kind in trials["budget.kind"] if isinstance(kind, str)}


def _is_axis(path: Path) -> bool:
    """Return whether a compared setting is a size, the budget or the learning rate."""
    return path in SIZE_PATHS or path in {BUDGET, RATE}


def _other_encoder_paths(frames: SweepFrames, trials: pd.DataFrame) -> list[Path]:
    """Return the settings in which compared encoders of one shape differ.

    A setting that differs between shapes only, such as `encoder.init_std`, belongs to the size.
    """
    if "encoder" not in frames.compare:  # otherwise each compared setting has a path of its own
        return []
    shapes = trials.groupby(list(_SHAPE))
    return [
        name
        for name in map(str, trials)
        if name.startswith("encoder.")
        and name not in {*SIZE_PATHS, *frames.compare, *frames.tune}
        and (shapes[name].nunique() > 1).any()
    ]


def _group(
    frames: SweepFrames,
    metric: Metric,
    label: str,
    trials: pd.DataFrame,
    compared: pd.DataFrame,
    paths: tuple[Path, ...],
) -> RunGroup:
    finished = trials.loc[trials.index.isin(compared.index)]
    diverged = compared_scores.diverged_repeats(frames, compared)
    lost = trials.loc[trials.index.isin(diverged.index)]
    rates = _best_rates(finished)
    candidates = pd.concat([finished, lost]).sort_values("number")
    of_best = [trial[RATE] == rates.get(_corner(trial), trial[RATE]) for trial in _rows(candidates)]
    chosen = candidates[np.array(of_best, dtype=bool)]
    numbers = set(chosen["number"])
    rated = _rated(frames, trials)
    return RunGroup(
        label=label,
        settings={path: trials.iloc[0][path] for path in paths},
        metric=metric,
        ends=tuple(_end_point(frames, trial) for trial in _rows(chosen)),
        rated=tuple(_end_point(frames, trial) for trial in _rows(rated)),
        left_out=tuple(
            LeftOut(
                number=int(trial["number"]),
                cell=str(trial["cell"]),
                reason=_reason(trial, rates.get(_corner(trial)) if is_compared else None),
            )
            for trial, is_compared in zip(
                _rows(trials), trials.index.isin(compared.index), strict=True
            )
            if trial["number"] not in numbers
        ),
    )


def _rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): v for name, v in row.items()} for row in trials.to_dict("records")]


def _corner(trial: Mapping[str, Any]) -> tuple[str, float]:
    return describe_shape(trial), float(trial[BUDGET])


def _rated(frames: SweepFrames, trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that show the loss as a function of the learning rate alone.

    Of a tuned rate they are the search trials, which have the same seeds. There are none if other
    settings were tuned with it, since each rate then has other values of these.
    """
    scored = trials[trials["score"].notna() | (trials["state"] == "diverged")]
    if not frames.tune:
        return scored
    return scored[scored["role"] == "search"] if list(frames.tune) == [RATE] else scored[:0]


def _best_rates(finished: pd.DataFrame) -> dict[tuple[str, float], float]:
    """Return the learning rate with the smallest mean score of each size and budget."""
    by_rate: dict[tuple[str, float], dict[float, list[float]]] = {}
    for trial in _rows(finished):
        scores = by_rate.setdefault(_corner(trial), {})
        scores.setdefault(float(trial[RATE]), []).append(float(trial["score"]))
    return {corner: _best_rate(scores) for corner, scores in by_rate.items()}


def _best_rate(scores: Mapping[float, list[float]]) -> float:
    return min(scores, key=lambda rate: float(np.mean(scores[rate])))


def _reason(trial: Mapping[str, Any], best: float | None) -> str:
    """Return why a trial is no end point.

    Args:
        trial: the trial.
        best: best learning rate of its size and budget; None if the trial was not compared.
    """
    if trial["state"] != "finished":
        return f"{trial['state']}: {trial['reason']}" if trial["reason"] else str(trial["state"])
    if trial["role"] == "superseded":
        return "superseded: the search has replaced it by another trial"
    if best is not None:
        return f"{OTHER_RATE} ({best:.3g}) is better at this size and budget"
    return "search trial, or a setting that the search did not select"


def _end_point(frames: SweepFrames, trial: Mapping[str, Any]) -> EndPoint:
    sizes = count_parameters(trial)
    run = Run(
        name=f"trial {trial['number']}",
        parameters=sizes[BLOCKS],
        tokens=_number(trial, "spent/tokens"),
        budget=_number(trial, BUDGET),
        loss=float(trial["score"]),
        diverged=trial["state"] == "diverged",
        cooled_down=_cooled_down(trial),
        epochs=_known(_number(trial, _EPOCHS)),
        untrained=_known(_number(trial, "untrained")),
        plateau_end=_plateau_end(frames, int(trial["number"])),
        trunk=_trunk(trial),
    )
    return EndPoint(
        run=run,
        number=int(trial["number"]),
        shape=describe_shape(trial),
        repeat=int(trial["repeat"]),
        rate=_number(trial, RATE),
        step_tokens=_step_tokens(trial),
        flops=_number(trial, "spent/flops"),
        sizes=sizes,
        ratio=_number(trial, RATIO),
        blocks=tuple(frames.blocks.get((int(trial["number"]), frames.metric.name), ())),
    )


def _step_tokens(trial: Mapping[str, Any]) -> float:
    tokens = _number(trial, "batch") * _number(trial, "data.length")
    if math.isnan(tokens):  # the batch grows
        return _number(trial, "spent/tokens") / _number(trial, "spent/steps")
    return tokens


def _number(trial: Mapping[str, Any], name: str) -> float:
    value = trial.get(name, math.nan)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cooled_down(trial: Mapping[str, Any]) -> bool:
    """Return whether the learning rate has decayed to the end of its schedule."""
    kind = trial.get("schedule.kind")
    return kind in {"linear", "cosine"} or (
        kind in {"stable", "trunk"} and _number(trial, "schedule.decay") > 0
    )


def _trunk(trial: Mapping[str, Any]) -> str:
    """Return the name of the trunk that a trial branches from; empty without one."""
    name = trial.get(tags.TRUNK)
    return name if isinstance(name, str) else ""  # NaN if only other trials have one


def _plateau_end(frames: SweepFrames, number: int) -> float | None:
    """Return the tokens at which a trial's discriminator leaves its plateau; None without one.

    A discriminator begins with an AUROC of .5 and stays there until the replacements teach it to
    use context.
    """
    if DETECTION not in frames.curves:
        return None
    curve = frames.curves[frames.curves["number"] == number].dropna(subset=DETECTION)
    curve = curve[curve["step"] > 0]
    if curve.empty:
        return None
    losses = 1 - curve[DETECTION].to_numpy(dtype=float)
    tokens = curve["spent/tokens"].to_numpy(dtype=float)
    return plateau_end(tokens, losses, 1 - _CHANCE, _LEARNED)
