"""Count the words that merge if accents or joiners are removed; decide whether to remove them.

BERT's stripping of accents removes all nonspacing marks: accents of Latin letters, but also vowel
signs of Indic scripts and Thai, voicing marks of Japanese, and it takes Hangul syllables apart.
BERT's cleaning removes zero-width joiners, which are part of the spelling of Persian and of Indic
languages.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lab.config.data import TrainedTokenizer, WordPieceFile
from lab.data.tokenization import normalization
from lab.data.tokenization.long_words import Texts

MOST_STRIPPED = 0.002  # share of the letters up to which `auto` strips; embedded English: 0.0001
_JOINED = 0.0001  # joiners per letter from which a text uses them
# Hebrew to Balinese and the later blocks of Indic scripts: letters and their marks.
_JOINABLE = "[\u0590-\u1fff\ua800-\uabff\U00011000-\U000114ff]"
_JOINER = re.compile(f"(?<={_JOINABLE})[\u200c\u200d](?={_JOINABLE})")
_HANGUL = range(0xAC00, 0xD7A4)


@dataclass(frozen=True, kw_only=True)
class MarkSurvey:
    """Treatment of the accents and joiners of a text, and the counts that it is based on.

    Attributes:
        accents: whether accents are kept or stripped.
        joiners: whether zero-width joiners are kept or removed.
        letters: share of the letters that stripping changes.
        words: number of different words with their accents.
        stripped: number of different words without accents.
    """

    accents: Literal["keep", "strip"]
    joiners: Literal["keep", "remove"]
    letters: float
    words: int
    stripped: int

    @property
    def merged(self) -> int:
        """Number of words that stripping makes equal to another one."""
        return self.words - self.stripped

    def facts(self) -> dict[str, Any]:
        """Return the survey as a mapping for `text.json`."""
        return asdict(self)

    def describe(self) -> str:
        """Return one line on accents and joiners."""
        counted = f"{self.merged:,} of {self.words:,} different words equal to another one"
        accents = (
            f"kept; stripping would make {counted}"
            if self.accents == "keep"
            else f"stripped, which makes {counted}"
        )
        return accents + ("; zero-width joiners kept" if self.joiners == "keep" else "")

    def warnings(self) -> list[str]:
        """Return warnings, one line each, about letters that stripping loses."""
        if self.accents == "keep" or self.letters <= MOST_STRIPPED:
            return []
        return [
            f"base.data.tokenizer.accents: strip changes {self.letters:.1%} of the letters and "
            f"makes {self.merged:,} of {self.words:,} different words equal to another one; "
            f"take keep"
        ]


def survey_marks(settings: TrainedTokenizer | WordPieceFile, texts: Texts) -> MarkSurvey:
    """Return what a tokenizer does to the marks of a text; `auto` is decided by the text.

    Args:
        settings: settings of the tokenizer.
        texts: function that returns the texts.
    """
    characters: Counter[str] = Counter()
    words: set[str] = set()
    joiners = 0
    for text in texts():
        characters.update(text)
        words.update(text.split())
        joiners += len(_JOINER.findall(text)) if "\u200c" in text or "\u200d" in text else 0
    letters = max(1, sum(count for character, count in characters.items() if _is_letter(character)))
    changed = sum(count for char, count in characters.items() if changed_by_stripping(char))
    kept, stripped = _different_words(settings, words)
    survey = MarkSurvey(
        accents="keep" if changed > MOST_STRIPPED * letters else "strip",
        joiners="keep" if joiners > _JOINED * letters else "remove",
        letters=changed / letters,
        words=kept,
        stripped=stripped,
    )
    if isinstance(settings, WordPieceFile):
        return replace(survey, accents=settings.accents, joiners="remove")
    return replace(
        survey,
        accents=survey.accents if settings.accents == "auto" else settings.accents,
        joiners=survey.joiners if settings.joiners == "auto" else settings.joiners,
    )


def resolve_marks(settings: TrainedTokenizer, texts: Texts) -> TrainedTokenizer:
    """Return the settings with `auto` replaced by what the text decides.

    Args:
        settings: settings of the tokenizer.
        texts: function that returns the texts.
    """
    if "auto" not in (settings.accents, settings.joiners):
        return settings
    survey = survey_marks(settings, texts)
    return replace(settings, accents=survey.accents, joiners=survey.joiners)


def changed_by_stripping(character: str) -> bool:
    """Return whether stripping accents removes a character or changes it."""
    if ord(character) in _HANGUL:
        return True
    return _is_letter(character) and any(
        unicodedata.category(part) == "Mn" for part in unicodedata.normalize("NFD", character)
    )


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _different_words(
    settings: TrainedTokenizer | WordPieceFile, words: set[str]
) -> tuple[int, int]:
    """Return the number of different words with accents, and without them."""
    keep, strip = (
        normalization.bert_normalizer(_with_accents(settings, accents))
        for accents in ("keep", "strip")
    )
    normalized = keep.normalize_str(" ".join(sorted(words)))
    kept = {word for word, _ in normalization.bert_splitter().pre_tokenize_str(normalized)}
    stripped = set(strip.normalize_str(" ".join(sorted(kept))).split())
    return len(kept), len(stripped)


def _with_accents(
    settings: TrainedTokenizer | WordPieceFile, accents: Any
) -> TrainedTokenizer | WordPieceFile:
    if isinstance(settings, WordPieceFile):
        return replace(settings, accents=accents)
    return replace(settings, accents=accents, joiners="remove")
