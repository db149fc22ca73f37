"""From the figures of a text and a time to the settings of a search space, each with its reason."""

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
EPOCHS = 4  # passes over a text that are worth about as much as new text (arXiv 2305.16264)

_LEAST_TOKENS = 20_000
_LEAST_DOCUMENTS = 10
_HELD_OUT = 40_000  # tokens; the frozen corruptions read 32,768 positions
_AMPLE = 6  # times the text that trials read, above which only a share is prepared
_ENDLESS, _REFUSED = 0.01, 0.3  # share of characters in words too long for the tokenizer


@dataclass(frozen=True, kw_only=True)
class SizeOption:
    """A named size, and the compute from which it is chosen.

    Attributes:
        name: of the encoder (`shapes.SIZES`) and its settings (`size_defaults.DEFAULTS`).
        least: FLOPs of a trial from which it is chosen; near the square of its weights, since
            1e5 weights are about compute-optimal at 1e13.
        longest: positions of a window that a task may ask for.
    """

    name: str
    least: float
    longest: int

    @property
    def weights(self) -> int:
        """Weights of the blocks."""
        return encoder_weights(SIZES[self.name])

    @property
    def lr(self) -> float:
        """Peak learning rate of the size's own optimizer."""
        own = DEFAULTS[self.name]
        return float(str(own.optim[own.optimizer]["lr"]))

    def count(self, path: str) -> int:
        """Return a default that is a whole number, by its dotted path."""
        return int(str(DEFAULTS[self.name].settings[path]))


# Smallest first. The one place to change when sizes are measured again.
TABLE = (
    SizeOption(name="nano32", least=0, longest=32),
    SizeOption(name="nano48", least=7e11, longest=32),
    SizeOption(name="nano", least=2e12, longest=64),
    SizeOption(name="nano96", least=2.5e13, longest=64),
    SizeOption(name="tiny", least=1e14, longest=128),
    SizeOption(name="mini", least=1.5e15, longest=128),
)
_LEARNS = 5e11  # FLOPs of a trial below which nothing has been seen to learn from context


@dataclass(frozen=True, kw_only=True)
class RunDesign:
    """How often a cell is run.

    Attributes:
        trials: learning rates tried; 0 takes the size's own.
        seeds: repeats of the best.
        least: FLOPs of a trial from which it is chosen.
    """

    trials: int
    seeds: int
    least: float


# A noisy comparison of trained models is worth more than a precise one of untrained models.
DESIGNS = (
    RunDesign(trials=5, seeds=5, least=2e13),
    RunDesign(trials=3, seeds=4, least=1e12),
    RunDesign(trials=0, seeds=3, least=_LEARNS),
    RunDesign(trials=0, seeds=2, least=0),
)


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """A task that encoders are fine-tuned on.

    Attributes:
        file: its YAML file, or its name in the lab's table.
        name: by which its score goes.
        sizes: positions that each text of it takes in a window.
        because: where it came from.
    """

    file: str
    name: str
    sizes: Sequence[int]
    because: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that settings are chosen by.

    Attributes:
        guess: source of the text.
        text: its figures.
        tokenizer: how it becomes tokens, as `recommend_tokenizer` returns it.
        tokens: its figures as tokens.
        task: to fine-tune on; None for none.
    """

    guess: SourceGuess
    text: TextSurvey
    tokenizer: Section
    tokens: TokenSurvey
    task: TaskFacts | None

    @property
    def total(self) -> int:
        """Tokens of the whole text, duplicates left out; an estimate."""
        different = 1 - self.text.duplicates
        return round(self.text.characters * self.tokens.per_character * different)


def recommend_tokenizer(text: TextSurvey, *, cased: bool) -> Section:
    """Return the tokenizer for a text.

    Args:
        text: its figures.
        cased: whether case says something that is asked for.

    Raises:
        UserError: most of the text is without spaces, in a script that the lab cannot cut.
    """
    if text.endless > _REFUSED:
        raise UserError(
            f"{text.endless:.0%} of the characters stand in words of more than 100 letters, which "
            f"the tokenizer takes for unknown; put spaces between words first (a word segmenter)"
        )
    keeps = text.accented > 0.002
    normalization = "nfkc" if text.compatibility > 0.001 else "nfc"
    ideographs = text.scripts.get("CJK", 0.0)
    value = {
        "kind": "trained",
        "cased": cased,
        "accents": "keep" if keeps else "strip",
        "normalization": normalization,
        "ideographs": True,
    }
    lines = [
        f"accents: {text.accented:.2%} of the letters have an accent or another mark.",
        f"cased: {text.upper:.1%} of the letters with case are capitals; "
        + ("tags may depend on them." if cased else "a small vocabulary does without them."),
        f"form: {text.compatibility:.2%} of the characters are full-width forms, ligatures and the "
        f"like.",
    ]
    if ideographs > 0.01:
        lines.append(f"ideographs: {ideographs:.0%} of the letters, each a word of its own.")
    return Section(value=value, because="\n".join(lines))


def is_trained(tokenizer: Section) -> TrainedTokenizer:
    """Return what `recommend_tokenizer` chose, as the lab trains it."""
    return TypeAdapter(TrainedTokenizer).validate_python(tokenizer.value)


def pick_size(flops: float) -> SizeOption:
    """Return the largest size that pays at this compute of a trial."""
    return [size for size in TABLE if size.least <= flops][-1]


def pick_design(flops: float, before: RunDesign) -> RunDesign:
    """Return the most thorough design that leaves enough compute to each trial.

    Args:
        flops: of a trial under another design.
        before: that design.
    """
    runs = before.trials + before.seeds
    return next(
        design
        for design in DESIGNS
        if flops * runs / (design.trials + design.seeds) >= design.least
    )


def check_text_size(facts: Facts) -> None:
    """Refuse a text that is too small.

    Raises:
        UserError: says how large it is and how large it must be.
    """
    name = facts.guess.source.paths[0]
    if facts.total < _LEAST_TOKENS:
        raise UserError(
            f"{name}: about {facts.total:,} different tokens; below {_LEAST_TOKENS:,} even "
            f"{EPOCHS} passes teach nothing: give more text"
        )
    if facts.text.documents < _LEAST_DOCUMENTS:
        raise UserError(
            f"{name}: {facts.text.documents} documents; the lab holds out whole ones, so it takes "
            f"{_LEAST_DOCUMENTS}: separate them by blank lines"
        )


def recommend_window(size: SizeOption, facts: Facts) -> Section:
    """Return the positions of a window, from the task's texts or the documents."""
    median = facts.tokens.quantile(0.5)
    length = usual = size.count("data.length")
    kept = facts.tokens.kept(usual)
    lines = [f"Documents have {median:,} tokens in the median."]
    if kept < 0.5:
        length = 8
        lines.append(f"Windows of {usual} would lose {1 - kept:.0%} of the tokens.")
    if facts.task is not None:
        wanted = sorted(facts.task.sizes)[int(0.75 * (len(facts.task.sizes) - 1))]
        while length < min(wanted, size.longest):
            length *= 2
        holds = sum(one <= length for one in facts.task.sizes) / len(facts.task.sizes)
        lines.append(
            f"Three in four texts of {facts.task.name} take at most {wanted:,} positions; "
            f"{holds:.0%} fit into {length}."
        )
    elif length == usual:
        lines.append(f"At this compute windows of {length} learn soonest.")
    return Section(value=length, because=" ".join(lines))


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A search space.

    Attributes:
        document: its settings with their reasons.
        warnings: what to expect little of, a sentence each.
    """

    document: dict[str, Section]
    warnings: tuple[str, ...]


def recommend(facts: Facts, flops: float, design: RunDesign, asked: str) -> Recommendation:
    """Return the search space.

    Args:
        facts: what is known.
        flops: of a trial, as the time allows; the text may allow less.
        design: how often a cell is run.
        asked: the time and the machine, in words.
    """
    size = pick_size(flops)
    length = recommend_window(size, facts)
    data = _data(length, facts)
    base = _trial(size, length, flops, tuned=bool(design.trials)) | {"data": Section(value=data)}
    most = EPOCHS * _positions(base, facts) * _cheapest(base)
    amount = float(f"{min(flops, most):.2g}")
    share = _share(base, facts, amount)
    if share is not None:
        data["share"] = share
    base["budget"] = _budget(base, facts, amount, f"{asked} allow {_short(flops)} FLOPs a trial")
    return Recommendation(
        document=_document(facts, base, size, design),
        warnings=tuple(_warnings(facts, amount, flops, most)),
    )


def _trial(size: SizeOption, length: Section, flops: float, *, tuned: bool) -> dict[str, Section]:
    """Return what a size decides."""
    shape, own = SIZES[size.name], DEFAULTS[size.name]
    short = size.count("data.length")
    step = size.count("batch") * short
    grows = int(str(length.value)) > short
    windows = Section(
        value={"kind": "growing", "start": short},
        because=f"The first part of the run reads windows of {short}: from them it learns sooner.",
    )
    return ({"windows": windows} if grows else {}) | {
        "encoder": Section(
            value={"size": size.name},
            because=f"{shape.hidden} wide, {shape.layers} layers, {size.weights:,} weights in "
            f"them: the largest size that pays at {_short(flops)} FLOPs a trial.",
        ),
        "objective": Section(
            value={"kind": "electra", "mask_prob": own.settings["objective.mask_prob"]},
            because=f"The mask probability of {size.name} (lab/config/size_defaults.py).",
        ),
        "batch": Section(
            value=max(1, step // int(str(length.value))),
            because=f"Windows of a step: {step:,} positions, as {size.name} has.",
        ),
        "optim": Section(
            value={"kind": own.optimizer, "lr": size.lr},
            because=f"Optimizer and rate of {size.name}" + ("; tuned below." if tuned else "."),
        ),
    }


def _warnings(facts: Facts, amount: float, flops: float, most: float) -> Iterator[str]:
    if most < flops:
        yield (
            f"the text is too small for this time: {EPOCHS} passes over it take {_short(most)} "
            f"FLOPs a trial, of the {_short(flops)} that there is time for"
        )
    if amount < _LEARNS:
        yield (
            f"{_short(amount)} FLOPs a trial are too few to learn from context, which begins near "
            f"{_short(_LEARNS)}: give more {'text' if most < flops else 'minutes'}"
        )
    if facts.text.endless > _ENDLESS:
        yield (
            f"{facts.text.endless:.1%} of the characters stand in words of more than 100 letters, "
            f"which the tokenizer takes for unknown"
        )


def _document(
    facts: Facts, base: dict[str, Section], size: SizeOption, design: RunDesign
) -> dict[str, Section]:
    """Return the whole search space around the trial that all others differ from."""
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
            because="Each width gets its own learning rate.",
        )
    repeats = f"{design.seeds} repeats of each width show the noise between seeds."
    tried = f"{design.trials} rates are tried at each width. " if design.trials else ""
    document["search"] = Section(
        value={"sampler": "grid", "trials": max(1, design.trials), "seeds": design.seeds},
        because=tried + repeats,
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
        because="Detection in held-out text of tokens drawn from a frozen masked language model: "
        "comparable between generators, and of little noise at small sizes.",
    )


def _data(length: Section, facts: Facts) -> dict[str, Section]:
    text, tokens = facts.text, facts.tokens
    read = "the whole text" if text.share == 1 else f"{text.share:.2%} of the text"
    vocabulary = (
        f"{tokens.alphabet:,} characters make up 99.95% of a sample; "
        + (f"{tokens.asked:,} tokens suit this size" if tokens.vocab == tokens.asked
           else f"the text yields no more than {tokens.vocab:,} safely")
        + f" and give {1 / tokens.per_character:.2g} characters a token, {tokens.unknown:.2%} of "
        f"them unknown."
    )  # fmt: skip
    held = min(0.1, max(0.02, round(_HELD_OUT / max(1, facts.total), 3)))
    data = {
        "source": Section(value=_source(facts.guess), because=_why_source(facts.guess)),
        "tokenizer": facts.tokenizer,
        "vocab": Section(value=tokens.vocab, because=vocabulary),
        "length": length,
        "held_out": Section(
            value=held,
            because=f"Share of the documents that is never trained on: of about {facts.total:,} "
            f"tokens some {held * facts.total:,.0f}; scores read 32,768.",
        ),
    }
    if text.bad or facts.guess.damaged:
        counted = ", ".join(f"{count:,} {reason}" for reason, count in text.bad.items())
        data["bad_text"] = Section(
            value="skip", because=f"Rows that are no text, in {read}: {counted or 'some'}."
        )
    if facts.task is not None:
        data["decontaminate"] = Section(
            value=[facts.task.file],
            because="Lines that share 13 tokens in a row with the task's evaluation are cut out.",
        )
    return data


def _source(guess: SourceGuess) -> dict[str, object]:
    """Return the source as a search space has it, defaults left out where they do not apply."""
    source = guess.source
    value: dict[str, object] = {"kind": "files", "paths": list(source.paths)}
    for key in ("column", "documents"):
        if key in guess.because:
            value[key] = getattr(source, key)
    return value | {"encoding": source.encoding}


def _why_source(guess: SourceGuess) -> str:
    return "\n".join(f"{key}: {sentence}" for key, sentence in guess.because.items())


def _cheapest(base: dict[str, Section]) -> float:
    """Return the FLOPs of a position in the cell in which it costs least."""
    raw = to_plain(base) | {"budget": {"kind": "tokens", "amount": 1e9}}
    costs = [
        mean_cost(search_space.build_trial(raw, {"objective.generator.width": width}))
        for width in WIDTHS
    ]
    return min(cost.flops / cost.tokens for cost in costs)


def _positions(base: dict[str, Section], facts: Facts) -> float:
    """Return the positions of one pass over the training windows."""
    data = to_plain(base)["data"]
    trained = facts.total * (1 - float(data["held_out"]))
    return trained * facts.tokens.positions(int(data["length"]))


def _budget(base: dict[str, Section], facts: Facts, amount: float, allowed: str) -> Section:
    """Return the FLOPs of a trial, with the passes over the text that they are."""
    positions = _positions(base, facts)
    passes = amount / _cheapest(base) / positions
    return Section(
        value={"kind": "flops", "amount": amount},
        because=f"{allowed}. {_short(amount)} are {passes:.2g} passes over about {positions:,.0f} "
        f"training positions where the generator is narrowest; more than {EPOCHS} teach little.",
    )


def _share(base: dict[str, Section], facts: Facts, flops: float) -> Section | None:
    """Return the share of the documents to prepare, where trials read only a little of them."""
    needed, there = flops / _cheapest(base), _positions(base, facts)
    if there < _AMPLE * needed:
        return None
    share = 0.5 * _AMPLE * needed / there
    digits = 1 - math.floor(math.log10(share))
    return Section(
        value=round(share, digits),
        because=f"Trials read some {needed:,.0f} of about {there:,.0f} training positions; "
        f"preparing all of them would only take time.",
    )


def _short(value: float) -> str:
    """Return two digits of a number: 2.1e12."""
    return f"{value:.2g}".replace("e+", "e")
