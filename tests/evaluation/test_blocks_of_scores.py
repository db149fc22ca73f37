"""Contributions of documents and pairs to scores: their variance is that of a block bootstrap.

The score of a drawn test set is computed by other means than the contributions: from the nats of
the drawn words, and by `accuracies` of the drawn pairs.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from objectives_by_kind import make_objective
from prepared_text import PreparedText

from lab import score_blocks
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.data.passages import Passage
from lab.evaluation import scores
from lab.evaluation.corruption import open_held_out
from lab.evaluation.hidden_words import HiddenWords, hide_words
from lab.evaluation.minimal_pairs import accuracies, accuracy_blocks, score_pairs
from lab.evaluation.word_prediction import WordScore, score_head, score_readout
from lab.score_blocks import ScoreBlocks, assign_blocks, document_blocks, ratio_blocks
from lab.tasks.minimal_pairs import MinimalPair, embedded_pairs
from lab.training.objectives.base import Objective
from lab.training.objectives.mlm import Mlm

DRAWS = 1_000
Ints = npt.NDArray[np.int64]


def deviation(blocks: list[float]) -> float:
    return math.sqrt(len(blocks) * float(np.var(blocks, ddof=1)))


def bootstrap(block_N: Ints, statistics: Callable[[Ints], list[float]]) -> list[float]:
    """Return the standard deviations of statistics of the units of drawn blocks."""
    rng = np.random.default_rng(0)
    B = int(block_N.max()) + 1
    members = [np.flatnonzero(block_N == block) for block in range(B)]
    drawn = [
        statistics(np.concatenate([members[b] for b in rng.integers(B, size=B)]))
        for _ in range(DRAWS)
    ]
    deviations: list[float] = np.std(drawn, axis=0).tolist()
    return deviations


# Blocks.


def test_blocks_are_the_documents() -> None:
    sizes = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    document_G = torch.tensor([0, 2, 3, 7, 8, 9, 11, 12, 20, 21]).repeat_interleave(sizes)
    assert document_blocks(document_G).bincount().equal(sizes)


def test_many_documents_make_contiguous_groups_of_whole_documents() -> None:
    sizes = torch.randint(1, 9, (250,), generator=torch.Generator().manual_seed(0))
    document_G = torch.arange(250).repeat_interleave(sizes)
    block_G = document_blocks(document_G)
    assert block_G.equal(block_G.sort().values)
    assert int(block_G.max()) + 1 == score_blocks.BLOCKS
    for document in range(250):
        assert len(block_G[document_G == document].unique()) == 1


def test_few_documents_are_cut_into_contiguous_groups() -> None:
    assert document_blocks(torch.arange(9).repeat_interleave(50)).equal(assign_blocks(450))
    assert document_blocks(torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_windows_have_the_documents_of_the_text(
    prepared_text: PreparedText, held_out: Path
) -> None:
    corpus, read = prepared_text.corpus, open_held_out(held_out)
    assert len(corpus.document_N) == len(corpus.held_out_NT)
    of_row: dict[tuple[int, ...], set[int]] = {}
    for row, document in zip(corpus.held_out_NT.tolist(), corpus.document_N.tolist(), strict=True):
        of_row.setdefault(tuple(row), set()).add(document)
    for row, document in zip(read.original_NT.tolist(), read.document_N.tolist(), strict=True):
        assert document in of_row[tuple(row)]


def test_windows_of_a_document_are_in_one_block(
    prepared_text: PreparedText, held_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_blocks, "_FEWEST", 2)
    blocks: ScoreBlocks = {}
    built, read = scored(ElectraConfig(kind="electra")), open_held_out(held_out)
    scores.score_detection(built, read, blocks)
    documents = len(read.document_N.unique())
    assert {len(values) for values in blocks.values()} == {min(documents, score_blocks.BLOCKS)}


# Hidden words.


def scored(settings: AnyObjectiveConfig) -> Objective:
    return make_objective(settings, vocab=400)


@pytest.fixture(scope="module")
def hidden(prepared_text: PreparedText) -> HiddenWords:
    """Return hidden words of sixty documents of different sizes, each with words of its own."""
    rng = np.random.default_rng(0)
    words = " ".join(passage.text for passage in prepared_text.corpus.passages).split()
    passages = []
    for document in range(60):
        own, size = rng.choice(words, 12), int(rng.integers(100, 700))
        passages.append(Passage(document, " ".join(rng.choice(own, size))))
    return hide_words(prepared_text.corpus.vocabulary, tuple(passages), 16, "each")


@pytest.fixture(scope="module", params=["readout", "head"])
def word_score(request: pytest.FixtureRequest, hidden: HiddenWords) -> WordScore:
    built = scored(MlmConfig(kind="mlm")).eval()
    assert isinstance(built, Mlm)
    score = (
        score_readout(built.encoder, hidden)
        if request.param == "readout"
        else score_head(built.encoder, built.vocabulary, hidden)
    )
    assert score is not None
    return score


def test_nats_of_words_add_up_to_the_score(word_score: WordScore) -> None:
    mean = word_score.nats_N.sum() / word_score.characters_N.sum()
    assert mean.item() == pytest.approx(word_score.nats_per_character, rel=1e-6)
    assert (word_score.nats_N > 0).all()


def test_variance_of_hidden_words_equals_that_of_a_bootstrap_of_documents(
    word_score: WordScore, hidden: HiddenWords
) -> None:
    nats_N, characters_N = word_score.nats_N.numpy(), word_score.characters_N.numpy()
    document_N = hidden.document_N.numpy()

    def statistics(rows: Ints) -> list[float]:
        return [nats_N[rows].sum() / characters_N[rows].sum()]

    block_N = document_blocks(hidden.document_N)
    found = deviation(ratio_blocks(word_score.nats_N, word_score.characters_N, block_N))
    assert [found] == pytest.approx(bootstrap(document_N, statistics), rel=0.1)
    words = ratio_blocks(word_score.nats_N, word_score.characters_N, torch.arange(len(document_N)))
    assert deviation(words) < 0.9 * found  # the words of a document are correlated


@pytest.mark.parametrize("name", ["mlm/nats_per_character", "mlm/own_head/nats_per_character"])
def test_blocks_of_hidden_words_leave_the_score_unchanged(
    name: str, prepared_text: PreparedText
) -> None:
    built, blocks = scored(MlmConfig(kind="mlm")), ScoreBlocks()
    take = scores.score_own_head if "own_head" in name else scores.score_hidden_words
    row = take(built, prepared_text.corpus, blocks)
    assert row == take(built, prepared_text.corpus)
    assert list(row) == list(blocks) == [name]
    assert sum(blocks[name]) == pytest.approx(0.0, abs=1e-3 * max(map(abs, blocks[name])))


# Minimal pairs.


@pytest.fixture(scope="module")
def pairs() -> tuple[MinimalPair, ...]:
    """Return pairs of three categories of different sizes, mixed."""
    rng = np.random.default_rng(0)
    return tuple(
        MinimalPair("x", "y", str(category))
        for category in rng.choice(["a", "b", "c"], 1_200, p=[0.6, 0.3, 0.1])
    )


def test_variance_of_accuracies_equals_that_of_a_block_bootstrap(
    pairs: tuple[MinimalPair, ...],
) -> None:
    """The pairs of a block are correlated."""
    rng = np.random.default_rng(1)
    block_P = assign_blocks(len(pairs)).numpy()
    level_P = rng.normal(size=score_blocks.BLOCKS)[block_P]
    good_P = np.round(level_P + rng.normal(size=len(pairs)), 1)  # some ties
    scores_N = torch.from_numpy(np.concatenate([good_P, np.zeros(len(pairs))]))
    blocks = accuracy_blocks(scores_N, pairs)
    assert blocks.keys() == accuracies(scores_N, pairs).keys()

    def statistics(rows: Ints) -> list[float]:
        drawn_N = torch.cat([scores_N[: len(pairs)][rows], torch.zeros(len(rows))])
        row = accuracies(drawn_N, [pairs[row] for row in rows])
        return [row[name] for name in blocks]

    found = [deviation(values) for values in blocks.values()]
    assert found == pytest.approx(bootstrap(block_P, statistics), rel=0.1)
    for values in blocks.values():
        assert len(values) == score_blocks.BLOCKS
        assert sum(values) == pytest.approx(0.0, abs=1e-3)


def test_score_that_is_nan_has_no_contributions_in_its_category_and_the_mean() -> None:
    pairs = [MinimalPair("x", "y", category) for category in "aabb"]
    scores_N = torch.tensor([1.0, 0.0, math.nan, 1.0, 0.0, 1.0, 0.0, 0.0])
    blocks = accuracy_blocks(scores_N, pairs)
    assert blocks["pairs/a/accuracy"] == [0.25, -0.25, 0.0, 0.0]
    assert blocks["pairs/b/accuracy"] == blocks["pairs/accuracy"] == []


def test_blocks_of_pairs_leave_the_scores_unchanged(prepared_text: PreparedText) -> None:
    built, blocks = scored(ElectraConfig(kind="electra")), ScoreBlocks()
    vocabulary, some = prepared_text.corpus.vocabulary, embedded_pairs()[::60]
    row = score_pairs(built, vocabulary, some, blocks)
    assert row == score_pairs(built, vocabulary, some)
    assert blocks.keys() == row.keys()
