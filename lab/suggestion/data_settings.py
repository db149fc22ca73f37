"""Choose the settings under `base.data` from the figures of a text and a task."""

from lab.suggestion.commented_yaml import Section
from lab.suggestion.compute_tiers import SizeOption
from lab.suggestion.facts import Facts
from lab.suggestion.source_guess import SourceGuess
from lab.suggestion.tokenizer_settings import tokenizer_config

_ALPHABETS = {
    "trained": "characters make up 99.95% of a sample",
    "byte_level": "bytes make up all text",
}
_HELD_OUT = 40_000  # tokens; the held-out corruptions need 32,768 positions


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


def recommend_data(length: Section, facts: Facts) -> dict[str, Section]:
    """Return the settings under `base.data`, except `share`.

    Args:
        length: number of positions of a window (`recommend_window`).
        facts: figures of the text and the task.
    """
    text, tokens = facts.text, facts.tokens
    surveyed = "the whole text" if text.share == 1 else f"{text.share:.2%} of the text"
    vocabulary = (
        f"{tokens.alphabet:,} {_ALPHABETS[tokenizer_config(facts.tokenizer).kind]}; "
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
