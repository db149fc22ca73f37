"""Measure how well a vocabulary fits a text: the characters it loses, and the size of its tokens.

Measured on a sample of each part of the text, after the tokenizer is trained and before any
window is cut. A text that loses more than `MOST_LOST` of its characters is refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from lab.config.data import (
    ByteLevelTokenizer,
    PretrainedTokenizer,
    TokenizerConfig,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.data.tokenization.long_words import MOST_COUNTED, LongWords
from lab.data.vocabulary import UNK, Vocabulary
from lab.errors import UserError

MOST_LOST = 0.25  # share of the characters in unknown tokens above which a text is refused
_MUCH_LOST = 0.02  # share above which a warning is given
# An English vocabulary has 4 to 5 characters of English a token, and 1.1 of Russian or Greek.
_SHORT_TOKENS = 2.0  # characters a token below which a given vocabulary does not fit a text
_LONG_WORDS = (
    "take kind byte_level, a larger longest_word (at most 1000), or text with spaces between its "
    "words (a word segmenter)"
)
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Counts over a sample of a text, without white space.

    An unknown word counts with at most `MOST_COUNTED` characters.

    Attributes:
        characters: number of characters.
        unknown: number of characters in unknown tokens.
        overlong: number of those in words over the tokenizer's limit.
        limit: number of characters of the longest word; None without a limit.
        spelled: number of characters in known tokens, ideographs excepted.
        tokens: number of known tokens, ideographs excepted.
    """

    characters: int
    unknown: int
    overlong: int
    limit: int | None
    spelled: int
    tokens: int

    @property
    def lost(self) -> float:
        """Share of the characters in unknown tokens."""
        return self.unknown / max(1, self.characters)

    @property
    def too_long(self) -> float:
        """Share of the characters in words over the limit."""
        return self.overlong / max(1, self.characters)

    @property
    def characters_per_token(self) -> float:
        """Mean number of characters of a known token; NaN without such tokens."""
        return self.spelled / self.tokens if self.tokens else float("nan")

    def facts(self) -> dict[str, Any]:
        """Return the counts as a mapping for `text.json`."""
        return asdict(self)


def measure_coverage(vocabulary: Vocabulary, texts: Iterable[str]) -> Coverage:
    """Return the coverage of texts by a vocabulary."""
    limit = _word_limit(vocabulary)
    normalize = _normalize(vocabulary)
    characters = unknown = overlong = spelled = tokens = 0
    for text in texts:
        encoded = vocabulary.spans([text])[0]
        spans = encoded.span_T2.tolist()
        lost = [text[start:end] for start, end in _spans_of(spans, encoded.ids_T == UNK)]
        characters += _visible(text) - sum(_visible(word) - _counted(word) for word in lost)
        unknown += sum(map(_counted, lost))
        overlong += sum(_counted(w) for w in lost if limit and len(normalize(w)) > limit)
        known = [text[start:end] for start, end in _spans_of(spans, encoded.ids_T != UNK)]
        tokens += sum(not _IDEOGRAPH.match(token) for token in known)
        spelled += _visible(_IDEOGRAPH.sub("", text)) - sum(
            _visible(_IDEOGRAPH.sub("", word)) for word in lost
        )
    return Coverage(
        characters=characters,
        unknown=unknown,
        overlong=overlong,
        limit=limit,
        spelled=spelled,
        tokens=tokens,
    )


def check_coverage(settings: TokenizerConfig, parts: Sequence[Coverage]) -> None:
    """Refuse a text that loses more than `MOST_LOST` of the characters of one of its parts.

    Args:
        settings: settings of the tokenizer.
        parts: coverage of each part of the text.

    Raises:
        UserError: too much is lost; the message has the shares, the limit and the remedies.
    """
    for number, part in enumerate(parts):
        if part.lost > MOST_LOST:
            raise UserError(
                f"base.data.tokenizer: {_describe_loss(part, number, len(parts))}, and at most "
                f"{MOST_LOST:.0%} is allowed; {_remedy(settings, part)}"
            )


def check_long_words(settings: TrainedTokenizer, parts: Sequence[LongWords]) -> None:
    """Refuse a text with more than `MOST_LOST` of a part's characters in words over the limit.

    Args:
        settings: settings of the tokenizer, which is not trained yet.
        parts: number of words over the limit in each part of the text.

    Raises:
        UserError: too much would be lost.
    """
    for number, found in enumerate(parts):
        if found.share > MOST_LOST:
            raise UserError(
                f"base.data.tokenizer: {found.share:.1%} of the characters of "
                f"{_name(number, len(parts))} are in words of more than {settings.longest_word} "
                f"characters, which would be unknown tokens, and at most {MOST_LOST:.0%} is "
                f"allowed; {_LONG_WORDS}"
            )


def coverage_warnings(settings: TokenizerConfig, parts: Sequence[Coverage]) -> list[str]:
    """Return warnings, one line each, about parts of a text that a vocabulary does not fit."""
    given = isinstance(settings, WordPieceFile | PretrainedTokenizer)
    lines = []
    for number, part in enumerate(parts):
        if part.lost > _MUCH_LOST:
            described = _describe_loss(part, number, len(parts))
            lines.append(f"base.data.tokenizer: {described}; {_remedy(settings, part)}")
        if given and part.characters_per_token < _SHORT_TOKENS:
            lines.append(
                f"base.data.tokenizer: {part.characters_per_token:.2f} characters a token in "
                f"{_name(number, len(parts))}, where a vocabulary that fits a text has more than "
                f"{_SHORT_TOKENS:g}; learn one from the text (kind trained or byte_level)"
            )
    return lines


def _describe_loss(part: Coverage, number: int, parts: int) -> str:
    causes = []
    if part.overlong:
        causes.append(f"{part.too_long:.1%} in words of more than {part.limit} characters")
    if part.unknown > part.overlong:
        causes.append(f"{part.lost - part.too_long:.1%} in words that it cannot spell")
    return (
        f"{part.lost:.1%} of the characters of {_name(number, parts)} are in unknown tokens "
        f"({', '.join(causes)})"
    )


def _name(number: int, parts: int) -> str:
    return "the text" if parts == 1 else f"base.data.source.parts.{number}"


def _remedy(settings: TokenizerConfig, part: Coverage) -> str:
    long_words = part.overlong > part.unknown / 2
    match settings:
        case TrainedTokenizer() | WordPieceFile() if long_words:
            return _LONG_WORDS
        case TrainedTokenizer():
            return "take kind byte_level, or a larger base.data.vocab"
        case WordPieceFile() | PretrainedTokenizer() if long_words:
            return "take kind byte_level, or text with spaces between its words (a word segmenter)"
        case WordPieceFile() | PretrainedTokenizer():
            return "take a vocabulary of its language, or learn one: kind trained or byte_level"
        case ByteLevelTokenizer():
            return "the text has characters that its normalization removes"
        case _:
            assert_never(settings)


def _spans_of(spans: list[list[int]], chosen_T: Any) -> list[list[int]]:
    return [span for span, chosen in zip(spans, chosen_T.tolist(), strict=True) if chosen]


def _visible(text: str) -> int:
    """Return the number of characters that are not white space."""
    return sum(map(len, text.split()))


def _counted(word: str) -> int:
    return min(MOST_COUNTED, _visible(word))


def _word_limit(vocabulary: Vocabulary) -> int | None:
    model = json.loads(vocabulary.tokenizer.to_str())["model"]
    limit = model.get("max_input_chars_per_word")
    return None if limit is None else int(limit)


def _normalize(vocabulary: Vocabulary) -> Callable[[str], str]:
    normalizer = vocabulary.tokenizer.normalizer
    return (lambda text: text) if normalizer is None else normalizer.normalize_str
