"""Sentences for minimal pairs: held-out, short, and absent from the embedded training text.

A sentence is used if

- it belongs to the validation or test split of the embedded Brown corpus, which no probe and no
  fine-tuning run is trained on;
- it has 6 to 24 words, consists of words in ASCII letters and of sentence punctuation, and ends
  with a full stop, a question mark or an exclamation mark;
- no 6 consecutive words of it occur in the embedded training text or in the training split of the
  Brown corpus, on which the part-of-speech probe is trained.
"""

import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple

NGRAM = 6
_LEAST, _MOST = 6, 24  # words, without punctuation
_PUNCTUATION = frozenset(",;:.?!")
_DOUBLED = {"??": "?", "!!": "!"}  # the Brown corpus's spelling
_PLACEHOLDERS = frozenset({"Af"})  # of formulas, in the Brown corpus
_WORD = re.compile(r"[A-Za-z]+('[a-z]+)?")
_IN_TEXT = re.compile(r"[a-z]+(?:'[a-z]+)?")


class Sentence(NamedTuple):
    """A tagged sentence.

    Attributes:
        words: words and punctuation marks.
        tags: tag of each word.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]

    def text(self) -> str:
        """Return the sentence as text."""
        return join_words(self.words)


class Sources(NamedTuple):
    """Sentences to make pairs from, and properties of their words.

    Attributes:
        sentences: sentences that fulfil the conditions of this module, in the corpus's order.
        counts: frequency of each lower-case word in the embedded training text.
        tag_counts: frequency of the tags of each lower-case word in the Brown corpus.
    """

    sentences: tuple[Sentence, ...]
    counts: Counter[str]
    tag_counts: dict[str, Counter[str]]


def read_sources() -> Sources:
    """Read the embedded corpora."""
    rows = list(_rows("tasks", "brown_pos.jsonl.xz"))
    candidates = [
        Sentence(tuple(_DOUBLED.get(word, word) for word in row["words"]), tuple(row["tags"]))
        for row in rows
        if row["split"] != "train"
    ]
    candidates = [sentence for sentence in dict.fromkeys(candidates) if _is_usable(sentence)]
    wanted = {gram for sentence in candidates for gram in word_ngrams(sentence.text())}
    counts: Counter[str] = Counter()
    met: set[tuple[str, ...]] = set()
    for text in training_texts():
        words = split_words(text)
        counts.update(words)
        met.update(wanted.intersection(_ngrams(words)))
    for row in rows:
        if row["split"] == "train":
            met.update(wanted.intersection(word_ngrams(" ".join(row["words"]))))
    sentences = tuple(each for each in candidates if met.isdisjoint(word_ngrams(each.text())))
    return Sources(sentences, counts, _count_tags(rows))


def training_texts() -> Iterator[str]:
    """Yield the documents of the embedded training text."""
    folder = resources.files("lab").joinpath("text", "corpus")
    for name in sorted(file.name for file in folder.iterdir() if file.name.endswith(".xz")):
        yield from (row["text"] for row in _rows("corpus", name))


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return _IN_TEXT.findall(text.lower())


def word_ngrams(text: str) -> set[tuple[str, ...]]:
    """Return all `NGRAM` consecutive words of a text, in lower case and without punctuation."""
    return set(_ngrams(split_words(text)))


def join_words(words: Sequence[str]) -> str:
    """Return words as text, without a space before punctuation."""
    return "".join(
        word if word in _PUNCTUATION or not number else f" {word}"
        for number, word in enumerate(words)
    )


def _ngrams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(NGRAM)), strict=False)


def _is_usable(sentence: Sentence) -> bool:
    words = [word for word in sentence.words if word not in _PUNCTUATION]
    return (
        _LEAST <= len(words) <= _MOST
        and all(_WORD.fullmatch(word) for word in words)
        and _PLACEHOLDERS.isdisjoint(words)
        and sentence.words[-1] in (".", "?", "!")
    )


def _count_tags(rows: Sequence[dict[str, Any]]) -> dict[str, Counter[str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for row in rows:
        pairs.update(zip(map(str.lower, row["words"]), row["tags"], strict=True))
    counts: dict[str, Counter[str]] = {}
    for (word, tag), count in pairs.items():
        counts.setdefault(word, Counter())[tag] = count
    return counts


def _rows(folder: str, name: str) -> Iterator[dict[str, Any]]:
    file = resources.files("lab").joinpath("text", folder, name)
    with file.open("rb") as packed, lzma.open(packed, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
