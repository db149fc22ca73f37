"""A report's words: numbers with their digits and units, and the sentence above each figure."""

import math

import pandas as pd

from lab.reporting.compute_multiplier import best_so_far
from lab.reporting.intervals import Interval
from lab.reporting.stats import Answer, edge_values, gain_over_untrained, untrained_scores
from lab.tracking.frames import SweepFrames

NONE = "–"
_MINUS = "−"
_NOT_SCORED = "not scored: this metric is taken at the end of a run only"


def effects(frames: SweepFrames, result: Answer, runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what the best cell gains over the reference, over untrained, and over noise."""
    best, start = result.cells[0], untrained_scores(frames).mean
    gain = interval(gain_over_untrained(runs, best.label), signed=True)
    lines = [
        ("best mean", f"{best.label}: {interval(best.score)}"),
        ("untrained", _NOT_SCORED if math.isnan(start) else f"{score(start)}; best {gain} from it"),
        ("noise floor", f"sd {score(result.floor)} between repeats of one setting"),
    ]
    if result.effect is None or result.multiplier is None or result.reference is None:
        return [*_without_effect(frames, result), *lines]
    name, times = result.reference.label, result.multiplier
    around = "" if math.isnan(times.low) else f" [{_times(times.low)}, {_times(times.high)}]"
    if math.isnan(times.share):
        reach = f"cannot be set against {name}{_why_not(result, runs)}"
    elif math.isinf(times.share):
        reach = f"never reaches the end score of {name}"
    else:
        reach = (
            f"reaches the end score of {name} with {_times(times.share)}{around} of its FLOPs, "
            f"read from scores taken before the rate has decayed: an upper bound"
        )
    return [
        ("effect", f"{interval(result.effect, signed=True)} against {name}, paired"),
        ("compute", f"{best.label} {reach}"),
        *lines,
    ]


def _why_not(result: Answer, runs: pd.DataFrame) -> str:
    """Say why no compute multiplier exists; only scores at step 0 can speak of untrained."""
    if result.effect is None or math.isnan(result.effect.mean):
        return ": no repeat of both has finished"
    if runs.loc[runs["cell"] == result.cells[0].label, "untrained"].isna().any():
        return ": no score was taken before the end"
    return ", which ends no better than untrained"


def _without_effect(frames: SweepFrames, result: Answer) -> list[tuple[str, str]]:
    if result.reference is None:
        return [("effect", f"unknown: the reference, {frames.reference}, has no score")]
    if len(result.cells) == 1 or result.cells[1].difference is None:
        return []
    best, second = result.cells[:2]
    gap = interval(result.cells[1].difference, signed=True)
    return [("effect", f"{best.label} is the reference itself; next is {second.label}, {gap}")]


def curve(frames: SweepFrames, axis: str, unit: str) -> str:
    """Say how far the best score goes over `axis`, and where half of the way is done."""
    name, line = frames.metric.name, best_so_far(frames, axis)
    start, end = untrained_scores(frames).mean, float(line[name].iloc[-1])
    half = line[(line[name] - start).abs() >= abs(end - start) / 2]
    if math.isnan(start):
        return f"The best score of any trial ends at {score(end)}; no untrained score was taken."
    if len(line) == 1:  # the best line never rose
        return f"No score is better than the best untrained one, {score(end)}."
    begin = f"The best score of any trial goes from {score(start)} untrained to {score(end)}"
    if half.empty:
        return f"{begin}."
    return f"{begin}; half of that way is done after {quantity(half[axis].iloc[0], unit)}."


def cells(result: Answer) -> str:
    """Say which cell is best, and from how many it is told apart."""
    best, others = result.cells[0], len(result.cells) - 1
    apart = others - len(result.tie) + 1
    told = f", told apart from {apart} of {others} others" if others else ""
    n = sum(cell.score.n for cell in result.cells)
    return f"Of {n} runs {best.label} has the best mean, {interval(best.score)}{told}."


def replacement(frames: SweepFrames, runs: pd.DataFrame) -> str:
    """Say how far apart the replacement rates end, and whether the score goes with them."""
    ends = runs.groupby("cell")[["health/replacement_rate", "score"]].mean()
    rates = ends["health/replacement_rate"]
    says = (
        f"Share of all tokens that the generator really replaced, mean over the last stretch of "
        f"training: {rates.min():.1%} to {rates.max():.1%}."
    )
    if (ends.nunique() < 2).any():
        return says
    both = f"{ends['score'].corr(rates, method='spearman'):+.2f}".replace("-", _MINUS)
    return f"{says} Rank correlation of a cell's mean {frames.metric.name} with it: {both}."


def nuisance(frames: SweepFrames, result: Answer, path: str) -> str:
    """Say where each cell's best value of one nuisance lies, and whether at an edge."""
    best = "; ".join(f"{plain(cell.settings[path])} in {cell.label}" for cell in result.cells)
    at = [cell.label for cell in result.cells if path in edge_values(frames, cell)]
    lost = frames.trials.loc[frames.trials["role"] == "search", "score"].isna().sum()
    crosses = f" Crosses: {lost} trials without a score." if lost else ""
    edge = f" At the edge of its range in {'; '.join(at)}: widen it." if at else ""
    return f"Best {path}: {best}.{edge}{crosses}"


def health(frames: SweepFrames) -> str:
    """Say in how many trials the discriminator learned more than to answer 'original'."""
    last = frames.curves.groupby("number").last()
    loss, line = "train/discriminator_loss", "health/majority_loss"
    if loss not in last or line not in last:
        return "Recorded while training; a generator alone has no discriminator to watch."
    both = last[[loss, line]].dropna()
    below = int((both[loss] < both[line]).sum())
    return (
        f"At its last score the discriminator's loss is below that of always answering "
        f"'original' in {below} of {len(both)} trials."
    )


def cost(frames: SweepFrames) -> str:
    """Say what all trials of a sweep cost together, each preparatory run counted once."""
    trials, measures = frames.trials, frames.measures
    name = "spent/marginal_flops" if "spent/marginal_flops" in trials else "spent/flops"
    own = float(trials[name].sum()) if name in trials else 0.0
    before = measures.get("preparatory_flops", 0.0)
    says = f"{quantity(own + before, 'FLOP')} of training"
    if before:
        count = round(measures["preparatory_runs"])
        runs = f"{count} preparatory mlm run{'s' * (count > 1)}"
        says += f", {quantity(before, 'FLOP')} of it in {runs}"
    return says


def started(runs: pd.DataFrame) -> str:
    """Say which compute is equal where runs start from other weights; nothing where none does."""
    start, frozen = "init_from.kind", "objective.generator.init_from.kind"
    prepared = _cells_where(runs, start, {"mlm"}) | _cells_where(runs, frozen, {"mlm"})
    earlier = _cells_where(runs, start, {"trial", "transformers"})
    earlier |= _cells_where(runs, frozen, {"trial"})
    says = ""
    if prepared:
        says += (
            f" Stand-alone compute is equal: runs of {'; '.join(prepared)} start from mlm runs "
            f"that the sweep trained for them, and what these had cost is part of their budget and "
            f"of every FLOP count here but the marginal one."
        )
    if earlier:
        says += (
            f" Only new compute is counted: runs of {'; '.join(earlier)} start from weights that "
            f"were trained before (init_from), and what these had cost is in no budget of this "
            f"report; the stand-alone FLOPs have it where it is known."
        )
    if _cells_where(runs, start, {"mlm", "trial", "transformers"}):
        says += " Where an encoder starts from such weights, 'untrained' is the score of these."
    return says


def _cells_where(runs: pd.DataFrame, name: str, kinds: set[str]) -> dict[str, None]:
    """Return the labels of cells whose parameter `name` is one of `kinds`, in order, once each."""
    if name not in runs:
        return {}
    return dict.fromkeys(map(str, runs.loc[runs[name].isin(kinds), "cell"]))


def spread(values: "pd.Series[float]") -> str:
    """Return mean ± sd (n); a score that was never taken is a dash."""
    known = values.dropna()
    if known.empty:
        return NONE
    around = f" ± {score(float(known.std()))}" if len(known) > 1 else ""
    return f"{score(float(known.mean()))}{around} ({len(known)})"


def rank(fidelity: pd.DataFrame, name: str) -> str:
    """Return the rank correlation (n) of one score with the ranking metric."""
    known = float(fidelity["rank_correlation"][name])
    return (
        NONE
        if math.isnan(known)
        else f"{known:+.2f}".replace("-", _MINUS) + f" ({fidelity['trials'][name]})"
    )


def score(value: float) -> str:
    """Return a score with four decimals."""
    return NONE if math.isnan(value) else f"{value:.4f}"


def interval(value: Interval, signed: bool = False) -> str:
    """Return mean and 95 % interval; the mean alone where there is none."""
    if math.isnan(value.mean):
        return NONE
    mean = f"{value.mean:+.4f}".replace("-", _MINUS) if signed else score(value.mean)
    around = ends(value, signed)
    return mean if around == NONE else f"{mean} {around}"


def ends(value: Interval, signed: bool = False) -> str:
    """Return the two ends of an interval."""
    if math.isnan(value.low):
        return NONE
    form = "+.4f" if signed else ".4f"
    return f"[{value.low:{form}}, {value.high:{form}}]".replace("-", _MINUS)


def quantity(value: float, unit: str) -> str:
    """Return an amount with three digits and a decimal prefix: 1.2e12 FLOP is 1.20 TFLOP."""
    if math.isnan(value):
        return NONE
    power = min(6, max(0, int(math.log10(abs(value)) // 3))) if value else 0
    gap = " " if len(unit) > 4 and power else ""  # 1 TFLOP, but 1 M tokens
    return f"{value / 1_000**power:.3g} {' kMGTPE'[power].strip()}{gap}{unit}".strip()


def _times(share: float) -> str:
    if math.isnan(share):
        return NONE
    return "∞" if math.isinf(share) else f"{share:.2f}×"


def seconds(value: float) -> str:
    """Return seconds with one decimal."""
    return NONE if math.isnan(value) else f"{value:,.1f}"


def plain(value: object) -> str:
    """Return a value of a configuration as it would be typed."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
