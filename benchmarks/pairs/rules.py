"""Rules that find where a sentence becomes ungrammatical by the exchange of a word.

A site is a position of a sentence with a word that would be wrong there. The words before it are in
lower case, and the first word of a sentence is never a site, so that spelling does not reveal which
sentence was changed. Tags are those of the Brown corpus.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.pairs.sentences import Sentence, Sources


class Site(NamedTuple):
    """A word of a sentence and one that would be wrong in its place.

    Attributes:
        sentence: sentence.
        position: index of the word.
        other: wrong word.
    """

    sentence: Sentence
    position: int
    other: str

    @property
    def word(self) -> str:
        """Word at the position."""
        return self.sentence.words[self.position]


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


_NOUNS = frozenset({"nn", "nns", "np", "nps", "nr", "nn$", "nns$", "np$"})
_MODIFIERS = frozenset(
    {
        "at",
        "dt",
        "dts",
        "dti",
        "dtx",
        "pp$",
        "cd",
        "od",
        "ap",
        "jj",
        "jjr",
        "jjt",
        "nn",
        "np$",
        "nn$",
    }
)

_VERBS = _both_ways(("is", "are"), ("was", "were"), ("has", "have"), ("does", "do"))
_VERB_NUMBER = {"bez": 1, "bedz": 1, "hvz": 1, "doz": 1, "ber": 2, "bed": 2, "hv": 2, "do": 2}
_SUBJECT_NUMBER = {"nn": 1, "np": 1, "pps": 1, "nns": 2, "ppss": 2}
_SUBJUNCTIVE = frozenset({"if", "though", "unless", "wish", "wished", "lest", "suppose"})


def agreement_sites(sentence: Sentence) -> Iterator[Site]:
    """Yield forms of be, have and do that directly follow a subject of the same number.

    The subject is a personal pronoun other than "I" and "you", a proper noun, or a noun phrase that
    is neither the object of a preposition nor joined to another one. Sentences with "course" have
    no sites, because `move_apart` inserts that word.
    """
    words, tags = sentence
    for i in range(1, 0 if "course" in words else len(words)):
        if words[i] not in _VERBS or tags[i] not in _VERB_NUMBER:
            continue
        if _SUBJECT_NUMBER.get(tags[i - 1]) != _VERB_NUMBER[tags[i]]:
            continue
        if words[i - 1].lower() in {"i", "you"} or _tag_before_phrase(tags, i - 1) in ("in", "cc"):
            continue
        before = {word.lower() for word in words[:i]}
        if words[i] in {"was", "were"} and before & _SUBJUNCTIVE:  # "if he were"
            continue
        yield Site(sentence, i, _VERBS[words[i]])


def move_apart(site: Site) -> Site:
    """Return an agreement site with ", of course," between the subject and the verb.

    The words beside the verb then do not tell its number.
    """
    (words, tags), i = site.sentence, site.position
    sentence = Sentence(
        (*words[:i], ",", "of", "course", ",", *words[i:]),
        (*tags[:i], ",", "in", "nn", ",", *tags[i:]),
    )
    return Site(sentence, i + 4, site.other)


def _tag_before_phrase(tags: tuple[str, ...], noun: int) -> str:
    """Return the tag before the noun phrase with its head at `noun`; empty at the beginning."""
    i = noun - 1
    if tags[noun] in ("nn", "nns"):
        while i >= 0 and tags[i] in _MODIFIERS:
            i -= 1
    return tags[i] if i >= 0 else ""


_DETERMINERS = _both_ways(("this", "these"), ("that", "those"))
_SINGULAR = frozenset({"a", "an", "this", "that", "each", "every", "another", "one"})
_PLURAL = frozenset(
    {"these", "those", "many", "few", "several", "both", "two", "three", "four", "five", "six",
     "seven", "eight", "nine", "ten"}
)  # fmt: skip
_IRREGULAR = {"man": "men", "woman": "women", "child": "children", "foot": "feet"}


def determiner_sites(sentence: Sentence, numbers: dict[str, str]) -> Iterator[Site]:
    """Yield demonstratives, and nouns after a determiner or a number word, that agree in number.

    At most one adjective is between them, and no noun follows the noun.

    Args:
        sentence: sentence.
        numbers: the other number's form of each noun (`noun_numbers`).
    """
    words, tags = sentence
    for i in range(len(words) - 2):
        word = words[i].lower()
        singular = word in _SINGULAR
        if not singular and word not in _PLURAL:
            continue
        if word in {"this", "that", "these", "those"} and tags[i] not in ("dt", "dts"):
            continue  # "that" is also a conjunction and a relative pronoun
        noun = i + 2 if tags[i + 1] == "jj" else i + 1
        if tags[noun] != ("nn" if singular else "nns") or tags[noun + 1] in _NOUNS:
            continue
        if i > 0 and word in _DETERMINERS:
            yield Site(sentence, i, _DETERMINERS[word])
        if words[noun] in numbers:
            yield Site(sentence, noun, numbers[words[noun]])


def noun_numbers(tag_counts: dict[str, Counter[str]]) -> dict[str, str]:
    """Return the plural of each singular noun and the reverse: with -s, or one of four others.

    A form counts as singular or plural if at least 95 % of its occurrences are tagged so.
    """
    plurals = {word: word + "s" for word in tag_counts} | _IRREGULAR
    return _both_ways(
        *(
            (one, several)
            for one, several in plurals.items()
            if is_mostly(tag_counts, one, "nn") and is_mostly(tag_counts, several, "nns")
        )
    )


def is_mostly(tag_counts: dict[str, Counter[str]], word: str, *tags: str) -> bool:
    """Return whether a word occurs, and at least 95 % of its occurrences have one of `tags`."""
    counts = tag_counts.get(word, Counter())
    return bool(counts) and sum(counts[tag] for tag in tags) >= 0.95 * counts.total()


_CASES = _both_ways(("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"), ("I", "me"))
_FINITE = frozenset({"vbd", "bedz", "bed", "bez", "ber", "bem", "hvd", "hvz", "hv", "md", "dod"})
_GOVERNS = frozenset({"vb", "vbd", "vbg", "vbz", "vbn", "in"})
_AFTER_OBJECT = frozenset({".", ",", ";", ":", "in", "to", "cc", "at", "rb", "rp"})
# "like", "than", ... are also followed by the subject's case; so are verbs that introduce speech.
_EITHER_CASE = frozenset(
    {"like", "than", "as", "but", "except", "said", "says", "say", "asked", "replied", "cried",
     "answered", "thought", "added", "was", "is", "were", "be"}
)  # fmt: skip


def pronoun_sites(sentence: Sentence) -> Iterator[Site]:
    """Yield personal pronouns before a finite verb, and after a verb or preposition as its object.

    The object is followed by punctuation, a preposition, an article, an adverb or "to", never by a
    verb that could make it a subject.
    """
    words, tags = sentence
    for i in range(1, len(words) - 1):
        if words[i] not in _CASES:
            continue
        before, after = tags[i - 1], tags[i + 1]
        subject = tags[i] in ("pps", "ppss") and after in _FINITE and before not in ("in", "cc")
        object_ = tags[i] == "ppo" and before in _GOVERNS and after in _AFTER_OBJECT
        if words[i] == "her" and after in ("at", "rb"):
            continue
        if (subject or object_) and words[i - 1].lower() not in _EITHER_CASE:
            yield Site(sentence, i, _CASES[words[i]])


_NEIGHBOURS = frozenset(
    {("at", "nn"), ("at", "nns"), ("pp$", "nn"), ("pp$", "nns"), ("in", "at"), ("in", "pp$"),
     ("to", "vb"), ("md", "vb"), ("jj", "nn"), ("jj", "nns")}
)  # fmt: skip


def order_sites(sentence: Sentence) -> Iterator[tuple[int, str]]:
    """Yield positions of a word that must precede the next one, with the tags of both.

    The neighbours are an article, possessive or adjective and its noun, a preposition and an
    article or possessive, and "to" or a modal verb and its verb. An adjective follows an article or
    a possessive, and no noun follows the noun.
    """
    words, tags = sentence
    for i in range(1, len(words) - 2):
        first, second = tags[i], tags[i + 1]
        if (first, second) not in _NEIGHBOURS or not words[i].islower():
            continue
        if second in ("nn", "nns") and tags[i + 2] in _NOUNS:
            continue
        if first == "jj" and tags[i - 1] not in ("at", "pp$"):
            continue
        if words[i + 1].islower():
            yield i, f"{first} {second}"


def word_class_sites(sentence: Sentence, sources: Sources) -> Iterator[tuple[int, str]]:
    """Yield positions of words of an unambiguous class, with the class.

    The classes are singular and plural nouns after "the", a possessive or such a word and an
    adjective; infinitives after "to" or a modal verb; and past forms after a subject. A word has an
    unambiguous class if at least 95 % of its occurrences have the class's tags.
    """
    words, tags = sentence
    for i in range(1, len(words) - 1):
        word, tag, before = words[i], tags[i], tags[i - 1]
        start = i - 2 if before == "jj" else i - 1
        definite = start >= 0 and (words[start].lower() == "the" or tags[start] == "pp$")
        match tag:
            case "nn" | "nns":
                fits = definite and tags[i + 1] not in _NOUNS and _is_class(sources, word, tag)
            case "vb":
                fits = before in ("to", "md") and _is_class(sources, word, tag)
            case "vbd":
                subject = ("pps", "ppss", "nn", "nns", "np")
                fits = before in subject and _is_class(sources, word, "vbd", "vbn")
            case _:
                fits = False
        if fits and word.islower():
            yield i, tag


def _is_class(sources: Sources, word: str, *tags: str) -> bool:
    return is_mostly(sources.tag_counts, word, *tags)
