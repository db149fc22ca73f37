"""Choose the settings of the tokenizer from the figures of a text."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from lab.config.data import LearnedTokenizer
from lab.data.tokenization.coverage import MOST_LOST
from lab.suggestion.commented_yaml import Section
from lab.suggestion.text_survey import TextSurvey


def recommend_tokenizer(text: TextSurvey, *, cased: bool) -> Section:
    """Return the settings of the tokenizer for a text.

    Args:
        text: figures of the text.
        cased: whether the tokenizer distinguishes upper and lower case.
    """
    if text.overlong > MOST_LOST:
        return _byte_level(text, cased=cased)
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


def _byte_level(text: TextSurvey, *, cased: bool) -> Section:
    """Return a byte-level tokenizer, which has tokens for words of any length."""
    value = {"kind": "byte_level", "cased": cased}
    reason = (
        f"kind: {text.overlong:.0%} of the characters are in words of more than 100 letters, which "
        f"a WordPiece tokenizer replaces by an unknown token."
    )
    return Section(value=value, because=reason)


def tokenizer_config(tokenizer: Section) -> LearnedTokenizer:
    """Return the settings of `recommend_tokenizer` as a validated configuration."""
    adapter: TypeAdapter[LearnedTokenizer] = TypeAdapter(
        Annotated[LearnedTokenizer, Field(discriminator="kind")]
    )
    return adapter.validate_python(tokenizer.value)
