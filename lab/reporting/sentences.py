"""Text of a report: numbers with digits and units, lines of the summary, figure captions."""

import math

import pandas as pd

from lab.reporting.compute.mean_curves import mean_curves
from lab.reporting.compute.multiplier import ComputeMultiplier
from lab.reporting.compute.test_inversion import MultiplierBound, MultiplierInterval
from lab.reporting.intervals import Interval
from lab.reporting.stats import Answer, edge_values, last_search_trials
from lab.tracking.frames import SweepFrames

NONE = "–"
_MINUS = "−"


def describe_effects(frames: SweepFrames, result: Answer) -> list[tuple[str, str]]:
    """Return the summary lines on the best cell: gain over the reference, mean, seed noise."""
    lines = describe_best(result)
    if result.multiplier is not None:
        # Its limits are computed from the curves of the selected nuisance parameters only.
        selection = "; the error of selecting nuisance parameters is not in it"
        text = describe_multiplier(result.multiplier) + (selection if frames.tune else "")
        lines.insert(0, ("compute", text))
    if result.effect is None or result.reference is None:
        return [*_without_effect(frames, result), *lines]
    effect = format_interval(result.effect, signed=True)
    better = "positive" if frames.metric.direction == "maximize" else "negative"
    text = (
        f"{result.cells[0].label} minus the reference setting, {result.reference.label}: {effect} "
        f"(95 % interval; {better} is better)"
    )
    return [("effect", text), *lines]


def describe_best(result: Answer) -> list[tuple[str, str]]:
    """Return the summary lines on the mean of the best cell, and the noise of all scores."""
    best = result.cells[0]
    return [
        (
            "best mean score",
            f"{best.label}: {format_interval(best.score)} (95 % interval over seeds and other test "
            f"sets; all settings have the same test set, so compare them by their differences)",
        ),
        (
            "seed noise",
            f"standard deviation {format_score(result.noise_sd)} between repeats of one setting",
        ),
        *_describe_test_set(result),
    ]


def _describe_test_set(result: Answer) -> list[tuple[str, str]]:
    """Return a line on the error of the finite test set; empty if there is no difference."""
    if len(result.cells) < 2:
        return []
    if math.isnan(result.test_error):
        text = "its sampling error is not recorded, so the intervals do not contain it"
    else:
        text = (
            f"the intervals contain its sampling error, a standard error of up to "
            f"{format_score(result.test_error)} for the difference between two settings"
        )
    return [("finite test set", text)]


def describe_multiplier(multiplier: ComputeMultiplier) -> str:
    """Return the compute multiplier and its limits in words."""
    value, reference = multiplier.value, multiplier.reference
    reaches = (
        f"{multiplier.best} reaches the score of {reference} at "
        f"{format_quantity(multiplier.flops, 'FLOP')} with"
    )
    if isinstance(value, MultiplierBound):
        return (
            f"{reaches} at most {value.factor:.2f} times the FLOPs (95 %); this is an upper limit, "
            f"because scores during training are taken before the learning rate has decayed"
        )
    estimate = "" if math.isnan(value.factor) else f"; estimate {value.factor:.2f}"
    basis = f"95 % interval{estimate}; scores at the end of {value.budgets} budgets"
    if math.isinf(value.high):
        limits = f"at least {value.low:.2f} times the FLOPs; no upper limit can be given"
    elif not value.low:
        limits = f"at most {value.high:.2f} times the FLOPs; no lower limit can be given"
    else:
        limits = f"{value.low:.2f} to {value.high:.2f} times the FLOPs"
    return f"{reaches} {limits} ({basis})"


def format_multiplier(value: MultiplierInterval | MultiplierBound) -> str:
    """Return estimate and limits of a compute multiplier for a table."""
    if isinstance(value, MultiplierBound):
        return f"≤ {value.factor:.2f}"
    estimate = "" if math.isnan(value.factor) else f"{value.factor:.2f} "
    if math.isinf(value.high):
        return f"{estimate}(≥ {value.low:.2f})"
    if not value.low:
        return f"{estimate}(≤ {value.high:.2f})"
    return f"{estimate}[{value.low:.2f}, {value.high:.2f}]"


def _without_effect(frames: SweepFrames, result: Answer) -> list[tuple[str, str]]:
    if result.reference is None:
        return [("effect", f"unknown: the reference setting, {frames.reference}, has no score")]
    if len(result.cells) == 1 or result.cells[1].difference is None:
        return []
    best, second = result.cells[:2]
    gap = format_interval(result.cells[1].difference, signed=True)
    return [
        (
            "effect",
            f"{best.label} is the reference setting; the second best, {second.label}, differs from "
            f"it by {gap}",
        )
    ]


def describe_curve(frames: SweepFrames, runs: pd.DataFrame, axis: str, unit: str) -> str:
    """Return the caption of a score curve: change of the best mean, and `axis` at half of it.

    The means are those of the lines in the figure (`mean_curves`).
    """
    means = mean_curves(frames, runs, axis)
    if means.best.empty:
        return "No trial has finished, so no setting has a mean score yet."
    first, last = means.best.iloc[0], means.best.iloc[-1]
    start, end = format_score(first["mean"]), format_score(last["mean"])
    best = f"{end} ({last['setting']}, n = {last['seeds']})"
    own = float(runs.loc[runs["cell"] == last["setting"], "untrained"].mean())
    if math.isnan(own):
        text = f"The best mean of a setting is {best}; no untrained score was taken."
    elif len(means.best) == 1:  # no improvement over the first mean
        text = f"No setting has a better mean than the best untrained one, {start}."
    else:
        change = (means.best["mean"] - first["mean"]).abs()
        half = means.best.loc[change >= change.iloc[-1] / 2, axis].iloc[0]
        text = (
            f"The best mean of a setting goes from {start} (untrained) to {best}; half of this "
            f"change is reached after {format_quantity(half, unit)}. The untrained encoders of "
            f"that setting have {format_score(own)} on average."
        )
    if means.best["sd"].notna().any():
        text += " The band is ± one standard deviation over the seeds of the best setting there."
    if len(means.reference):
        text += f" The line 'reference' is the mean of {frames.reference}."
    return text


def describe_cells(result: Answer) -> str:
    """Return the caption of the cells: the best one, and the number of significant differences."""
    best, others = result.cells[0], len(result.cells) - 1
    worse = others - len(result.tied_labels) + 1
    verdict = f"; {worse} of {others} other settings are significantly worse" if others else ""
    n = sum(cell.score.n for cell in result.cells)
    mean = format_interval(best.score)
    return f"{best.label} has the best mean score, {mean}{verdict} ({n} trials in all)."


def describe_replacement(frames: SweepFrames, runs: pd.DataFrame) -> str:
    """Return the caption of the replacement rates: their range, and correlation with the score."""
    ends = runs.groupby("cell")[["health/replacement_rate", "score"]].mean()
    rates = ends["health/replacement_rate"]
    text = (
        f"Fraction of all tokens that the generator replaced by a different token, mean over the "
        f"training steps before the last evaluation: {rates.min():.1%} to {rates.max():.1%}."
    )
    if (ends.nunique() < 2).any():
        return text
    correlation = f"{ends['score'].corr(rates, method='spearman'):+.2f}".replace("-", _MINUS)
    return (
        f"{text} Rank correlation (Spearman) with the mean {frames.metric.name} of a setting: "
        f"{correlation}."
    )


def describe_nuisance(frames: SweepFrames, result: Answer, path: str) -> str:
    """Return the caption of a nuisance parameter: best value in each cell, values at an edge."""
    best = "; ".join(
        f"{format_value(cell.settings[path])} for {cell.label}" for cell in result.cells
    )
    at_edge = [cell.label for cell in result.cells if path in edge_values(frames, cell)]
    lost = last_search_trials(frames)["score"].isna().sum()
    crosses = f" Crosses mark the {lost} trials without a score." if lost else ""
    edge = (
        f" At the edge of its range for {'; '.join(at_edge)}: widen the range." if at_edge else ""
    )
    return f"Best value of {path}: {best}.{edge}{crosses}"


def describe_health(frames: SweepFrames) -> str:
    """Return the caption of the training diagnostics: last losses, and those below uninformed."""
    last = frames.curves.groupby("number").last()
    loss, baseline = "train/discriminator_loss", "health/majority_loss"
    ends = f"{describe_last_losses(frames, 'train/loss')} " if "train/loss" in last else ""
    if loss not in last or baseline not in last:
        return (
            f"{ends}No trial has a discriminator loss to compare with that of an uninformed "
            "discriminator."
        )
    both = last[[loss, baseline]].dropna()
    below = int((both[loss] < both[baseline]).sum())
    return (
        f"{ends}At the last evaluation, the discriminator's loss is below that of an uninformed "
        f"one in {below} of {len(both)} trials. The uninformed one knows only the rate of "
        f"replacement, and that [CLS] and [SEP] cannot be replaced."
    )


def describe_last_losses(frames: SweepFrames, name: str) -> str:
    """Return the range of the last values of a training loss."""
    last = frames.curves.dropna(subset=[name]).groupby("number")[name].last()
    return (
        f"{name} ends between {last.min():.4g} and {last.max():.4g} in the {len(last)} trials that "
        "recorded it."
    )


def describe_compute(frames: SweepFrames) -> str:
    """Return the training compute of all trials; each of them is counted once.

    Two cells share a trial if the budget at a rung of one cell is the full budget of the other.
    """
    trials, measures = frames.trials.drop_duplicates("fingerprint"), frames.measures
    name = "spent/marginal_flops" if "spent/marginal_flops" in trials else "spent/flops"
    own = float(trials[name].sum()) if name in trials else 0.0
    before = measures.get("preparatory_flops", 0.0)
    unused = measures.get("trunk_uncharged_flops", 0.0)
    text = f"{format_quantity(own + before + unused, 'FLOP')} of training"
    if before:
        count = round(measures["preparatory_runs"])
        runs = f"{count} preparatory mlm run{'s' * (count > 1)}"
        text += f", including {format_quantity(before, 'FLOP')} in {runs}"
    if shared := measures.get("trunk_flops", 0.0):
        text += f", of which {format_quantity(shared, 'FLOP')} train trunks that trials share"
    return text


def describe_trunks(runs: pd.DataFrame) -> str:
    """Return a sentence on the compute of trials that branch from trunks; empty without any."""
    cells = _cells_where(runs, "schedule.kind", {"trunk"})
    if not cells:
        return ""
    return (
        f" Trials of {'; '.join(cells)} branch from trunks, which trials of several budgets share. "
        f"Every FLOP count in this table is that of a run from scratch (stand-alone), except the "
        f"marginal one: it counts the cooldown, and each part of a trunk for the first trial that "
        f"branched from it. Trials of one trunk have the same seeds, so their scores at different "
        f"budgets are not independent."
    )


def describe_initial_weights(runs: pd.DataFrame) -> str:
    """Return sentences on the compute of starting weights; empty if no trial starts from any."""
    start, frozen = "init_from.kind", "objective.generator.init_from.kind"
    prepared = _cells_where(runs, start, {"mlm"}) | _cells_where(runs, frozen, {"mlm"})
    earlier = _cells_where(runs, start, {"trial", "transformers"})
    earlier |= _cells_where(runs, frozen, {"trial"})
    text = ""
    if prepared:
        text += (
            f" Stand-alone compute is equal: trials of {'; '.join(prepared)} start from mlm runs "
            f"that the sweep trained for them, and the cost of these runs is part of the trials' "
            f"budget and of every FLOP count in this table except the marginal one."
        )
    if earlier:
        text += (
            f" Only new compute is counted: trials of {'; '.join(earlier)} start from weights that "
            f"were trained before (init_from), and the cost of that training is in no budget of "
            f"this report; the stand-alone FLOPs include it where it is known."
        )
    if _cells_where(runs, start, {"mlm", "trial", "transformers"}):
        text += (
            " If an encoder starts from such weights, 'untrained' is the score of these weights."
        )
    return text


def _cells_where(runs: pd.DataFrame, name: str, kinds: set[str]) -> dict[str, None]:
    """Return the labels of cells with a value of parameter `name` in `kinds`, in order."""
    if name not in runs:
        return {}
    return dict.fromkeys(map(str, runs.loc[runs[name].isin(kinds), "cell"]))


def format_spread(values: "pd.Series[float]") -> str:
    """Return `mean ± standard deviation (n)`, or a dash if there are no values."""
    values = values.dropna()
    if values.empty:
        return NONE
    around = f" ± {format_score(float(values.std()))}" if len(values) > 1 else ""
    return f"{format_score(float(values.mean()))}{around} ({len(values)})"


def format_rank_correlation(fidelity: pd.DataFrame, name: str) -> str:
    """Return the rank correlation of a score with the ranking metric, and the number of trials."""
    correlation = float(fidelity["rank_correlation"][name])
    return (
        NONE
        if math.isnan(correlation)
        else f"{correlation:+.2f}".replace("-", _MINUS) + f" ({fidelity['trials'][name]})"
    )


def format_score(value: float) -> str:
    """Return a score with four decimals, or a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:.4f}"


def format_interval(value: Interval, signed: bool = False) -> str:
    """Return mean and 95 % interval, or the mean alone if there is no interval."""
    if math.isnan(value.mean):
        return NONE
    mean = f"{value.mean:+.4f}".replace("-", _MINUS) if signed else format_score(value.mean)
    around = format_ends(value, signed)
    return mean if around == NONE else f"{mean} {around}"


def format_ends(value: Interval, signed: bool = False) -> str:
    """Return the two ends of an interval, or a dash if there is none."""
    if math.isnan(value.low):
        return NONE
    form = "+.4f" if signed else ".4f"
    return f"[{value.low:{form}}, {value.high:{form}}]".replace("-", _MINUS)


def format_quantity(value: float, unit: str) -> str:
    """Return an amount with three digits and a decimal prefix: 1.2 TFLOP for 1.2e12 FLOP."""
    if math.isnan(value):
        return NONE
    rounded = float(f"{value:.3g}")  # first, because 999.8 G is 1 T
    power = min(6, max(0, int(math.log10(abs(rounded)) // 3))) if rounded else 0
    gap = " " if len(unit) > 4 and power else ""  # 1 TFLOP, but 1 M tokens
    return f"{rounded / 1_000**power:.3g} {' kMGTPE'[power].strip()}{gap}{unit}".strip()


def format_seconds(value: float) -> str:
    """Return seconds with one decimal, or a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:,.1f}"


def format_value(value: object) -> str:
    """Return a value of a configuration as it is written in a search space."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
