"""The English pairs of the package: made by the generator, held out, balanced by construction."""

import json
import lzma
import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from prepared_text import PreparedText

from benchmarks.pairs import rules
from benchmarks.pairs.__main__ import FILE, make_pairs, pack
from benchmarks.pairs.sentences import (
    Sentence,
    Sources,
    read_sources,
    split_words,
    training_texts,
    word_ngrams,
)
from lab.config.metrics import METRICS
from lab.data.prepared_files import read_facts
from lab.tasks import embedded
from lab.tasks.minimal_pairs import MinimalPair, embedded_pairs, list_categories

PAIRS = embedded_pairs()
CATEGORIES = list_categories(PAIRS)


@pytest.fixture(scope="module")
def sources() -> Sources:
    return read_sources()


def different_words(pair: MinimalPair) -> list[tuple[str, str]]:
    """Return the different words of both sentences by position, without punctuation."""
    both = zip(pair.good.split(), pair.bad.split(), strict=True)
    return [(a.strip(".,;:?!"), b.strip(".,;:?!")) for a, b in both if a != b]


def test_file_of_the_package_equals_the_output_of_the_generator(sources: Sources) -> None:
    rows = make_pairs(sources)
    assert lzma.decompress(pack(rows)) == lzma.decompress(FILE.read_bytes())
    assert [MinimalPair(**row) for row in rows] == list(PAIRS)


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_exchange_of_two_words_occurs_as_often_as_its_reverse(category: str) -> None:
    changes = [different_words(pair) for pair in PAIRS if pair.category == category]
    if category == "order":
        assert all([(a, b)] == [(d, c)] for (a, b), (c, d) in changes)
        return
    exchanges = Counter(change for (change,) in changes)
    assert exchanges == Counter(change[::-1] for change in exchanges.elements())


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("seed", range(3))
def test_any_score_of_words_without_their_context_is_right_in_half_of_the_pairs(
    category: str, seed: int
) -> None:
    words = sorted({word for pair in PAIRS for word in split_words(f"{pair.good} {pair.bad}")})
    drawn = np.random.default_rng(seed).normal(size=len(words))
    weights = dict(zip(words, drawn.tolist(), strict=True))

    def score(text: str) -> float:
        return math.fsum(weights[word] for word in split_words(text))

    scores = [(score(pair.good), score(pair.bad)) for pair in PAIRS if pair.category == category]
    right = sum((good > bad) + (good == bad) / 2 for good, bad in scores)
    assert right == len(scores) / 2


def test_standard_error_of_the_mean_over_categories_is_at_most_015() -> None:
    counts = Counter(pair.category for pair in PAIRS)
    variance = sum(0.25 / count for count in counts.values()) / len(counts) ** 2
    assert math.sqrt(variance) <= 0.015


def test_frequencies_of_replaced_words_differ_by_a_quarter_at_most(sources: Sources) -> None:
    for pair in PAIRS:
        if pair.category == "replacement":
            ((good, bad),) = different_words(pair)
            assert 0.8 <= sources.counts[good] / sources.counts[bad] <= 1.25


def test_no_six_consecutive_words_of_a_pair_are_in_the_training_text() -> None:
    grams = {gram for pair in PAIRS for gram in word_ngrams(original(pair))}
    assert len(grams) > 10_000
    for text in islice(training_texts(), 0, None, 3):  # a third of the documents, to save time
        assert grams.isdisjoint(word_ngrams(text))


def original(pair: MinimalPair) -> str:
    inserted = ", of course,"
    return pair.good.replace(inserted, "") if pair.category == "distant_agreement" else pair.good


def test_sentences_are_different_and_in_no_training_rows_of_a_task() -> None:
    rows = {split: set(split_texts(split)) for split in ("train", "validation", "test")}
    sentences = [" ".join(split_words(original(pair))) for pair in PAIRS]
    assert len(set(sentences)) == len(PAIRS)
    assert set(sentences) <= rows["validation"] | rows["test"]
    assert rows["train"].isdisjoint(sentences)
    probed = embedded.read_embedded("pos", "train").words
    assert {" ".join(split_words(" ".join(words))) for words in probed} <= rows["train"]


def test_overlap_of_a_training_text_with_the_pairs_is_counted(prepared_text: PreparedText) -> None:
    overlaps = {each["task"]: each for each in read_facts(prepared_text.text)["overlaps"]}
    assert overlaps["pairs"]["questions"] == len(PAIRS)
    assert overlaps["pairs"]["found"] == 0
    assert METRICS["pairs/order/accuracy"].task == "pairs"


def split_texts(split: str) -> Iterator[str]:
    for row in embedded._rows("pos"):
        if row["split"] == split:
            yield " ".join(split_words(" ".join(row["words"])))


def tagged(text: str) -> Sentence:
    """Return the sentence of words written as word/tag."""
    words, tags = zip(*(word.rsplit("/", 1) for word in text.split()), strict=True)
    return Sentence(words, tags)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the/at boys/nns were/bed late/rb ./.", ["was"]),
        ("so/rb she/pps has/hvz gone/vbn ./.", ["have"]),
        ("today/nr you/ppss were/bed late/rb ./.", []),  # "you" has no number
        ("a/at pair/nn of/in shoes/nns were/bed lost/vbn ./.", []),  # "was" is right too
        ("if/cs he/pps was/bedz late/rb ./.", []),  # "were" is right too
        ("John/np and/cc the/at boy/nn are/ber late/rb ./.", []),
    ],
)
def test_verbs_are_exchanged_only_where_the_subjects_number_is_plain(
    text: str, found: list[str]
) -> None:
    assert [site.other for site in rules.agreement_sites(tagged(text))] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He/pps saw/vbd these/dts old/jj men/nns ./.", ["this", "man"]),
        ("A/at man/nn came/vbd in/rp ./.", ["men"]),
        ("He/pps saw/vbd a/at man/nn child/nn ./.", []),  # a noun follows the noun
        ("It/pps shows/vbz that/cs men/nns came/vbd ./.", []),  # a conjunction
    ],
)
def test_determiners_and_nouns_are_exchanged_where_both_show_the_number(
    text: str, found: list[str]
) -> None:
    numbers = {"man": "men", "men": "man"}
    assert [site.other for site in rules.determiner_sites(tagged(text), numbers)] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("then/rb he/pps went/vbd home/nr ./.", ["him"]),
        ("They/ppss saw/vbd him/ppo ./.", ["he"]),
        ("They/ppss saw/vbd him/ppo go/vb ./.", []),  # also the subject of the next verb
        ("old/jj like/cs him/ppo ./.", []),  # both cases are used
    ],
)
def test_pronouns_are_exchanged_where_the_case_is_plain(text: str, found: list[str]) -> None:
    assert [site.other for site in rules.pronoun_sites(tagged(text))] == found


def test_neighbours_are_reordered_only_inside_a_sentence_and_before_no_noun() -> None:
    sentence = tagged("The/at boy/nn saw/vbd the/at river/nn bank/nn in/in the/at sun/nn ./.")
    assert list(islice(rules.order_sites(sentence), 9)) == [(6, "in at"), (7, "at nn")]


def test_parenthesis_separates_the_subject_from_its_verb() -> None:
    (site,) = rules.agreement_sites(tagged("the/at boys/nns were/bed late/rb ./."))
    moved = rules.move_apart(site)
    assert moved.sentence.text() == "the boys, of course, were late."
    assert (moved.word, moved.other) == ("were", "was")


def test_rows_are_json_lines_with_three_keys() -> None:
    lines = lzma.decompress(FILE.read_bytes()).decode().splitlines()
    assert all(json.loads(line).keys() == {"good", "bad", "category"} for line in lines)
