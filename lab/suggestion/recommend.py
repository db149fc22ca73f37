"""Choose the settings of a search space from the figures of a text and the compute of a trial."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lab.config.architecture import SIZES
from lab.config.flops import mean_cost
from lab.data.tokenization.coverage import MOST_LOST
from lab.loading import search_space
from lab.loading.learned_sizes import MIN_TO_LEARN
from lab.loading.size_defaults import DEFAULTS
from lab.suggestion.commented_yaml import Section, to_plain
from lab.suggestion.compute_tiers import RunDesign, SizeOption, pick_size
from lab.suggestion.data_settings import recommend_data, recommend_window
from lab.suggestion.facts import EPOCHS, Facts, TaskFacts

WIDTHS = (0.25, 0.5, 1.0)
_AMPLE = 6  # a text of this many times the positions that trials read is prepared only in part
_OVERLONG = 0.01  # share of characters in overlong words above which the user is warned
_NO_TRANSFER = 4e12  # FLOPs of a trial; measured: docs/limits.md


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A recommended search space.

    Attributes:
        document: settings with their reasons.
        warnings: limitations of the text or the time, one sentence each.
    """

    document: dict[str, Section]
    warnings: tuple[str, ...]


def recommend(facts: Facts, flops: float, design: RunDesign, limit: str) -> Recommendation:
    """Return the search space for a text and the compute of a trial.

    Args:
        facts: figures of the text and the task.
        flops: FLOPs of a trial that the time allows; a small text reduces them.
        design: number of trials of a cell.
        limit: the time and the machine, in words.
    """
    size = pick_size(flops)
    length = recommend_window(size, facts)
    data = recommend_data(length, facts)
    settings = _size_settings(size, length, flops, tuned=bool(design.trials))
    base = settings | {"data": Section(value=data)}
    max_flops = EPOCHS * _positions(base, facts) * _min_position_flops(base)
    amount = float(f"{min(flops, max_flops):.2g}")
    share = _share(base, facts, amount)
    if share is not None:
        data["share"] = share
    base["budget"] = _budget(base, facts, amount, f"{limit} allow {_short(flops)} FLOPs a trial")
    return Recommendation(
        document=_document(facts, base, size, design),
        warnings=tuple(_warnings(facts, amount, flops, max_flops)),
    )


def _size_settings(
    size: SizeOption, length: Section, flops: float, *, tuned: bool
) -> dict[str, Section]:
    """Return the settings of `base` that depend on the encoder's size, except `data`.

    Args:
        size: size of the encoder.
        length: positions of a window.
        flops: FLOPs of a trial, for the reason.
        tuned: whether the search space tunes the learning rate.
    """
    shape, defaults = SIZES[size.name], DEFAULTS[size.name]
    short = size.count("data.length")
    step = size.count("batch") * short
    grows = int(str(length.value)) > short
    windows = Section(
        value={"kind": "growing", "start": short},
        because=f"The first part of training reads windows of {short}: encoders learn earlier.",
    )
    return ({"windows": windows} if grows else {}) | {
        "encoder": Section(
            value={"size": size.name},
            because=f"Width {shape.hidden}, {shape.layers} layer{'s' * (shape.layers > 1)} with "
            f"{size.weights:,} weights: the largest size for {_short(flops)} FLOPs a trial.",
        ),
        "objective": Section(
            value={"kind": "electra", "mask_prob": defaults.settings["objective.mask_prob"]},
            because=f"The mask probability of {size.name} (lab/loading/size_defaults.py).",
        ),
        "batch": Section(
            value=max(1, step // int(str(length.value))),
            because=f"Windows of a step: {step:,} positions, the default of {size.name}.",
        ),
        "optim": Section(
            value={"kind": defaults.optimizer, "lr": size.lr},
            because=f"Optimizer and learning rate of {size.name}"
            + ("; tuned below." if tuned else "."),
        ),
    }


def _warnings(facts: Facts, amount: float, flops: float, max_flops: float) -> Iterator[str]:
    if max_flops < flops:
        yield (
            f"the text is too small for this time: {EPOCHS} passes over it take "
            f"{_short(max_flops)} FLOPs a trial, and the time allows {_short(flops)}"
        )
    if amount < MIN_TO_LEARN:
        yield (
            f"{_short(amount)} FLOPs a trial are too few to learn from context, which begins near "
            f"{_short(MIN_TO_LEARN)}: give more {'text' if max_flops < flops else 'minutes'}"
        )
    if facts.task is not None and amount <= _NO_TRANSFER:
        yield (
            f"with {_short(_NO_TRANSFER)} FLOPs or less, pre-training did not improve fine-tuned "
            f"encoders (docs/limits.md): the task's score may not tell the widths apart"
        )
    if _OVERLONG < facts.text.overlong <= MOST_LOST:
        yield (
            f"{facts.text.overlong:.1%} of the characters are in words of more than 100 letters, "
            f"which the tokenizer replaces by an unknown token"
        )


def _document(
    facts: Facts, base: dict[str, Section], size: SizeOption, design: RunDesign
) -> dict[str, Section]:
    """Return the whole search space for the settings of `base`."""
    name = facts.guess.source.paths[0] if len(facts.guess.source.paths) == 1 else "this text"
    document = {
        "question": Section(value=f"How wide should the generator be on {name}, at equal compute?"),
        "metric": _metric(facts.task),
        "base": Section(value=base),
        "compare": Section(
            value={"objective.generator.width": list(WIDTHS)},
            because="Widths of the generator relative to the encoder.",
        ),
    }
    if design.trials:
        document["tune"] = Section(
            value={"optim.lr": {"low": 0.7 * size.lr, "high": 2.8 * size.lr, "log": True}},
            because="The learning rate is tuned for each width.",
        )
    repeats = f"{design.seeds} repeats of each width show the noise between seeds."
    searched = (
        f"{design.trials} rates are searched for each width. "
        if design.trials
        else "The time is too short for a search of learning rates: all widths have the same rate. "
    )
    document["search"] = Section(
        value={"sampler": "grid", "trials": max(1, design.trials), "seeds": design.seeds},
        because=searched + repeats,
    )
    if facts.task is not None:
        document["finetune"] = Section(
            value={"tasks": [facts.task.file]}, because=facts.task.because
        )
    return document


def _metric(task: TaskFacts | None) -> Section:
    if task is not None:
        return Section(
            value=f"finetune/{task.name}", because="Trials are ranked by the task's score."
        )
    return Section(
        value="mlm/nats_per_character",
        because="Hidden words of held-out text, read from the frozen encoder: neutral between "
        "generators, and defined for every text without labels.",
    )


def _min_position_flops(base: dict[str, Section]) -> float:
    """Return the FLOPs per position in the cheapest cell, that of the narrowest generator."""
    raw = to_plain(base) | {"budget": {"kind": "tokens", "amount": 1e9}}
    costs = [
        mean_cost(search_space.build_trial(raw, {"objective.generator.width": width}))
        for width in WIDTHS
    ]
    return min(cost.flops / cost.tokens for cost in costs)


def _positions(base: dict[str, Section], facts: Facts) -> float:
    """Return the number of positions of one pass over the training windows."""
    data = to_plain(base)["data"]
    trained = facts.total * (1 - float(data["held_out"]))
    return trained * facts.tokens.positions_per_token(int(data["length"]))


def _budget(base: dict[str, Section], facts: Facts, amount: float, allowed: str) -> Section:
    """Return the budget of a trial; the reason gives the passes over the text that it pays for."""
    positions = _positions(base, facts)
    passes = amount / _min_position_flops(base) / positions
    return Section(
        value={"kind": "flops", "amount": amount},
        because=f"{allowed}. With the narrowest generator {_short(amount)} are {passes:.2g} passes "
        f"over about {positions:,.0f} training positions; more than {EPOCHS} passes add little.",
    )


def _share(base: dict[str, Section], facts: Facts, flops: float) -> Section | None:
    """Return the share of the documents to prepare; None if trials read much of the text."""
    needed, available = flops / _min_position_flops(base), _positions(base, facts)
    if available < _AMPLE * needed:
        return None
    share = 0.5 * _AMPLE * needed / available
    digits = 1 - math.floor(math.log10(share))
    return Section(
        value=round(share, digits),
        because=f"Trials read about {needed:,.0f} of {available:,.0f} training positions; the rest "
        f"does not need to be prepared.",
    )


def _short(value: float) -> str:
    """Return a number with two significant digits, for example 2.1e12."""
    return f"{value:.2g}".replace("e+", "e")
