"""Sampling of replacement tokens: the distribution, fp32 precision and reproducibility."""

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
    """Return windows of zeros: the random numbers depend on example and position only."""
    return Batch(torch.zeros(count, length, dtype=torch.int64), torch.arange(count) * 7 + 3)


def some_logits(*shape: int) -> Tensor:
    return 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def draws(logits_V: Tensor, n: int, *, seed: int = 1) -> Tensor:
    """Return n tokens sampled from the same logits, at position 1 of n windows."""
    batch = windows(n)
    slots_B1 = torch.ones(n, 1, dtype=torch.int64)
    return sample_tokens(logits_V.expand(n, 1, -1), slots_B1, batch, seed=seed, step=0)[:, 0]


def test_samples_follow_the_softmax_at_temperature_one() -> None:
    logits_V = some_logits(24)
    counts = torch.bincount(draws(logits_V, 40_000), minlength=24).numpy()
    expected = logits_V.double().softmax(0).numpy()
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > 1e-4
    assert counts[logits_V.argmax()] < 0.9 * counts.sum()


def test_samples_of_neighbouring_slots_are_independent() -> None:
    n = 20_000
    batch = windows(n)
    slots_BK = torch.tensor([1, 2]).expand(n, -1)
    drawn_BK = sample_tokens(torch.zeros(n, 2, 4), slots_BK, batch, seed=1, step=0).numpy()
    table = np.zeros((4, 4))
    np.add.at(table, (drawn_BK[:, 0], drawn_BK[:, 1]), 1)
    assert stats.chisquare(table.flatten()).pvalue > 1e-4


# Gumbel noise from bf16 uniform numbers ranges from -4.4 to 5.54, so a token with a logit 11 below
# the largest would never be sampled. Here all tokens but one are that far below, and have a
# probability of 3.3 % together.
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


def test_bf16_logits_give_the_same_samples_as_their_fp32_values() -> None:
    logits_V = some_logits(500).bfloat16()
    assert draws(logits_V, 2_000).equal(draws(logits_V.float(), 2_000))


def test_impossible_tokens_are_never_sampled() -> None:
    logits_V = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    assert set(draws(logits_V, 5_000).tolist()) == {1, 3}


@pytest.mark.parametrize("vocab", [64, 65, 128, 150])
def test_first_and_last_tokens_of_chunks_are_sampled_and_impossible_ones_are_not(
    vocab: int,
) -> None:
    possible = [token for token in (0, 63, 64, 127, 128, vocab - 1) if token < vocab]
    logits_V = torch.full((vocab,), -torch.inf)
    logits_V[possible] = 0.0
    drawn = draws(logits_V, 5_000)
    assert set(drawn.tolist()) == set(possible)
    counts = torch.bincount(drawn, minlength=vocab)[sorted(set(possible))].numpy()
    assert stats.chisquare(counts).pvalue > 1e-4


# A diverged generator has NaN logits. The run then ends because of its loss; an id outside the
# embedding table would end it with an unrelated error before.
@pytest.mark.parametrize("vocab", [24, 64, 128, 150])
def test_nan_logits_give_tokens_of_the_vocabulary(vocab: int) -> None:
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


def test_slots_with_one_random_number_and_distribution_get_one_token() -> None:
    batch = windows(200)
    draws_BK = torch.tensor([3, 3]).expand(200, -1)
    drawn_BK = sample_tokens(torch.zeros(200, 2, 50), draws_BK, batch, seed=1, step=0)
    assert drawn_BK[:, 0].equal(drawn_BK[:, 1])
    assert len(drawn_BK.unique()) > 20


def replacement_logits(logits_BKV: Tensor, labels_BK: Tensor, sampling: SamplingConfig) -> Tensor:
    return sampling_logits_BKV(
        logits_BKV,
        labels_BK,
        temperature=sampling.temperature,
        disallow_correct=sampling.disallow_correct,
    )


def probabilities(logits_V: Tensor, original: int, sampling: SamplingConfig) -> Tensor:
    """Return the probabilities of the tokens, in double precision."""
    actual_BKV = replacement_logits(logits_V.expand(1, 1, -1), torch.tensor([[original]]), sampling)
    return actual_BKV[0, 0].double().softmax(-1)


def test_default_sampling_uses_the_generators_logits() -> None:
    logits_BKV, labels_BK = some_logits(2, 3, 24), torch.zeros(2, 3, dtype=torch.int64)
    assert replacement_logits(logits_BKV, labels_BK, SamplingConfig()).equal(logits_BKV)


@given(temperature=st.floats(0.2, 8.0))
@settings
def test_temperature_raises_probabilities_to_its_inverse(temperature: float) -> None:
    logits_V = some_logits(24)
    expected_V = logits_V.double().softmax(-1) ** (1 / temperature)
    actual_V = probabilities(logits_V, 0, SamplingConfig(temperature=temperature))
    torch.testing.assert_close(actual_V, expected_V / expected_V.sum(), rtol=1e-4, atol=1e-9)


@given(original=st.integers(0, 23), temperature=st.sampled_from([0.5, 1.0, 2.0]))
@settings
def test_disallowed_original_leaves_the_other_probabilities_in_proportion(
    original: int, temperature: float
) -> None:
    logits_V = some_logits(24)
    free_V = probabilities(logits_V, original, SamplingConfig(temperature=temperature))
    actual_V = probabilities(
        logits_V, original, SamplingConfig(temperature=temperature, disallow_correct=True)
    )
    expected_V = free_V.index_fill(0, torch.tensor([original]), 0.0)
    assert actual_V[original] == 0
    torch.testing.assert_close(actual_V, expected_V / expected_V.sum())


def test_samples_follow_temperature_and_disallowed_original() -> None:
    logits_V, sampling = some_logits(24), SamplingConfig(temperature=2.0, disallow_correct=True)
    original = int(logits_V.argmax())
    replacement_BKV = replacement_logits(
        logits_V.expand(1, 1, -1), torch.tensor([[original]]), sampling
    )
    counts = torch.bincount(draws(replacement_BKV[0, 0], 40_000), minlength=24).numpy()
    assert counts[original] == 0
    expected_V = (logits_V.double() / 2).exp().index_fill(0, torch.tensor([original]), 0.0)
    expected = (counts.sum() * expected_V / expected_V.sum()).numpy()
    others = np.arange(24) != original
    assert stats.chisquare(counts[others], expected[others]).pvalue > 1e-4


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(), SamplingConfig(temperature=2.0, disallow_correct=True)]
)
def test_replacement_logits_are_fp32_and_pass_gradients(sampling: SamplingConfig) -> None:
    logits_BKV = some_logits(2, 3, 24).bfloat16().requires_grad_()
    labels_BK = torch.zeros(2, 3, dtype=torch.int64)
    actual_BKV = replacement_logits(logits_BKV, labels_BK, sampling)
    assert actual_BKV.dtype == torch.float32
    actual_BKV.softmax(-1)[..., 5].sum().backward()
    assert logits_BKV.grad is not None
    assert (logits_BKV.grad != 0).any()


COUNTS_V = torch.tensor([900, 900, 900, 900, 900, 40, 0, 700, 3, 0, 60, 160, 20, 0])


def words(distribution: str, n: int = 40_000, counts_V: Tensor = COUNTS_V) -> Tensor:
    slots_BK = torch.tensor([1, 2]).expand(n // 2, -1)
    return sample_from_cumulative(
        cumulative_distribution(distribution, counts_V), slots_BK, windows(n // 2), seed=1, step=0
    )


def test_unigram_words_are_drawn_by_frequency() -> None:
    actual = np.bincount(words("unigram").flatten().numpy(), minlength=len(COUNTS_V))
    possible = np.flatnonzero(COUNTS_V.numpy())
    possible = possible[possible >= FIRST_WORD]
    assert actual[possible].sum() == actual.sum()
    share = COUNTS_V.numpy()[possible] / COUNTS_V.numpy()[possible].sum()
    assert stats.chisquare(actual[possible], share * actual.sum()).pvalue > 1e-4


def test_uniform_words_are_equally_likely_and_special_tokens_impossible() -> None:
    actual = np.bincount(words("uniform").flatten().numpy(), minlength=len(COUNTS_V))
    assert len(actual) == len(COUNTS_V)
    assert (actual[:FIRST_WORD] == 0).all()
    assert stats.chisquare(actual[FIRST_WORD:]).pvalue > 1e-4


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any),
    distribution=st.sampled_from(["unigram", "uniform"]),
)
@settings
def test_special_tokens_and_words_without_occurrence_are_never_drawn(
    counts: list[int], distribution: str
) -> None:
    counts_V = torch.tensor([10**9] * FIRST_WORD + counts)
    drawn_BK = words(distribution, 200, counts_V)
    assert ((drawn_BK >= FIRST_WORD) & (drawn_BK < len(counts_V))).all()
    assert distribution == "uniform" or (counts_V[drawn_BK] > 0).all()


def test_cumulative_distribution_does_not_change_the_counts() -> None:
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
