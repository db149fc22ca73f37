"""Choose the settings of the tokenizer from the figures of a text."""

from pydantic import TypeAdapter

from lab.config.data import TrainedTokenizer
from lab.errors import UserError
from lab.suggestion.commented_yaml import Section
from lab.suggestion.text_survey import TextSurvey

_MAX_OVERLONG = 0.3  # share of characters in overlong words above which a text is refused


def recommend_tokenizer(text: TextSurvey, *, cased: bool) -> Section:
    """Return the settings of the tokenizer for a text.

    Args:
        text: figures of the text.
        cased: whether the tokenizer distinguishes upper and lower case.

    Raises:
        UserError: much of the text is in a script without spaces between words.
    """
    if text.overlong > _MAX_OVERLONG:
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
