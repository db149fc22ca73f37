"""Masking and sampling: what the generator sees, and what it writes (traps 3 and 6)."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lab.data import CLS, FIRST_WORD, MASK, PAD, SEP, UNK, Batch
from lab.flops import masked_slots
from lab.objectives.masking import mask, sample

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
    masked = mask(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    changed_BT = masked.ids_BT != batch.ids_BT
    assert (masked.ids_BT[changed_BT] == MASK).all()
    assert candidates(batch)[changed_BT].all()
    assert candidates(batch).gather(1, masked.slots_BK)[masked.used_BK].all()


@properties
@settings(deadline=None)
def test_number_of_slots_is_the_rounded_share_of_the_candidates(
    batch: Batch, mask_prob: float, how: How, step: int
) -> None:
    masked = mask(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
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
    masked = mask(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
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
    whole = mask(batch, mask_prob=mask_prob, how=how, seed=1, step=step)
    for rank in range(2):
        rows = torch.arange(rank, len(batch.ids_BT), 2).flip(0)
        part = Batch(batch.ids_BT[rows], batch.example_B[rows])
        alone = mask(part, mask_prob=mask_prob, how=how, seed=1, step=step)
        for of_whole, of_part in zip(whole, alone, strict=True):
            assert of_part.equal(of_whole[rows])


@given(batch=batches(), mask_prob=st.floats(0.01, 0.99))
@settings(deadline=None)
def test_paper_slots_are_distinct_and_always_masked(batch: Batch, mask_prob: float) -> None:
    masked = mask(batch, mask_prob=mask_prob, how="paper", seed=1, step=0)
    assert (masked.ids_BT == MASK).sum(1).equal(masked.used_BK.sum(1))


def test_code_draws_with_replacement_and_keeps_fifteen_in_a_hundred() -> None:
    batch = thousands()
    masked = mask(batch, mask_prob=0.15, how="code", seed=1, step=0)
    assert masked.used_BK.all()
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter(1, masked.slots_BK, 1).bool()
    expected = 126 * (1 - (1 - 1 / 126) ** 19)
    assert expected == pytest.approx(17.7, abs=0.05)
    assert chosen_BT.sum(1).double().mean() == pytest.approx(expected, abs=0.08)
    became_mask = (masked.ids_BT == MASK)[chosen_BT].double().mean()
    assert became_mask == pytest.approx(0.85, abs=0.007)


@hows
def test_every_candidate_is_chosen_as_often(how: How) -> None:
    masked = mask(thousands(), mask_prob=0.15, how=how, seed=1, step=0)
    counts = np.bincount(masked.slots_BK.flatten().numpy(), minlength=128)[1:-1]
    assert stats.chisquare(counts).pvalue > 1e-4


@hows
def test_unknown_words_are_candidates(how: How) -> None:
    batch = Batch(torch.tensor([[CLS, *[UNK] * 6, SEP]]), torch.tensor([0]))
    masked = mask(batch, mask_prob=0.5, how=how, seed=1, step=0)
    assert (masked.labels_BK[masked.used_BK] == UNK).all()
    assert masked.used_BK.sum() == 3


@hows
def test_masks_change_with_seed_step_and_example(how: How) -> None:
    batch = thousands(32, 8)
    other = Batch(batch.ids_BT, batch.example_B + 1_000)
    first = mask(batch, mask_prob=0.15, how=how, seed=1, step=0).slots_BK
    assert mask(batch, mask_prob=0.15, how=how, seed=1, step=0).slots_BK.equal(first)
    assert not mask(batch, mask_prob=0.15, how=how, seed=2, step=0).slots_BK.equal(first)
    assert not mask(batch, mask_prob=0.15, how=how, seed=1, step=1).slots_BK.equal(first)
    assert not mask(other, mask_prob=0.15, how=how, seed=1, step=0).slots_BK.equal(first)


def draws(logits_V: Tensor, n: int, *, seed: int = 1) -> Tensor:
    """Return n tokens drawn from the same logits at n windows' position 1."""
    batch = Batch(torch.zeros(n, 4, dtype=torch.int64), torch.arange(n))
    slots_B1 = torch.ones(n, 1, dtype=torch.int64)
    return sample(logits_V.expand(n, 1, -1), slots_B1, batch, seed=seed, step=0)[:, 0]


def test_samples_follow_the_softmax_at_temperature_one() -> None:
    logits_V = torch.randn(24, generator=torch.Generator().manual_seed(0)) * 1.5
    counts = torch.bincount(draws(logits_V, 40_000), minlength=24).numpy()
    law = logits_V.double().softmax(0).numpy()
    assert stats.chisquare(counts, law * counts.sum()).pvalue > 1e-4
    assert counts[logits_V.argmax()] < 0.9 * counts.sum()


def test_samples_of_neighbouring_slots_are_independent() -> None:
    n = 20_000
    batch = Batch(torch.zeros(n, 4, dtype=torch.int64), torch.arange(n))
    slots_BK = torch.tensor([1, 2]).expand(n, -1)
    drawn_BK = sample(torch.zeros(n, 2, 4), slots_BK, batch, seed=1, step=0).numpy()
    table = np.zeros((4, 4))
    np.add.at(table, (drawn_BK[:, 0], drawn_BK[:, 1]), 1)
    assert stats.chisquare(table.flatten()).pvalue > 1e-4


# Gumbel noise made of bf16 uniforms ends at 5.54 and starts at -4.4: nothing 11 below the best
# token would ever be drawn. Here everything but the best is, and holds 3.3 % of the law.
def test_tail_of_bf16_logits_is_sampled() -> None:
    V, n = 2_048, 4_096
    logits_V = torch.zeros(V, dtype=torch.bfloat16)
    logits_V[0] = 11
    drawn_N = torch.cat([draws(logits_V, n // 2, seed=seed) for seed in (1, 2)])
    tail_N = drawn_N[drawn_N > 0]
    share = 1 - logits_V.double().softmax(0)[0].item()
    assert len(tail_N) / n == pytest.approx(share, abs=5 * (share / n) ** 0.5)
    assert len(tail_N.unique()) > 0.9 * len(tail_N)
    assert stats.kstest(tail_N.numpy() / V, "uniform").pvalue > 1e-4


def test_bf16_logits_are_sampled_as_the_same_numbers_in_fp32() -> None:
    logits_V = torch.randn(500, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert draws(logits_V, 2_000).equal(draws(logits_V.float(), 2_000))


def test_impossible_tokens_are_never_sampled() -> None:
    logits_V = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    assert set(draws(logits_V, 5_000).tolist()) == {1, 3}


def test_sampling_has_no_gradient() -> None:
    logits_BKV = torch.zeros(2, 3, 5, requires_grad=True)
    batch = Batch(torch.zeros(2, 8, dtype=torch.int64), torch.arange(2))
    drawn_BK = sample(logits_BKV, torch.arange(3).expand(2, -1), batch, seed=1, step=0)
    assert drawn_BK.dtype == torch.int64
    assert not drawn_BK.requires_grad


def test_samples_are_a_function_of_seed_step_and_example() -> None:
    chance = torch.Generator().manual_seed(0)
    batch = thousands(16, 12)
    slots_BK = torch.arange(1, 5).expand(12, -1)
    logits_BKV = torch.randn(12, 4, 50, generator=chance)
    first = sample(logits_BKV, slots_BK, batch, seed=1, step=0)
    torch.rand(7)
    assert sample(logits_BKV, slots_BK, batch, seed=1, step=0).equal(first)
    assert not sample(logits_BKV, slots_BK, batch, seed=2, step=0).equal(first)
    assert not sample(logits_BKV, slots_BK, batch, seed=1, step=1).equal(first)
    rows = torch.tensor([5, 0, 11])
    part = Batch(batch.ids_BT[rows], batch.example_B[rows])
    assert sample(logits_BKV[rows], slots_BK[rows], part, seed=1, step=0).equal(first[rows])


def test_slot_drawn_twice_gets_one_token() -> None:
    batch = thousands(16, 200)
    slots_BK = torch.tensor([3, 3]).expand(200, -1)
    drawn_BK = sample(torch.zeros(200, 2, 50), slots_BK, batch, seed=1, step=0)
    assert drawn_BK[:, 0].equal(drawn_BK[:, 1])
    assert len(drawn_BK.unique()) > 20
