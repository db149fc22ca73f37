"""Sampling: what is written over the text, and by which law (traps 3 and 6)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lab.config.objectives.generators import SamplingConfig
from lab.data.batches import Batch
from lab.data.vocabulary import FIRST_WORD
from lab.training.objectives.sampling import (
    cumulative_distribution,
    sample_from_cumulative,
    sample_tokens,
    sampling_logits_BKV,
)

settings = hypothesis_settings(deadline=None)


def windows(count: int, length: int = 16) -> Batch:
    """Return windows whose text is of no account: chance belongs to example and position."""
    return Batch(torch.zeros(count, length, dtype=torch.int64), torch.arange(count) * 7 + 3)


def some_logits(*shape: int) -> Tensor:
    return 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def draws(logits_V: Tensor, n: int, *, seed: int = 1) -> Tensor:
    """Return n tokens drawn from the same logits at n windows' position 1."""
    batch = windows(n)
    slots_B1 = torch.ones(n, 1, dtype=torch.int64)
    return sample_tokens(logits_V.expand(n, 1, -1), slots_B1, batch, seed=seed, step=0)[:, 0]


def test_samples_follow_the_softmax_at_temperature_one() -> None:
    logits_V = some_logits(24)
    counts = torch.bincount(draws(logits_V, 40_000), minlength=24).numpy()
    law = logits_V.double().softmax(0).numpy()
    assert stats.chisquare(counts, law * counts.sum()).pvalue > 1e-4
    assert counts[logits_V.argmax()] < 0.9 * counts.sum()


def test_samples_of_neighbouring_slots_are_independent() -> None:
    n = 20_000
    batch = windows(n)
    slots_BK = torch.tensor([1, 2]).expand(n, -1)
    drawn_BK = sample_tokens(torch.zeros(n, 2, 4), slots_BK, batch, seed=1, step=0).numpy()
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
    logits_V = some_logits(500).bfloat16()
    assert draws(logits_V, 2_000).equal(draws(logits_V.float(), 2_000))


def test_impossible_tokens_are_never_sampled() -> None:
    logits_V = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    assert set(draws(logits_V, 5_000).tolist()) == {1, 3}


@pytest.mark.parametrize("vocab", [64, 65, 128, 150])
def test_tokens_at_both_ends_of_a_chunk_are_sampled_and_impossible_ones_between_never(
    vocab: int,
) -> None:
    possible = [place for place in (0, 63, 64, 127, 128, vocab - 1) if place < vocab]
    logits_V = torch.full((vocab,), -torch.inf)
    logits_V[possible] = 0.0
    drawn = draws(logits_V, 5_000)
    assert set(drawn.tolist()) == set(possible)
    counts = torch.bincount(drawn, minlength=vocab)[sorted(set(possible))].numpy()
    assert stats.chisquare(counts).pvalue > 1e-4


# A diverged generator says NaN; the run ends by its loss, not in a table that is too short.
@pytest.mark.parametrize("vocab", [24, 64, 128, 150])
def test_logits_that_are_no_numbers_give_tokens_of_the_vocabulary(vocab: int) -> None:
    drawn = draws(torch.full((vocab,), torch.nan), 50)
    assert ((drawn >= 0) & (drawn < vocab)).all()


def test_sampling_has_no_gradient() -> None:
    logits_BKV = torch.zeros(2, 3, 5, requires_grad=True)
    drawn_BK = sample_tokens(logits_BKV, torch.arange(3).expand(2, -1), windows(2), seed=1, step=0)
    assert drawn_BK.dtype == torch.int64
    assert not drawn_BK.requires_grad


def test_samples_are_a_function_of_seed_step_and_example() -> None:
    batch = windows(12)
    slots_BK = torch.arange(1, 5).expand(12, -1)
    logits_BKV = some_logits(12, 4, 50)
    first = sample_tokens(logits_BKV, slots_BK, batch, seed=1, step=0)
    torch.rand(7)
    assert sample_tokens(logits_BKV, slots_BK, batch, seed=1, step=0).equal(first)
    assert not sample_tokens(logits_BKV, slots_BK, batch, seed=2, step=0).equal(first)
    assert not sample_tokens(logits_BKV, slots_BK, batch, seed=1, step=1).equal(first)
    rows = torch.tensor([5, 0, 11])
    part = Batch(batch.ids_BT[rows], batch.example_B[rows])
    assert sample_tokens(logits_BKV[rows], slots_BK[rows], part, seed=1, step=0).equal(first[rows])


def test_slot_drawn_twice_gets_one_token() -> None:
    batch = windows(200)
    slots_BK = torch.tensor([3, 3]).expand(200, -1)
    drawn_BK = sample_tokens(torch.zeros(200, 2, 50), slots_BK, batch, seed=1, step=0)
    assert drawn_BK[:, 0].equal(drawn_BK[:, 1])
    assert len(drawn_BK.unique()) > 20


# The law that samples are drawn from: what the softmax of `law` says, in double precision.
def laid(logits_BKV: Tensor, labels_BK: Tensor, sampling: SamplingConfig) -> Tensor:
    return sampling_logits_BKV(
        logits_BKV,
        labels_BK,
        temperature=sampling.temperature,
        disallow_correct=sampling.disallow_correct,
    )


def law_of(logits_V: Tensor, original: int, sampling: SamplingConfig) -> Tensor:
    found_BKV = laid(logits_V.expand(1, 1, -1), torch.tensor([[original]]), sampling)
    return found_BKV[0, 0].double().softmax(-1)


def test_plain_law_is_the_generators_own() -> None:
    logits_BKV, labels_BK = some_logits(2, 3, 24), torch.zeros(2, 3, dtype=torch.int64)
    assert laid(logits_BKV, labels_BK, SamplingConfig()).equal(logits_BKV)


@given(temperature=st.floats(0.2, 8.0))
@settings
def test_temperature_takes_the_root_of_the_probabilities(temperature: float) -> None:
    logits_V = some_logits(24)
    expected_V = logits_V.double().softmax(-1) ** (1 / temperature)
    found_V = law_of(logits_V, 0, SamplingConfig(temperature=temperature))
    torch.testing.assert_close(found_V, expected_V / expected_V.sum(), rtol=1e-4, atol=1e-9)


@given(original=st.integers(0, 23), temperature=st.sampled_from([0.5, 1.0, 2.0]))
@settings
def test_original_that_is_disallowed_leaves_its_share_to_the_others_in_proportion(
    original: int, temperature: float
) -> None:
    logits_V = some_logits(24)
    free_V = law_of(logits_V, original, SamplingConfig(temperature=temperature))
    found_V = law_of(
        logits_V, original, SamplingConfig(temperature=temperature, disallow_correct=True)
    )
    expected_V = free_V.index_fill(0, torch.tensor([original]), 0.0)
    assert found_V[original] == 0
    torch.testing.assert_close(found_V, expected_V / expected_V.sum())


def test_samples_follow_the_law_that_is_asked_for() -> None:
    logits_V, sampling = some_logits(24), SamplingConfig(temperature=2.0, disallow_correct=True)
    original = int(logits_V.argmax())
    asked_BKV = laid(logits_V.expand(1, 1, -1), torch.tensor([[original]]), sampling)
    counts = torch.bincount(draws(asked_BKV[0, 0], 40_000), minlength=24).numpy()
    assert counts[original] == 0
    expected_V = (logits_V.double() / 2).exp().index_fill(0, torch.tensor([original]), 0.0)
    expected = (counts.sum() * expected_V / expected_V.sum()).numpy()
    others = np.arange(24) != original
    assert stats.chisquare(counts[others], expected[others]).pvalue > 1e-4


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(), SamplingConfig(temperature=2.0, disallow_correct=True)]
)
def test_law_is_single_precision_and_passes_gradients(sampling: SamplingConfig) -> None:
    logits_BKV = some_logits(2, 3, 24).bfloat16().requires_grad_()
    labels_BK = torch.zeros(2, 3, dtype=torch.int64)
    found_BKV = laid(logits_BKV, labels_BK, sampling)
    assert found_BKV.dtype == torch.float32
    found_BKV.softmax(-1)[..., 5].sum().backward()
    assert logits_BKV.grad is not None
    assert (logits_BKV.grad != 0).any()


COUNTS_V = torch.tensor([900, 900, 900, 900, 900, 40, 0, 700, 3, 0, 60, 160, 20, 0])


def words(law: str, n: int = 40_000, counts_V: Tensor = COUNTS_V) -> Tensor:
    slots_BK = torch.tensor([1, 2]).expand(n // 2, -1)
    return sample_from_cumulative(
        cumulative_distribution(law, counts_V), slots_BK, windows(n // 2), seed=1, step=0
    )


def test_unigram_words_come_by_their_frequency() -> None:
    found = np.bincount(words("unigram").flatten().numpy(), minlength=len(COUNTS_V))
    possible = np.flatnonzero(COUNTS_V.numpy())
    possible = possible[possible >= FIRST_WORD]
    assert found[possible].sum() == found.sum()
    share = COUNTS_V.numpy()[possible] / COUNTS_V.numpy()[possible].sum()
    assert stats.chisquare(found[possible], share * found.sum()).pvalue > 1e-4


def test_uniform_words_come_alike_and_special_tokens_never() -> None:
    found = np.bincount(words("uniform").flatten().numpy(), minlength=len(COUNTS_V))
    assert len(found) == len(COUNTS_V)
    assert (found[:FIRST_WORD] == 0).all()
    assert stats.chisquare(found[FIRST_WORD:]).pvalue > 1e-4


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any),
    law=st.sampled_from(["unigram", "uniform"]),
)
@settings
def test_words_that_never_occur_and_special_tokens_are_never_drawn(
    counts: list[int], law: str
) -> None:
    counts_V = torch.tensor([10**9] * FIRST_WORD + counts)
    drawn_BK = words(law, 200, counts_V)
    assert ((drawn_BK >= FIRST_WORD) & (drawn_BK < len(counts_V))).all()
    assert law == "uniform" or (counts_V[drawn_BK] > 0).all()


def test_counts_are_not_changed() -> None:
    counts_V = torch.arange(1, 20)
    cumulative_distribution("unigram", counts_V)
    assert counts_V.equal(torch.arange(1, 20))


def test_words_are_a_function_of_seed_step_example_and_position() -> None:
    cumulated_V = cumulative_distribution("unigram", COUNTS_V)
    batch, slots_BK = windows(50), torch.tensor([3, 3, 4]).expand(50, -1)
    first = sample_from_cumulative(cumulated_V, slots_BK, batch, seed=1, step=0)
    assert sample_from_cumulative(cumulated_V, slots_BK, batch, seed=1, step=0).equal(first)
    assert not sample_from_cumulative(cumulated_V, slots_BK, batch, seed=2, step=0).equal(first)
    assert not sample_from_cumulative(cumulated_V, slots_BK, batch, seed=1, step=1).equal(first)
    assert first[:, 0].equal(first[:, 1])
    assert not first[:, 0].equal(first[:, 2])
    rows = torch.tensor([40, 7])
    part = Batch(batch.ids_BT[rows], batch.example_B[rows])
    assert sample_from_cumulative(cumulated_V, slots_BK[rows], part, seed=1, step=0).equal(
        first[rows]
    )
