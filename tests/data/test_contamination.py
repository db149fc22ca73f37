"""Tests of the overlap of 13 consecutive tokens, against a brute-force search with sets."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.contamination import NGRAM, EvaluationNgrams, Overlap, ngram_hashes

Ids = npt.NDArray[np.int64]

texts = st.lists(st.integers(5, 6), max_size=24)  # two different tokens only, so that texts overlap
documents = st.lists(texts, max_size=5)
questions = st.lists(texts, max_size=6)


def ids(tokens: Sequence[int]) -> Ids:
    return np.array(tokens, np.int64)


def grams(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[start : start + NGRAM]) for start in range(len(tokens) - NGRAM + 1)]


def shared(index: EvaluationNgrams, read: Sequence[Sequence[int]]) -> list[bool]:
    document_T = np.repeat(np.arange(len(read)), [len(tokens) for tokens in read])
    joined = [token for tokens in read for token in tokens]
    return index.shared_T(ids(joined), document_T).tolist()


def brute_force(read: Sequence[Sequence[int]], task: Sequence[Sequence[int]]) -> list[bool]:
    known = {gram for question in task for gram in grams(question)}
    marks = []
    for tokens in read:
        in_document = [False] * len(tokens)
        for start, gram in enumerate(grams(tokens)):
            if gram in known:
                in_document[start : start + NGRAM] = [True] * NGRAM
        marks += in_document
    return marks


@given(read=documents, task=questions)
def test_shared_tokens_are_those_in_a_shared_ngram(
    read: list[list[int]], task: list[list[int]]
) -> None:
    marks = shared(EvaluationNgrams({"task": [ids(question) for question in task]}), read)
    assert marks == brute_force(read, task)


@given(batches=st.lists(documents, max_size=3), tasks=st.lists(questions, max_size=3))
def test_overlaps_count_questions_shared_with_any_batch(
    batches: list[list[list[int]]], tasks: list[list[list[int]]]
) -> None:
    index = EvaluationNgrams({str(n): [ids(text) for text in task] for n, task in enumerate(tasks)})
    for read in batches:
        shared(index, read)
    met = {gram for read in batches for tokens in read for gram in grams(tokens)}
    assert index.overlaps() == [
        Overlap(
            task=str(number),
            questions=len(task),
            short=sum(len(text) < NGRAM for text in task),
            found=sum(not met.isdisjoint(grams(text)) for text in task),
        )
        for number, task in enumerate(tasks)
    ]


def test_ngrams_do_not_cross_documents() -> None:
    question = list(range(5, 5 + NGRAM))
    index = EvaluationNgrams({"task": [ids(question)]})
    for cut in range(1, NGRAM):
        assert not any(shared(index, [question[:cut], question[cut:]]))
    assert index.overlaps()[0].found == 0
    assert all(shared(index, [question]))
    assert index.overlaps()[0].found == 1


@pytest.mark.parametrize("change", range(NGRAM))
def test_ngram_with_one_changed_token_is_no_overlap(change: int) -> None:
    question = list(range(5, 5 + NGRAM))
    other = [token + (position == change) for position, token in enumerate(question)]
    assert not any(shared(EvaluationNgrams({"task": [ids(question)]}), [other]))


def test_empty_index_has_no_overlap() -> None:
    assert not any(shared(EvaluationNgrams({}), [list(range(40))]))
    assert EvaluationNgrams({}).overlaps() == []


def test_hashes_of_a_million_ngrams_are_distinct() -> None:
    """A collision has probability 3e-8: 2^39 pairs of n-grams and 2^64 hash values."""
    tokens_T = np.random.default_rng(7).integers(0, 30_000, 2**20)
    assert len(np.unique(ngram_hashes(tokens_T))) == len(tokens_T) - NGRAM + 1
