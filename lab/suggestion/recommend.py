"""Choose the settings of a search space from the figures of a text and the compute of a trial."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from lab.config.architecture import SIZES
from lab.config.data import TrainedTokenizer
from lab.config.flops import encoder_weights, mean_cost
from lab.errors import UserError
from lab.loading import search_space
from lab.loading.size_defaults import DEFAULTS
from lab.suggestion.commented_yaml import Section, to_plain
from lab.suggestion.source_guess import SourceGuess
from lab.suggestion.text_survey import TextSurvey
from lab.suggestion.token_survey import TokenSurvey

WIDTHS = (0.25, 0.5, 1.0)
# Up to four passes over a text are worth about as much as new text (arXiv 2305.16264).
EPOCHS = 4

_MIN_TOKENS = 20_000
_MIN_DOCUMENTS = 10
_HELD_OUT = 40_000  # tokens; the held-out corruptions need 32,768 positions
_AMPLE = 6  # a text of this many times the positions that trials read is prepared only in part
# Shares of characters in overlong words, above which the user is warned and the text is refused.
_OVERLONG, _REFUSED = 0.01, 0.3


@dataclass(frozen=True, kw_only=True)
class SizeOption:
    """A named size of the encoder, and the compute from which it is chosen.

    Attributes:
        name: name of the shape (`architecture.SIZES`) and of its settings
            (`size_defaults.DEFAULTS`).
        min_flops: FLOPs of a trial from which the size is chosen. It grows about with the square of
            the number of weights: 1e5 weights are about compute-optimal at 1e13 FLOPs.
        max_window: largest number of positions of a window that is chosen for a task.
    """

    name: str
    min_flops: float
    max_window: int

    @property
    def weights(self) -> int:
        """Number of weights of the encoder's blocks."""
        return encoder_weights(SIZES[self.name])

    @property
    def lr(self) -> float:
        """Peak learning rate of the size's default optimizer."""
        own = DEFAULTS[self.name]
        return float(str(own.optim[own.optimizer]["lr"]))

    def count(self, path: str) -> int:
        """Return an integer default of the size, by its dotted path."""
        return int(str(DEFAULTS[self.name].settings[path]))


# In ascending order. Measurements of the sizes: docs/sizes.md.
TABLE = (
    SizeOption(name="nano32", min_flops=0, max_window=32),
    SizeOption(name="nano48", min_flops=7e11, max_window=32),
    SizeOption(name="nano", min_flops=2e12, max_window=64),
    SizeOption(name="nano96", min_flops=2.5e13, max_window=64),
    SizeOption(name="tiny", min_flops=1e14, max_window=128),
    SizeOption(name="mini", min_flops=1.5e15, max_window=128),
)
_LEARNS = 5e11  # FLOPs of a trial; with less, no measured encoder learned from context
_NO_TRANSFER = 4e12  # FLOPs of a trial; measured: docs/limits.md


@dataclass(frozen=True, kw_only=True)
class RunDesign:
    """The number of trials of a cell.

    Attributes:
        trials: number of learning rates to search; 0 for the size's default rate.
        seeds: number of repeats of the best setting.
        min_flops: FLOPs of a trial from which the design is chosen.
    """

    trials: int
    seeds: int
    min_flops: float


# Trained models come first: with little compute a comparison has fewer trials, not shorter ones.
DESIGNS = (
    RunDesign(trials=5, seeds=5, min_flops=2e13),
    RunDesign(trials=3, seeds=4, min_flops=1e12),
    RunDesign(trials=0, seeds=3, min_flops=_LEARNS),
    RunDesign(trials=0, seeds=2, min_flops=0),
)


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """Figures of a task that encoders are fine-tuned on.

    Attributes:
        file: path of the task's YAML file, or a name of the lab's task table.
        name: name of the task in metrics.
        sizes: number of positions that each example takes in a window.
        because: one sentence on the origin of the task.
    """

    file: str
    name: str
    sizes: Sequence[int]
    because: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The figures from which settings are chosen.

    Attributes:
        guess: source of the text.
        text: figures of the text.
        tokenizer: settings of the tokenizer, as `recommend_tokenizer` returns them.
        tokens: figures of the text as tokens.
        task: task to fine-tune on; None for no task.
    """

    guess: SourceGuess
    text: TextSurvey
    tokenizer: Section
    tokens: TokenSurvey
    task: TaskFacts | None

    @property
    def total(self) -> int:
        """Estimated number of tokens of the whole text without duplicates."""
        distinct = 1 - self.text.duplicates
        return round(self.text.characters * self.tokens.per_character * distinct)


def recommend_tokenizer(text: TextSurvey, *, cased: bool) -> Section:
    """Return the settings of the tokenizer for a text.

    Args:
        text: figures of the text.
        cased: whether the tokenizer distinguishes upper and lower case.

    Raises:
        UserError: much of the text is in a script without spaces between words.
    """
    if text.overlong > _REFUSED:
        raise UserError(
            f"{text.overlong:.0%} of the characters are in words of more than 100 letters, which "
            f"the tokenizer replaces by an unknown token; insert spaces between words first "
            f"(a word segmenter)"
        )
    keep_accents = text.accented > 0.002
    normalization = "nfkc" if text.compatibility > 0.001 else "nfc"
    ideographs = text.scripts.get("CJK", 0.0)
    value = {
        "kind": "trained",
        "cased": cased,
        "accents": "keep" if keep_accents else "strip",
        "normalization": normalization,
        "ideographs": True,
    }
    lines = [
        f"accents: {text.accented:.2%} of the letters have an accent or another mark.",
        f"cased: {text.upper:.1%} of the letters with case are capitals; "
        + ("tags may depend on case." if cased else "a small vocabulary omits case."),
        f"normalization: {text.compatibility:.2%} of the characters are full-width forms, "
        f"ligatures and similar variants.",
    ]
    if ideographs > 0.01:
        lines.append(f"ideographs: {ideographs:.0%} of the letters; each is a word of its own.")
    return Section(value=value, because="\n".join(lines))


def tokenizer_config(tokenizer: Section) -> TrainedTokenizer:
    """Return the settings of `recommend_tokenizer` as a validated configuration."""
    return TypeAdapter(TrainedTokenizer).validate_python(tokenizer.value)


def pick_size(flops: float) -> SizeOption:
    """Return the largest size with `min_flops` of at most `flops`, the FLOPs of a trial."""
    return [size for size in TABLE if size.min_flops <= flops][-1]


def pick_design(flops: float, before: RunDesign) -> RunDesign:
    """Return the most thorough design that leaves enough compute to each trial.

    Args:
        flops: FLOPs of a trial under the design `before`.
        before: the design for which `flops` were estimated.
    """
    runs = before.trials + before.seeds
    return next(
        design
        for design in DESIGNS
        if flops * runs / (design.trials + design.seeds) >= design.min_flops
    )


def check_text_size(facts: Facts) -> None:
    """Check that a text has enough tokens and documents.

    Raises:
        UserError: it has too few; the message gives the number and the minimum.
    """
    name = facts.guess.source.paths[0]
    if facts.total < _MIN_TOKENS:
        raise UserError(
            f"{name}: about {facts.total:,} tokens without duplicates; below {_MIN_TOKENS:,} even "
            f"{EPOCHS} passes over the text train nothing: give more text"
        )
    if facts.text.documents < _MIN_DOCUMENTS:
        raise UserError(
            f"{name}: {facts.text.documents} documents; the lab holds out whole documents and "
            f"needs at least {_MIN_DOCUMENTS}: separate them by blank lines"
        )


def recommend_window(size: SizeOption, facts: Facts) -> Section:
    """Return the number of positions of a window, chosen by the task's texts or the documents."""
    median = facts.tokens.quantile(0.5)
    length = default = size.count("data.length")
    contained = facts.tokens.share_in_windows(default)
    lines = [f"Documents have a median of {median:,} tokens."]
    if contained < 0.5:
        length = 8
        lines.append(f"Windows of {default} would lose {1 - contained:.0%} of the tokens.")
    if facts.task is not None:
        needed = sorted(facts.task.sizes)[int(0.75 * (len(facts.task.sizes) - 1))]
        while length < min(needed, size.max_window):
            length *= 2
        fitting = sum(positions <= length for positions in facts.task.sizes)
        lines.append(
            f"Three in four texts of {facts.task.name} take at most {needed:,} positions; "
            f"{fitting / len(facts.task.sizes):.0%} fit into {length}."
        )
    elif length == default:
        lines.append(f"With this compute, encoders learn earliest in windows of {length}.")
    return Section(value=length, because=" ".join(lines))


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
    data = _data(length, facts)
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
    if amount < _LEARNS:
        yield (
            f"{_short(amount)} FLOPs a trial are too few to learn from context, which begins near "
            f"{_short(_LEARNS)}: give more {'text' if max_flops < flops else 'minutes'}"
        )
    if facts.task is not None and amount <= _NO_TRANSFER:
        yield (
            f"with {_short(_NO_TRANSFER)} FLOPs or less, pre-training did not improve fine-tuned "
            f"encoders (docs/limits.md): the task's score may not tell the widths apart"
        )
    if facts.text.overlong > _OVERLONG:
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
        value="detect/mlm/auroc",
        because="Detection, in held-out text, of replaced tokens that a frozen masked language "
        "model sampled: comparable between generators, and with little noise at small sizes.",
    )


def _data(length: Section, facts: Facts) -> dict[str, Section]:
    text, tokens = facts.text, facts.tokens
    surveyed = "the whole text" if text.share == 1 else f"{text.share:.2%} of the text"
    vocabulary = (
        f"{tokens.alphabet:,} characters make up 99.95% of a sample; "
        + (f"{tokens.requested:,} tokens fit this size" if tokens.vocab == tokens.requested
           else f"the text yields at most {tokens.vocab:,} tokens with a margin")
        + f"; a token has {1 / tokens.per_character:.2g} characters on average, and "
        f"{tokens.unknown:.2%} of the tokens are unknown."
    )  # fmt: skip
    held = min(0.1, max(0.02, round(_HELD_OUT / max(1, facts.total), 3)))
    data = {
        "source": Section(value=_source(facts.guess), because=_source_reasons(facts.guess)),
        "tokenizer": facts.tokenizer,
        "vocab": Section(value=tokens.vocab, because=vocabulary),
        "length": length,
        "held_out": Section(
            value=held,
            because=f"Share of the documents that is not trained on, about "
            f"{held * facts.total:,.0f} of {facts.total:,} tokens; scores need 32,768 positions.",
        ),
    }
    if text.bad or facts.guess.damaged:
        counted = ", ".join(f"{count:,} {reason}" for reason, count in text.bad.items())
        data["bad_text"] = Section(
            value="skip", because=f"Rows that are not text, in {surveyed}: {counted or 'some'}."
        )
    if facts.task is not None:
        data["decontaminate"] = Section(
            value=[facts.task.file],
            because="Lines that share 13 tokens in a row with the evaluation rows are removed.",
        )
    return data


def _source(guess: SourceGuess) -> dict[str, object]:
    """Return the source as in a search space, with only the settings that apply to its files."""
    source = guess.source
    value: dict[str, object] = {"kind": "files", "paths": list(source.paths)}
    for key in ("column", "documents"):
        if key in guess.because:
            value[key] = getattr(source, key)
    return value | {"encoding": source.encoding}


def _source_reasons(guess: SourceGuess) -> str:
    return "\n".join(f"{key}: {sentence}" for key, sentence in guess.because.items())


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
