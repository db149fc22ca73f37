"""From the figures of a text and a time to the settings of a search space, each with its reason."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab import space
from lab.commented_yaml import Section, plain
from lab.errors import UserError
from lab.flops import mean_cost
from lab.shapes import SIZES
from lab.source_guess import SourceGuess
from lab.text_survey import TextSurvey
from lab.token_survey import TokenSurvey

WIDTHS = (0.25, 0.5, 1.0)
EPOCHS = 4  # passes over a text that are worth about as much as new text (arXiv 2305.16264)

_LEAST_TOKENS = 20_000
_LEAST_DOCUMENTS = 10
_HELD_OUT = 40_000  # tokens; the frozen corruptions read 32,768 positions
_AMPLE = 6  # times the text that trials read, above which only a share is prepared
_ENDLESS, _REFUSED = 0.01, 0.3  # share of characters in words too long for the tokenizer


@dataclass(frozen=True, kw_only=True)
class Size:
    """An encoder, and settings found by measurement to suit it (reports/LOG.md).

    Attributes:
        hidden: its width.
        layers: its blocks.
        heads: its attention heads.
        embedding: width of its token table.
        least: FLOPs of a trial from which it is chosen; near the square of its weights, since
            1e5 weights are about compute-optimal at 1e13.
        vocab: tokens of its vocabulary, where the text yields them.
        length: positions of a window.
        longest: of a window that a task may ask for.
        mask_prob: share of the tokens that are masked.
        lr: peak learning rate.
        step: positions of one optimizer step.
    """

    hidden: int
    layers: int
    heads: int
    embedding: int
    least: float
    vocab: int = 2_048
    length: int = 16
    longest: int = 64
    mask_prob: float = 0.25
    lr: float = 1e-3
    step: int = 1_024

    @property
    def settings(self) -> dict[str, object]:
        """The encoder as a search space has it: its name, or its fields where it has none."""
        for name, shape in SIZES.items():
            if (shape.hidden, shape.layers) == (self.hidden, self.layers):
                return {"size": name}
        return {
            "layers": self.layers,
            "hidden": self.hidden,
            "ffn": 4 * self.hidden,
            "heads": self.heads,
            "embedding": self.embedding,
            "init_std": 0.05,
            "dropout": 0,
        }

    @property
    def weights(self) -> int:
        """Weights of the blocks, biases and norms left out."""
        return 12 * self.layers * self.hidden**2


# Smallest first. The one place to change when a size is measured again.
TABLE = (
    Size(hidden=32, layers=2, heads=1, embedding=32, least=0, longest=32),
    Size(hidden=48, layers=2, heads=2, embedding=48, least=7e11, longest=32),
    Size(hidden=64, layers=2, heads=2, embedding=64, least=2e12),
    Size(hidden=96, layers=2, heads=3, embedding=96, least=2.5e13),
    Size(hidden=128, layers=2, heads=4, embedding=128, least=1e14, vocab=4_096, longest=128),
    Size(hidden=256, layers=4, heads=4, embedding=128, least=1.5e15, vocab=8_192, longest=128,
         lr=5e-4, step=2_048),
)  # fmt: skip
_LEARNS = 5e11  # FLOPs of a trial below which nothing has been seen to learn from context


@dataclass(frozen=True, kw_only=True)
class Design:
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
    Design(trials=5, seeds=5, least=2e13),
    Design(trials=3, seeds=3, least=1e12),
    Design(trials=0, seeds=3, least=_LEARNS),
    Design(trials=0, seeds=2, least=0),
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
        tokenizer: how it becomes tokens, as `tokenizer` returns it.
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


def tokenizer(text: TextSurvey, *, cased: bool) -> Section:
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
    form = "nfkc" if text.compatibility > 0.001 else "nfc"
    ideographs = text.scripts.get("CJK", 0.0)
    value = {
        "kind": "trained",
        "cased": cased,
        "accents": "keep" if keeps else "strip",
        "form": form,
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


def pick_size(flops: float) -> Size:
    """Return the largest size that pays at this compute of a trial."""
    return [size for size in TABLE if size.least <= flops][-1]


def check(facts: Facts) -> None:
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


def window(size: Size, facts: Facts) -> Section:
    """Return the positions of a window, from the task's texts or the documents."""
    median = facts.tokens.quantile(0.5)
    kept = facts.tokens.kept(size.length)
    lines = [f"Documents have {median:,} tokens in the median."]
    length = size.length
    if kept < 0.5:
        length = 8
        lines.append(f"Windows of {size.length} would lose {1 - kept:.0%} of the tokens.")
    if facts.task is not None:
        wanted = sorted(facts.task.sizes)[int(0.75 * (len(facts.task.sizes) - 1))]
        while length < min(wanted, size.longest):
            length *= 2
        holds = sum(one <= length for one in facts.task.sizes) / len(facts.task.sizes)
        lines.append(
            f"Three in four texts of {facts.task.name} take at most {wanted:,} positions; "
            f"{holds:.0%} fit into {length}."
        )
    elif length == size.length:
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


def recommend(facts: Facts, flops: float, design: Design, asked: str) -> Recommendation:
    """Return the search space.

    Args:
        facts: what is known.
        flops: of a trial, as the time allows; the text may allow less.
        design: how often a cell is run.
        asked: the time and the machine, in words.
    """
    size = pick_size(flops)
    length = window(size, facts)
    data = _data(size, length, facts)
    base = {
        "encoder": Section(
            value=size.settings,
            because=f"{size.hidden} wide, {size.layers} layers, {size.weights:,} weights: the "
            f"largest size that pays at {flops:.2g} FLOPs a trial.",
        ),
        "objective": Section(
            value={"kind": "electra", "mask_prob": size.mask_prob},
            because="Best mask probability measured at this size.",
        ),
        "data": Section(value=data),
        "batch": Section(
            value=max(1, size.step // int(str(length.value))),
            because=f"Windows of a step: {size.step:,} positions, the best measured at this size.",
        ),
        "optim": Section(
            value={"lr": size.lr},
            because="Best rate measured at this size"
            + ("; tuned below." if design.trials else "."),
        ),
    }
    most = EPOCHS * _positions(base, facts) * _cheapest(base)
    amount = _rounded_down(min(flops, most))
    share = _share(base, facts, amount)
    if share is not None:
        data["share"] = share
    base["budget"] = _budget(base, facts, amount, f"{asked} allow {flops:.2g} FLOPs a trial")
    return Recommendation(
        document=_document(facts, base, size, design),
        warnings=tuple(_warnings(facts, amount, flops, most)),
    )


def _warnings(facts: Facts, amount: float, flops: float, most: float) -> Iterator[str]:
    if most < flops:
        yield (
            f"the text is too small for this time: {EPOCHS} passes over it take {most:.2g} FLOPs "
            f"a trial, of the {flops:.2g} that there is time for"
        )
    if amount < _LEARNS:
        yield (
            f"{amount:.2g} FLOPs a trial are too few to learn from context, which begins near "
            f"{_LEARNS:.0e}: give more {'text' if most < flops else 'minutes'}"
        )
    if facts.text.endless > _ENDLESS:
        yield (
            f"{facts.text.endless:.1%} of the characters stand in words of more than 100 letters, "
            f"which the tokenizer takes for unknown"
        )


def _document(
    facts: Facts, base: dict[str, Section], size: Size, design: Design
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
            value={"optim.lr": {"low": 0.4 * size.lr, "high": 1.6 * size.lr, "log": True}},
            because="Each width gets its own learning rate.",
        )
    repeats = f"{design.seeds} repeats of each width show the noise between seeds."
    tried = f"{design.trials} rates are tried at each width. " if design.trials else ""
    document["search"] = Section(
        value={"trials": max(1, design.trials), "seeds": design.seeds}, because=tried + repeats
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
        value="detect/bigram/auroc",
        because="Detection of tokens drawn by what follows the one before, in held-out text: "
        "comparable between generators, and of little noise at small sizes.",
    )


def _data(size: Size, length: Section, facts: Facts) -> dict[str, Section]:
    text, tokens = facts.text, facts.tokens
    read = "the whole text" if text.share == 1 else f"{text.share:.2%} of the text"
    vocabulary = (
        f"{tokens.alphabet:,} characters make up 99.95% of {read}; "
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
    raw = plain(base) | {"budget": {"kind": "tokens", "amount": 1e9}}
    costs = [mean_cost(space.trial(raw, {"objective.generator.width": width})) for width in WIDTHS]
    return min(cost.flops / cost.tokens for cost in costs)


def _positions(base: dict[str, Section], facts: Facts) -> float:
    """Return the positions of one pass over the training windows."""
    data = plain(base)["data"]
    trained = facts.total * (1 - data["held_out"])
    return trained * facts.tokens.positions(data["length"])


def _budget(base: dict[str, Section], facts: Facts, amount: float, allowed: str) -> Section:
    """Return the FLOPs of a trial, with the passes over the text that they are."""
    positions = _positions(base, facts)
    passes = amount / _cheapest(base) / positions
    return Section(
        value={"kind": "flops", "amount": amount},
        because=f"{allowed}. {amount:.2g} are {passes:.2g} passes over about {positions:,.0f} "
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


def _rounded_down(value: float) -> float:
    """Return two digits of a number, rounded down."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit + 1e-9) * unit:.2g}")
