"""Write the minimal pairs of the package: `python -m benchmarks.pairs`.

The result is a function of the embedded corpora; a test compares it with the file in the package.

Frequencies are matched by construction. Each exchange of a word a for b occurs as often as that of
b for a, in another sentence, so every preference for one of two words that does not depend on their
context is right in exactly half of the pairs: word frequency, word length and number of tokens are
no cues, whatever the vocabulary and the training text. In the category `replacement` the
frequencies of the two words in the embedded training text also differ by a factor of at most 1.25.
In the category `order` both sentences consist of the same words.
"""

import argparse
import hashlib
import json
import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path as File

from benchmarks.pairs import rules
from benchmarks.pairs.rules import Site
from benchmarks.pairs.sentences import Sentence, Sources, join_words, read_sources

FILE = File(__file__).parents[2] / "lab" / "text" / "pairs" / "brown_pairs.jsonl.xz"
_PAIRS = 300  # pairs of a category
_SHORT = 12  # words of sentences that are preferred, because short windows do not cut them
_RATIO = 1.25  # of the frequencies of two words in `replacement`
_FREQUENT = 200  # least occurrences in the embedded training text of such a word
_USES = 2  # exchanges of a word with others in `replacement`
_CLASSES = (("vb", "nn"), ("nns", "vbd"))  # the rarer class first

Row = dict[str, str]
Couple = tuple[Site, Site]


def main() -> None:
    """Write the file, and print the number of pairs of each category."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__)
    parser.add_argument(
        "--out", type=File, default=FILE, help="file to write (default: %(default)s)"
    )
    out = parser.parse_args().out
    rows = make_pairs(read_sources())
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(pack(rows))
    categories = [row["category"] for row in rows]
    for category in dict.fromkeys(categories):
        print(f"{category:<12} {categories.count(category)}")


def pack(rows: Iterable[Row]) -> bytes:
    """Return rows as JSON Lines, compressed."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return lzma.compress(lines.encode())


def make_pairs(sources: Sources) -> list[Row]:
    """Return the pairs of all categories; no sentence is used twice.

    Args:
        sources: sentences and word counts.
    """
    used: set[Sentence] = set()
    numbers = rules.noun_numbers(sources.tag_counts)

    def exchange(find_sites: Callable[[Sentence], Iterable[Site]]) -> Iterator[Couple]:
        return _exchange_couples(chain.from_iterable(map(find_sites, sources.sentences)), used)

    determiners = _take(exchange(partial(rules.determiner_sites, numbers=numbers)))
    subjects = exchange(rules.agreement_sites)
    near, distant = _take(subjects), _take(subjects)
    exchanged: dict[str, Sequence[Sequence[Site]]] = {
        "determiner": determiners,
        "agreement": near,
        "distant_agreement": [[rules.move_apart(site) for site in couple] for couple in distant],
        "pronoun": _take(exchange(rules.pronoun_sites)),
        "replacement": _take(_matched_couples(sources, used)),
    }
    rows = [row for item in exchanged.items() for row in _exchanged_rows(*item)]
    return rows + list(islice(_reordered_rows(sources.sentences, used), _PAIRS))


def _take(couples: Iterator[Couple]) -> list[Couple]:
    """Return as many couples as a category needs, or all if there are fewer."""
    return list(islice(couples, _PAIRS // 2))


def _exchange_couples(sites: Iterable[Site], used: set[Sentence]) -> Iterator[Couple]:
    """Yield couples of sites with the same two words, each of which is right in one of them.

    The pairs of words take turns, so that frequent ones do not fill the category.

    Args:
        sites: sites of a category.
        used: sentences that are not available; those of the couples are added.
    """
    ordered: dict[tuple[str, str], list[Site]] = defaultdict(list)
    for site in sorted(sites, key=lambda site: _key(site.sentence)):
        ordered[site.word, site.other].append(site)
    waiting = {words: iter(sites) for words, sites in ordered.items()}
    turns = sorted(words for words in waiting if words[0] < words[1] and words[::-1] in waiting)
    while turns:
        for words in tuple(turns):
            couple = [_next_unused(waiting[each], used) for each in (words, words[::-1])]
            first, second = couple
            if first is None or second is None or first.sentence == second.sentence:
                turns.remove(words)
                continue
            used |= {first.sentence, second.sentence}
            yield first, second


def _next_unused(sites: Iterator[Site], used: set[Sentence]) -> Site | None:
    return next((site for site in sites if site.sentence not in used), None)


def _matched_couples(sources: Sources, used: set[Sentence]) -> Iterator[Couple]:
    """Yield couples of sites with words of different classes and similar frequencies.

    A singular noun is exchanged for an infinitive, a plural noun for a past form.
    """
    sites: dict[str, list[tuple[Sentence, int]]] = defaultdict(list)
    for sentence in sorted(sources.sentences, key=_key):
        for position, word_class in rules.word_class_sites(sentence, sources):
            if sources.counts[sentence.words[position]] >= _FREQUENT:
                sites[word_class].append((sentence, position))
    uses: Counter[str] = Counter()
    kinds = [_match(sites[one], sites[other], sources, used, uses) for one, other in _CLASSES]
    for couples in zip_longest(*kinds):
        yield from (couple for couple in couples if couple is not None)


def _match(
    first: Sequence[tuple[Sentence, int]],
    second: Sequence[tuple[Sentence, int]],
    sources: Sources,
    used: set[Sentence],
    uses: Counter[str],
) -> Iterator[Couple]:
    """Pair each site of `first` with the unused site of `second` with the closest frequency."""

    def is_free(site: tuple[Sentence, int]) -> bool:
        return site[0] not in used and uses[site[0].words[site[1]]] < _USES

    def log_count(site: tuple[Sentence, int]) -> float:
        return math.log(sources.counts[site[0].words[site[1]]])

    for one in first:
        others = [other for other in second if is_free(other) and other[0] != one[0]]
        if not is_free(one) or not others:
            continue
        other = min(others, key=lambda other: abs(log_count(other) - log_count(one)))
        if abs(log_count(other) - log_count(one)) <= math.log(_RATIO):
            words = [sentence.words[position] for sentence, position in (one, other)]
            uses.update(words)
            used |= {one[0], other[0]}
            yield Site(*one, words[1]), Site(*other, words[0])


def _exchanged_rows(category: str, couples: Iterable[Sequence[Site]]) -> Iterator[Row]:
    for site in chain.from_iterable(couples):
        words = list(site.sentence.words)
        words[site.position] = site.other
        yield _row(site.sentence, words, category)


def _reordered_rows(sentences: Sequence[Sentence], used: set[Sentence]) -> Iterator[Row]:
    """Yield pairs in which two neighbours have changed places; kinds of neighbours take turns."""
    sites: dict[str, list[tuple[Sentence, int]]] = defaultdict(list)
    for sentence in sorted(sentences, key=_key):
        for position, tags in rules.order_sites(sentence):
            sites[tags].append((sentence, position))
    for turn in zip_longest(*(sites[tags] for tags in sorted(sites))):
        for sentence, position in (site for site in turn if site is not None):
            if sentence not in used:
                used.add(sentence)
                words = list(sentence.words)
                words[position : position + 2] = words[position + 1], words[position]
                yield _row(sentence, words, "order")


def _row(sentence: Sentence, bad: Sequence[str], category: str) -> Row:
    return {"good": sentence.text(), "bad": join_words(bad), "category": category}


def _key(sentence: Sentence) -> tuple[bool, str]:
    """Return a key that sorts sentences in a fixed order: short ones first, then by a hash."""
    text = sentence.text()
    return len(sentence.words) > _SHORT, hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
