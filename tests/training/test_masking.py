"""Masking: selected slots, the generator's input, and the text with tokens written into it."""

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

Masking = Literal["paper", "code"]
MASKINGS: tuple[Masking, ...] = ("paper", "code")
each_masking = pytest.mark.parametrize("masking", MASKINGS)


def batch_of(words_B: list[int], length: int, vocab: int = 50) -> Batch:
    """Return windows with the given numbers of words, of which about one in ten is [UNK]."""
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
    masking=st.sampled_from(MASKINGS),
    step=st.integers(0, 10**6),
)


@properties
@settings(deadline=None)
def test_only_candidates_are_masked(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    changed_BT = masked.ids_BT != batch.ids_BT
    assert (masked.ids_BT[changed_BT] == MASK).all()
    assert candidates(batch)[changed_BT].all()
    assert candidates(batch).gather(1, masked.slots_BK)[masked.used_BK].all()


@properties
@settings(deadline=None)
def test_number_of_slots_is_the_rounded_share_of_the_candidates(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    K = masked_slots(batch.ids_BT.shape[1], mask_prob)
    n_B = candidates(batch).sum(1).numpy()
    # Single precision, as in the official code: products near a half, such as 0.15 x 30, must be
    # rounded to the same side.
    rounded_B = np.round(n_B.astype(np.float32) * np.float32(mask_prob))
    expected_B = np.minimum(np.clip(rounded_B, 1, K), n_B)
    assert masked.slots_BK.shape == (len(n_B), K)
    assert masked.used_BK.sum(1).tolist() == expected_B.tolist()


@properties
@settings(deadline=None)
def test_labels_are_the_original_tokens_and_other_positions_do_not_change(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    assert masked.labels_BK.equal(batch.ids_BT.gather(1, masked.slots_BK))
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter_add(
        1, masked.slots_BK, masked.used_BK.long()
    )
    untouched_BT = chosen_BT == 0
    assert masked.ids_BT[untouched_BT].equal(batch.ids_BT[untouched_BT])
    assert (masked.slots_BK[~masked.used_BK] == 0).all()  # [CLS] is not a candidate
    assert (masked.ids_BT[:, 0] == CLS).all()


@properties
@settings(deadline=None)
def test_masks_do_not_depend_on_the_rest_of_the_batch(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    whole = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    for rank in range(2):
        rows = torch.arange(rank, len(batch.ids_BT), 2).flip(0)
        part = Batch(batch.ids_BT[rows], batch.example_B[rows])
        alone = mask_batch(part, mask_prob=mask_prob, masking=masking, seed=1, step=step)
        for of_whole, of_part in zip(whole, alone, strict=True):
            assert of_part.equal(of_whole[rows])


@given(batch=batches(), mask_prob=st.floats(0.01, 0.99))
@settings(deadline=None)
def test_paper_masking_selects_distinct_slots_and_masks_all(batch: Batch, mask_prob: float) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking="paper", seed=1, step=0)
    assert (masked.ids_BT == MASK).sum(1).equal(masked.used_BK.sum(1))


def test_code_masking_draws_with_replacement_and_leaves_fifteen_percent_unmasked() -> None:
    batch = thousands()
    masked = mask_batch(batch, mask_prob=0.15, masking="code", seed=1, step=0)
    assert masked.used_BK.all()
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter(1, masked.slots_BK, 1).bool()
    expected = 126 * (1 - (1 - 1 / 126) ** 19)
    assert expected == pytest.approx(17.7, abs=0.05)
    assert chosen_BT.sum(1).double().mean() == pytest.approx(expected, abs=0.08)
    became_mask = (masked.ids_BT == MASK)[chosen_BT].double().mean()
    assert became_mask == pytest.approx(0.85, abs=0.007)


@each_masking
def test_all_candidates_are_chosen_equally_often(masking: Masking) -> None:
    masked = mask_batch(thousands(), mask_prob=0.15, masking=masking, seed=1, step=0)
    counts = np.bincount(masked.slots_BK.flatten().numpy(), minlength=128)[1:-1]
    assert stats.chisquare(counts).pvalue > 1e-4


@each_masking
def test_unknown_words_are_candidates(masking: Masking) -> None:
    batch = Batch(torch.tensor([[CLS, *[UNK] * 6, SEP]]), torch.tensor([0]))
    masked = mask_batch(batch, mask_prob=0.5, masking=masking, seed=1, step=0)
    assert (masked.labels_BK[masked.used_BK] == UNK).all()
    assert masked.used_BK.sum() == 3


@each_masking
def test_masks_change_with_seed_step_and_example(masking: Masking) -> None:
    batch = thousands(32, 8)
    other = Batch(batch.ids_BT, batch.example_B + 1_000)
    first = mask_batch(batch, mask_prob=0.15, masking=masking, seed=1, step=0).slots_BK
    assert mask_batch(batch, mask_prob=0.15, masking=masking, seed=1, step=0).slots_BK.equal(first)
    assert not mask_batch(batch, mask_prob=0.15, masking=masking, seed=2, step=0).slots_BK.equal(
        first
    )
    assert not mask_batch(batch, mask_prob=0.15, masking=masking, seed=1, step=1).slots_BK.equal(
        first
    )
    assert not mask_batch(other, mask_prob=0.15, masking=masking, seed=1, step=0).slots_BK.equal(
        first
    )


@properties
@settings(deadline=None)
def test_chosen_positions_are_the_positions_of_used_slots(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    slots = zip(masked.slots_BK.tolist(), masked.used_BK.tolist(), strict=True)
    expected = [{p for p, used in zip(*row, strict=True) if used} for row in slots]
    assert [set(row.nonzero().flatten().tolist()) for row in chosen_positions(masked)] == expected


@properties
@settings(deadline=None)
def test_tokens_are_written_into_the_original_text_at_used_slots_only(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    before_BT = batch.ids_BT.clone()
    tokens_BK = 1_000 + masked.slots_BK  # one token per position, as with samples
    written_BT = write_tokens(batch, masked, tokens_BK)
    chosen_BT = chosen_positions(masked)
    positions_BT = torch.arange(batch.ids_BT.shape[1]).expand_as(chosen_BT)
    assert written_BT[chosen_BT].equal(1_000 + positions_BT[chosen_BT])
    assert written_BT[~chosen_BT].equal(batch.ids_BT[~chosen_BT])
    assert batch.ids_BT.equal(before_BT)


@given(
    batch=batches(),
    mask_prob=st.floats(0.01, 0.99),
    vocab=st.sampled_from([FIRST_WORD + 1, 50, 1_000]),
    step=st.integers(0, 10**6),
)
@settings(deadline=None)
def test_bert_input_has_masks_originals_or_words_at_the_slots_and_the_text_elsewhere(
    batch: Batch, mask_prob: float, vocab: int, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking="paper", seed=1, step=step)
    bert = apply_bert_corruption(masked, batch, vocab=vocab, seed=1, step=step)
    chosen_BT = chosen_positions(masked)
    assert bert.ids_BT[~chosen_BT].equal(batch.ids_BT[~chosen_BT])
    shown_N, original_N = bert.ids_BT[chosen_BT], batch.ids_BT[chosen_BT]
    word_N = shown_N[(shown_N != MASK) & (shown_N != original_N)]
    assert ((word_N >= FIRST_WORD) & (word_N < vocab)).all()
    assert bert.labels_BK.equal(batch.ids_BT.gather(1, bert.slots_BK))
    assert bert.slots_BK.equal(masked.slots_BK)
    assert bert.used_BK.equal(masked.used_BK)


# The text consists of [UNK] only, so that no random word equals the original.
def test_bert_masks_80_percent_replaces_10_percent_and_keeps_10_percent() -> None:
    vocab = 50
    batch = thousands()
    batch = Batch(torch.where(candidates(batch), UNK, batch.ids_BT), batch.example_B)
    masked = mask_batch(batch, mask_prob=0.15, masking="paper", seed=1, step=0)
    shown_N = apply_bert_corruption(masked, batch, vocab=vocab, seed=1, step=0).ids_BT[
        chosen_positions(masked)
    ]
    n = len(shown_N)
    counts = [(shown_N == MASK).sum(), (shown_N >= FIRST_WORD).sum(), (shown_N == UNK).sum()]
    assert sum(counts) == n
    assert stats.chisquare(counts, [0.8 * n, 0.1 * n, 0.1 * n]).pvalue > 1e-4
    words = np.bincount(shown_N[shown_N >= FIRST_WORD].numpy(), minlength=vocab)[FIRST_WORD:]
    assert len(words) == vocab - FIRST_WORD
    assert stats.chisquare(words).pvalue > 1e-4


def test_bert_input_changes_with_seed_step_and_example() -> None:
    batch = thousands(32, 40)
    masked = mask_batch(batch, mask_prob=0.5, masking="paper", seed=1, step=0)

    def shown(batch: Batch = batch, seed: int = 1, step: int = 0) -> Tensor:
        return apply_bert_corruption(masked, batch, vocab=50, seed=seed, step=step).ids_BT

    assert shown().equal(shown())
    assert not shown(seed=2).equal(shown())
    assert not shown(step=1).equal(shown())
    assert not shown(Batch(batch.ids_BT, batch.example_B + 1_000)).equal(shown())
