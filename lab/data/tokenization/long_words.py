"""Leave out of the text for training a tokenizer the words that are too long for it.

`tokenizers` merges the pairs of a word in time that grows with the square of its length, and a
WordPiece tokenizer replaces a word over its limit by one unknown token. Words over the limit, such
as base64, sequences of letters, or sentences of scripts without spaces, are therefore left out.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

MOST_COUNTED = 1_000  # characters of a word, so that one blob does not decide about a text

Texts = Callable[[], Iterable[str]]

# Characters at which BERT's splitting always ends a word.
_ENDS = r"\s!-/:-@\[-`{-~"
_GROWTH = 3  # a Hangul syllable has up to three letters if accents are stripped
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"


@dataclass(frozen=True, kw_only=True)
class LongWords:
    """Words over a limit.

    Attributes:
        words: their number.
        characters: number of their characters.
        share: their share of the text, in which a word counts with at most `MOST_COUNTED`
            characters.
    """

    words: int
    characters: int
    share: float


@dataclass(frozen=True, kw_only=True)
class WordLimit:
    """The longest word of a WordPiece tokenizer.

    Attributes:
        normalizer: normalizer of the tokenizer.
        splitter: splitting of normalized text into words.
        longest: number of characters of the longest word.
        ideographs: whether each ideograph is a word.
    """

    normalizer: Normalizer
    splitter: PreTokenizer
    longest: int
    ideographs: bool

    def without_long_words(self, texts: Texts) -> Iterator[str]:
        """Yield the texts; words over the limit are left out."""
        for text in texts():
            yield self._runs.sub(lambda match: self._shorten(match.group()), text)

    def count(self, texts: Texts) -> LongWords:
        """Return the number of words over the limit."""
        words = characters = counted = rest = 0
        for text in texts():
            sizes = [
                len(word)
                for run in self._runs.findall(text)
                for word in self._split(run)
                if len(word) > self.longest
            ]
            words, characters = words + len(sizes), characters + sum(sizes)
            counted += sum(min(size, MOST_COUNTED) for size in sizes)
            rest += max(0, len(text) - sum(sizes))
        return LongWords(words=words, characters=characters, share=counted / max(1, counted + rest))

    @cached_property
    def _runs(self) -> re.Pattern[str]:
        """Runs of characters that may be a word over the limit; each character is tested once."""
        ends = _ENDS + (_IDEOGRAPHS if self.ideographs else "")
        least = self.longest // _GROWTH + 1
        return re.compile(f"(?<![^{ends}])[^{ends}]{{{least},}}")

    def _shorten(self, run: str) -> str:
        words = self._split(run)
        short = [word for word in words if len(word) <= self.longest]
        return run if len(short) == len(words) else " ".join(short)

    def _split(self, run: str) -> list[str]:
        normalized = self.normalizer.normalize_str(run)
        return [word for word, _ in self.splitter.pre_tokenize_str(normalized)]


def cut_runs(texts: Texts, longest: int) -> Iterator[str]:
    """Yield the texts with a space after every `longest` characters of a run without white space.

    A byte-level tokenizer learns from all of a long run, in pieces of bounded length.
    """
    run = re.compile(rf"(?<!\S)\S{{{longest + 1},}}")
    for text in texts():
        yield run.sub(lambda match: _cut(match.group(), longest), text)


def _cut(run: str, longest: int) -> str:
    return " ".join(run[start : start + longest] for start in range(0, len(run), longest))
