"""Overlap of 13 tokens in a row, against sets of tuples."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.contamination import NGRAM, EvaluationNgrams, Overlap, ngram_hashes

Ids = npt.NDArray[np.int64]

texts = st.lists(st.integers(5, 6), max_size=24)  # few tokens, so that there are hits
documents = st.lists(texts, max_size=5)
questions = st.lists(texts, max_size=6)


def ids(tokens: Sequence[int]) -> Ids:
    return np.array(tokens, np.int64)


def grams(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[at : at + NGRAM]) for at in range(len(tokens) - NGRAM + 1)]


def shared(asked: EvaluationNgrams, read: Sequence[Sequence[int]]) -> list[bool]:
    document_T = np.repeat(np.arange(len(read)), [len(tokens) for tokens in read])
    joined = [token for tokens in read for token in tokens]
    return asked.shared_T(ids(joined), document_T).tolist()


def brute(read: Sequence[Sequence[int]], asked: Sequence[Sequence[int]]) -> list[bool]:
    known = {gram for question in asked for gram in grams(question)}
    marks = []
    for tokens in read:
        mine = [False] * len(tokens)
        for at, gram in enumerate(grams(tokens)):
            if gram in known:
                mine[at : at + NGRAM] = [True] * NGRAM
        marks += mine
    return marks


@given(read=documents, asked=questions)
def test_shared_tokens_are_those_in_a_shared_ngram(
    read: list[list[int]], asked: list[list[int]]
) -> None:
    found = shared(EvaluationNgrams({"task": [ids(question) for question in asked]}), read)
    assert found == brute(read, asked)


@given(batches=st.lists(documents, max_size=3), tasks=st.lists(questions, max_size=3))
def test_overlaps_count_questions_that_were_met_in_any_batch(
    batches: list[list[list[int]]], tasks: list[list[list[int]]]
) -> None:
    asked = EvaluationNgrams({str(n): [ids(text) for text in task] for n, task in enumerate(tasks)})
    for read in batches:
        shared(asked, read)
    met = {gram for read in batches for tokens in read for gram in grams(tokens)}
    assert asked.overlaps() == [
        Overlap(
            task=str(number),
            questions=len(task),
            short=sum(len(text) < NGRAM for text in task),
            found=sum(not met.isdisjoint(grams(text)) for text in task),
        )
        for number, task in enumerate(tasks)
    ]


def test_documents_do_not_join() -> None:
    question = list(range(5, 5 + NGRAM))
    asked = EvaluationNgrams({"task": [ids(question)]})
    for cut in range(1, NGRAM):
        assert not any(shared(asked, [question[:cut], question[cut:]]))
    assert asked.overlaps()[0].found == 0
    assert all(shared(asked, [question]))
    assert asked.overlaps()[0].found == 1


@pytest.mark.parametrize("change", range(NGRAM))
def test_one_other_token_is_no_overlap(change: int) -> None:
    question = list(range(5, 5 + NGRAM))
    other = [token + (place == change) for place, token in enumerate(question)]
    assert not any(shared(EvaluationNgrams({"task": [ids(question)]}), [other]))


def test_no_questions_share_nothing() -> None:
    assert not any(shared(EvaluationNgrams({}), [list(range(40))]))
    assert EvaluationNgrams({}).overlaps() == []


def test_hashes_tell_a_million_ngrams_apart() -> None:
    """2^40 pairs among 2^64 values: one collision is a chance of one in thirty million."""
    tokens_T = np.random.default_rng(7).integers(0, 30_000, 2**20)
    assert len(np.unique(ngram_hashes(tokens_T))) == len(tokens_T) - NGRAM + 1
