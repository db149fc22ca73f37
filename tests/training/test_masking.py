"""Masking: what the generator sees, and what is written over the text (trap 3)."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lab.config.flops import masked_slots
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP, UNK
from lab.training.objectives.masking import (
    apply_bert_corruption,
    chosen_positions,
    mask_batch,
    write_tokens,
)

How = Literal["paper", "code"]
HOWS: tuple[How, ...] = ("paper", "code")
hows = pytest.mark.parametrize("how", HOWS)


def batch_of(words_B: list[int], length: int, vocab: int = 50) -> Batch:
    """Return windows with so many words each, about one in ten [UNK]."""
    draw = np.random.default_rng(len(words_B))
    ids_BT = np.full((len(words_B), length), PAD)
    for row, n in zip(ids_BT, words_B, strict=True):
        words = draw.integers(FIRST_WORD, vocab, n)
        row[: n + 2] = [CLS, *np.where(draw.random(n) < 0.1, UNK, words), SEP]
    return Batch(torch.from_numpy(ids_BT), torch.arange(len(words_B)) * 7 + 3)


def candidates(batch: Batch) -> Tensor:
    return ~torch.isin(batch.ids_BT, torch.tensor([CLS, SEP, MASK, PAD]))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    length = draw(st.integers(8, 48))
    return batch_of(draw(st.lists(st.integers(0, length - 2), min_size=1, max_size=6)), length)


def thousands(length: int = 128, windows: int = 4_096) -> Batch:
    return batch_of([length - 2] * windows, length)


properties = given(
    batch=batches(),
    mask_prob=st.floats(0.01, 0.99),
    how=st.sampled_from(HOWS),
    step=st.integers(0, 10**6),
)


@properties
@settings(deadline=None)
def test_only_candidates_are_masked(batch: Batch, mask_prob: float, how: How, step: int) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    changed_BT = masked.ids_BT != batch.ids_BT
    assert (masked.ids_BT[changed_BT] == MASK).all()
    assert candidates(batch)[changed_BT].all()
    assert candidates(batch).gather(1, masked.slots_BK)[masked.used_BK].all()


@properties
@settings(deadline=None)
def test_number_of_slots_is_the_rounded_share_of_the_candidates(
    batch: Batch, mask_prob: float, how: How, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    K = masked_slots(batch.ids_BT.shape[1], mask_prob)
    n_B = candidates(batch).sum(1).numpy()
    # In single precision, as officially: round(.15 x 30) must fall on the same side of the half.
    rounded_B = np.round(n_B.astype(np.float32) * np.float32(mask_prob))
    expected_B = np.minimum(np.clip(rounded_B, 1, K), n_B)
    assert masked.slots_BK.shape == (len(n_B), K)
    assert masked.used_BK.sum(1).tolist() == expected_B.tolist()


@properties
@settings(deadline=None)
def test_labels_are_the_original_tokens_and_the_rest_of_the_text_stays(
    batch: Batch, mask_prob: float, how: How, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    assert masked.labels_BK.equal(batch.ids_BT.gather(1, masked.slots_BK))
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter_add(
        1, masked.slots_BK, masked.used_BK.long()
    )
    untouched_BT = chosen_BT == 0
    assert masked.ids_BT[untouched_BT].equal(batch.ids_BT[untouched_BT])
    assert (masked.slots_BK[~masked.used_BK] == 0).all()  # [CLS], which no slot may change
    assert (masked.ids_BT[:, 0] == CLS).all()


@properties
@settings(deadline=None)
def test_masks_do_not_depend_on_the_rest_of_the_batch(
    batch: Batch, mask_prob: float, how: How, step: int
) -> None:
    whole = mask_batch(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    for rank in range(2):
        rows = torch.arange(rank, len(batch.ids_BT), 2).flip(0)
        part = Batch(batch.ids_BT[rows], batch.example_B[rows])
        alone = mask_batch(part, mask_prob=mask_prob, how=how, seed=1, step=step)
        for of_whole, of_part in zip(whole, alone, strict=True):
            assert of_part.equal(of_whole[rows])


@given(batch=batches(), mask_prob=st.floats(0.01, 0.99))
@settings(deadline=None)
def test_paper_slots_are_distinct_and_always_masked(batch: Batch, mask_prob: float) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how="paper", seed=1, step=0)
    assert (masked.ids_BT == MASK).sum(1).equal(masked.used_BK.sum(1))


def test_code_draws_with_replacement_and_keeps_fifteen_in_a_hundred() -> None:
    batch = thousands()
    masked = mask_batch(batch, mask_prob=0.15, how="code", seed=1, step=0)
    assert masked.used_BK.all()
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter(1, masked.slots_BK, 1).bool()
    expected = 126 * (1 - (1 - 1 / 126) ** 19)
    assert expected == pytest.approx(17.7, abs=0.05)
    assert chosen_BT.sum(1).double().mean() == pytest.approx(expected, abs=0.08)
    became_mask = (masked.ids_BT == MASK)[chosen_BT].double().mean()
    assert became_mask == pytest.approx(0.85, abs=0.007)


@hows
def test_every_candidate_is_chosen_as_often(how: How) -> None:
    masked = mask_batch(thousands(), mask_prob=0.15, how=how, seed=1, step=0)
    counts = np.bincount(masked.slots_BK.flatten().numpy(), minlength=128)[1:-1]
    assert stats.chisquare(counts).pvalue > 1e-4


@hows
def test_unknown_words_are_candidates(how: How) -> None:
    batch = Batch(torch.tensor([[CLS, *[UNK] * 6, SEP]]), torch.tensor([0]))
    masked = mask_batch(batch, mask_prob=0.5, how=how, seed=1, step=0)
    assert (masked.labels_BK[masked.used_BK] == UNK).all()
    assert masked.used_BK.sum() == 3


@hows
def test_masks_change_with_seed_step_and_example(how: How) -> None:
    batch = thousands(32, 8)
    other = Batch(batch.ids_BT, batch.example_B + 1_000)
    first = mask_batch(batch, mask_prob=0.15, how=how, seed=1, step=0).slots_BK
    assert mask_batch(batch, mask_prob=0.15, how=how, seed=1, step=0).slots_BK.equal(first)
    assert not mask_batch(batch, mask_prob=0.15, how=how, seed=2, step=0).slots_BK.equal(first)
    assert not mask_batch(batch, mask_prob=0.15, how=how, seed=1, step=1).slots_BK.equal(first)
    assert not mask_batch(other, mask_prob=0.15, how=how, seed=1, step=0).slots_BK.equal(first)


@properties
@settings(deadline=None)
def test_chosen_positions_are_those_of_the_used_slots(
    batch: Batch, mask_prob: float, how: How, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    places = zip(masked.slots_BK.tolist(), masked.used_BK.tolist(), strict=True)
    expected = [{p for p, used in zip(*row, strict=True) if used} for row in places]
    assert [set(row.nonzero().flatten().tolist()) for row in chosen_positions(masked)] == expected


@properties
@settings(deadline=None)
def test_tokens_are_written_over_the_original_at_the_used_slots_alone(
    batch: Batch, mask_prob: float, how: How, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    before_BT = batch.ids_BT.clone()
    tokens_BK = 1_000 + masked.slots_BK  # a token a position, as samples are
    written_BT = write_tokens(batch, masked, tokens_BK)
    here_BT = chosen_positions(masked)
    places_BT = torch.arange(batch.ids_BT.shape[1]).expand_as(here_BT)
    assert written_BT[here_BT].equal(1_000 + places_BT[here_BT])
    assert written_BT[~here_BT].equal(batch.ids_BT[~here_BT])
    assert batch.ids_BT.equal(before_BT)


@given(
    batch=batches(),
    mask_prob=st.floats(0.01, 0.99),
    vocab=st.sampled_from([FIRST_WORD + 1, 50, 1_000]),
    step=st.integers(0, 10**6),
)
@settings(deadline=None)
def test_bert_shows_masks_originals_and_words_at_the_slots_and_the_text_elsewhere(
    batch: Batch, mask_prob: float, vocab: int, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, how="paper", seed=1, step=step)
    bert = apply_bert_corruption(masked, batch, vocab=vocab, seed=1, step=step)
    here_BT = chosen_positions(masked)
    assert bert.ids_BT[~here_BT].equal(batch.ids_BT[~here_BT])
    shown_N, original_N = bert.ids_BT[here_BT], batch.ids_BT[here_BT]
    word_N = shown_N[(shown_N != MASK) & (shown_N != original_N)]
    assert ((word_N >= FIRST_WORD) & (word_N < vocab)).all()
    assert bert.labels_BK.equal(batch.ids_BT.gather(1, bert.slots_BK))
    assert bert.slots_BK.equal(masked.slots_BK)
    assert bert.used_BK.equal(masked.used_BK)


# In a text of [UNK] alone no random word can look like the original.
def test_bert_masks_eight_tenths_replaces_one_and_keeps_one() -> None:
    vocab = 50
    batch = thousands()
    batch = Batch(torch.where(candidates(batch), UNK, batch.ids_BT), batch.example_B)
    masked = mask_batch(batch, mask_prob=0.15, how="paper", seed=1, step=0)
    shown_N = apply_bert_corruption(masked, batch, vocab=vocab, seed=1, step=0).ids_BT[
        chosen_positions(masked)
    ]
    n = len(shown_N)
    fates = [(shown_N == MASK).sum(), (shown_N >= FIRST_WORD).sum(), (shown_N == UNK).sum()]
    assert sum(fates) == n
    assert stats.chisquare(fates, [0.8 * n, 0.1 * n, 0.1 * n]).pvalue > 1e-4
    words = np.bincount(shown_N[shown_N >= FIRST_WORD].numpy(), minlength=vocab)[FIRST_WORD:]
    assert len(words) == vocab - FIRST_WORD
    assert stats.chisquare(words).pvalue > 1e-4


def test_bert_draws_anew_with_seed_step_and_example() -> None:
    batch = thousands(32, 40)
    masked = mask_batch(batch, mask_prob=0.5, how="paper", seed=1, step=0)

    def shown(batch: Batch = batch, seed: int = 1, step: int = 0) -> Tensor:
        return apply_bert_corruption(masked, batch, vocab=50, seed=seed, step=step).ids_BT

    assert shown().equal(shown())
    assert not shown(seed=2).equal(shown())
    assert not shown(step=1).equal(shown())
    assert not shown(Batch(batch.ids_BT, batch.example_B + 1_000)).equal(shown())
