"""Masking: selected slots, the generator's input, and the text with tokens written into it."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lab.config.flops import masked_slots
from lab.config.objectives.masking import BERT, InputShares
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP, UNK
from lab.training import counter_rng
from lab.training.objectives.masking import (
    MaskedBatch,
    apply_shares,
    choose_distinct,
    choose_independently,
    chosen_positions,
    draw_slots,
    write_tokens,
)
from lab.training.objectives.masking import mask_batch as mask_batch_of_vocab

VOCAB = 50
Masking = Literal["paper", "code"]
MASKINGS: tuple[Masking, ...] = ("paper", "code")
each_masking = pytest.mark.parametrize("masking", MASKINGS)


def mask_batch(batch: Batch, **settings: Any) -> MaskedBatch:
    return mask_batch_of_vocab(batch, vocab=VOCAB, **settings)


def batch_of(words_B: list[int], length: int, vocab: int = VOCAB) -> Batch:
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
def test_number_of_slots_is_the_rounded_share_of_the_candidates_or_of_all_tokens(
    batch: Batch, mask_prob: float, masking: Masking, step: int
) -> None:
    masked = mask_batch(batch, mask_prob=mask_prob, masking=masking, seed=1, step=step)
    K = masked_slots(batch.ids_BT.shape[1], mask_prob)
    counted_BT = batch.ids_BT != PAD if masking == "code" else candidates(batch)
    n_B, candidates_B = counted_BT.sum(1).numpy(), candidates(batch).sum(1).numpy()
    # Single precision, as in the official code: products near a half, such as 0.15 x 30, must be
    # rounded to the same side.
    rounded_B = np.round(n_B.astype(np.float32) * np.float32(mask_prob))
    # Without replacement there are at most as many slots as candidates.
    most_B = candidates_B if masking == "paper" else K * (candidates_B > 0)
    expected_B = np.minimum(np.clip(rounded_B, 1, K), most_B)
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


def times_chosen(masked: MaskedBatch) -> Tensor:
    """Return the number of used slots of each position."""
    times_BT = torch.zeros_like(masked.ids_BT)
    return times_BT.scatter_add(1, masked.slots_BK, masked.used_BK.long())


def test_code_masking_draws_with_replacement_and_leaves_fifteen_percent_unmasked() -> None:
    batch = thousands()
    masked = mask_batch(batch, mask_prob=0.15, masking="code", seed=1, step=0)
    assert masked.used_BK.all()
    chosen_BT = torch.zeros_like(batch.ids_BT).scatter(1, masked.slots_BK, 1).bool()
    expected = 126 * (1 - (1 - 1 / 126) ** 19)
    assert expected == pytest.approx(17.7, abs=0.05)
    assert chosen_BT.sum(1).double().mean() == pytest.approx(expected, abs=0.08)
    for times, share in ((1, 0.85), (2, 1 - 0.15**2)):
        where_BT = times_chosen(masked) == times
        became_mask = (masked.ids_BT == MASK)[where_BT].double()
        error = (share * (1 - share) / len(became_mask)) ** 0.5
        assert became_mask.mean() == pytest.approx(share, abs=4 * error)


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
    assert masked.used_BK.sum() == {"paper": 3, "code": 4}[masking]


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
    tokens_BK = 1_000 + masked.slots_BK  # one token per position, of which the mean is the same
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
    bert = apply_shares(masked, batch, shares=BERT, vocab=vocab, seed=1, step=step)
    chosen_BT = chosen_positions(masked)
    assert bert.ids_BT[~chosen_BT].equal(batch.ids_BT[~chosen_BT])
    shown_N, original_N = bert.ids_BT[chosen_BT], batch.ids_BT[chosen_BT]
    word_N = shown_N[(shown_N != MASK) & (shown_N != original_N)]
    assert ((word_N >= FIRST_WORD) & (word_N < vocab)).all()
    assert bert.labels_BK.equal(batch.ids_BT.gather(1, bert.slots_BK))
    assert bert.slots_BK.equal(masked.slots_BK)
    assert bert.used_BK.equal(masked.used_BK)


# The text consists of [UNK] only, so that no random word equals the original.
@pytest.mark.parametrize(
    ("masking", "expected"),
    [
        ("bert", (0.8, 0.1, 0.1)),
        (InputShares(mask=0.5, random=0.3), (0.5, 0.3, 0.2)),
        (InputShares(mask=0.7, random=0.3), (0.7, 0.3, 0)),
        (InputShares(mask=0, random=0.6), (0, 0.6, 0.4)),
    ],
    ids=str,
)
def test_input_has_the_shares_of_masks_random_words_and_kept_words(
    masking: Literal["bert"] | InputShares, expected: tuple[float, float, float]
) -> None:
    batch = thousands()
    batch = Batch(torch.where(candidates(batch), UNK, batch.ids_BT), batch.example_B)
    masked = mask_batch(batch, mask_prob=0.15, masking=masking, seed=1, step=0)
    shown_N = masked.ids_BT[chosen_positions(masked)]
    n = len(shown_N)
    kinds = (shown_N == MASK, shown_N >= FIRST_WORD, shown_N == UNK)
    counts, shares = np.array([kind.sum().item() for kind in kinds]), np.array(expected)
    assert counts.sum() == n
    assert counts[shares == 0].sum() == 0
    possible = shares > 0
    assert stats.chisquare(counts[possible], n * shares[possible]).pvalue > 1e-4
    words = np.bincount(shown_N[shown_N >= FIRST_WORD].numpy(), minlength=VOCAB)[FIRST_WORD:]
    assert len(words) == VOCAB - FIRST_WORD
    assert stats.chisquare(words).pvalue > 1e-4


def test_bert_input_changes_with_seed_step_and_example() -> None:
    batch = thousands(32, 40)
    masked = mask_batch(batch, mask_prob=0.5, masking="paper", seed=1, step=0)

    def shown(batch: Batch = batch, seed: int = 1, step: int = 0) -> Tensor:
        masked_again = apply_shares(masked, batch, shares=BERT, vocab=50, seed=seed, step=step)
        return masked_again.ids_BT

    assert shown().equal(shown())
    assert not shown(seed=2).equal(shown())
    assert not shown(step=1).equal(shown())
    assert not shown(Batch(batch.ids_BT, batch.example_B + 1_000)).equal(shown())


# Selection by independent draws.


def test_each_candidate_is_chosen_independently_with_the_mask_probability() -> None:
    batch = thousands(length=18, windows=20_000)
    masked = choose_independently(batch, mask_prob=0.15, seed=1, step=0)
    chosen_BT = chosen_positions(masked)
    assert not chosen_BT[~candidates(batch)].any()
    # 16 candidates of each window: the numbers of chosen ones are binomial.
    counts = np.bincount(chosen_BT.sum(1).numpy(), minlength=17)
    expected = stats.binom.pmf(np.arange(17), 16, 0.15) * len(batch.ids_BT)
    frequent = expected > 5
    counts, expected = counts[frequent], expected[frequent]
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4
    by_position = chosen_BT[:, 1:-1].sum(0).numpy()
    assert stats.chisquare(by_position).pvalue > 1e-4
    pairs = (chosen_BT[:, 1:-2] & chosen_BT[:, 2:-1]).double().mean()
    assert pairs == pytest.approx(0.15**2, abs=4 * 0.15 / (20_000 * 15) ** 0.5)


@given(batch=batches(), mask_prob=st.floats(0.01, 0.99), step=st.integers(0, 10**6))
@settings(deadline=None)
def test_independent_choice_is_a_function_of_seed_step_and_example(
    batch: Batch, mask_prob: float, step: int
) -> None:
    whole = choose_independently(batch, mask_prob=mask_prob, seed=1, step=step)
    assert whole.labels_BK.equal(batch.ids_BT.gather(1, whole.slots_BK))
    rows = torch.arange(0, len(batch.ids_BT), 2).flip(0)
    part = Batch(batch.ids_BT[rows], batch.example_B[rows])
    alone = choose_independently(part, mask_prob=mask_prob, seed=1, step=step)
    assert all(b.equal(a[rows]) for a, b in zip(whole, alone, strict=True))


# Golden cases of `pretrain_helpers.mask` and `scatter_update`, computed by hand. The random numbers
# are given; slot k draws candidate floor(u n) of n candidates, and writes [MASK] if its other
# number is at least .15.


@pytest.fixture
def given_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[list[float], list[float]], None]:
    """Return a function that fixes the random numbers of the positions and of [MASK]."""

    def fix(positions: list[float], masks: list[float]) -> None:
        numbers = {counter_rng.MASK: positions, counter_rng.KEEP: masks}
        monkeypatch.setattr(
            counter_rng,
            "uniform",
            lambda _seed, stream, *_: torch.tensor([numbers[stream]]),
        )

    return fix


A, B, C, D = range(FIRST_WORD, FIRST_WORD + 4)


def one_window(*ids: int) -> Batch:
    return Batch(torch.tensor([ids]), torch.tensor([0]))


def test_official_masking_of_a_window_by_hand(
    given_numbers: Callable[[list[float], list[float]], None],
) -> None:
    # 8 tokens, 2 of padding. k = round(8 x .4) = round(3.2) = 3, and K = int(.405 x 10) = 4.
    # The candidates are positions 1, 2, 4, 5 and 6, since 3 is [MASK]. Slots 0 and 2 draw candidate
    # floor(.5 x 5) = 2, position 4, slot 1 draws floor(.99 x 5) = 4, position 6.
    batch = one_window(CLS, A, B, MASK, C, UNK, D, SEP, PAD, PAD)
    given_numbers([0.5, 0.99, 0.59, 0.0], [0.1, 0.14, 0.9, 0.9])
    masked = draw_slots(batch, mask_prob=0.4, seed=0, step=0)
    assert masked.slots_BK.tolist() == [[4, 6, 4, 0]]
    assert masked.used_BK.tolist() == [[True, True, True, False]]
    assert masked.labels_BK[masked.used_BK].tolist() == [C, D, C]
    # Position 4 becomes [MASK] because one of its two slots writes it; position 6 is kept.
    assert masked.ids_BT.tolist() == [[CLS, A, B, MASK, MASK, UNK, D, SEP, PAD, PAD]]


@pytest.mark.parametrize(
    ("words", "padding", "mask_prob", "expected"),
    [
        # n counts [CLS] and [SEP]: 10 tokens x .15 = 1.5, rounded to the even number 2; the 8
        # candidates would give round(1.2) = 1.
        (8, 6, 0.15, 2),
        (1, 13, 0.15, 1),  # round(3 x .15) = round(.45) = 0, at least 1
        (14, 0, 0.5, 8),  # round(16 x .5) = 8, at most K = int(.505 x 16) = 8
        (14, 0, 0.28, 4),  # round(4.48) = 4, and K = int(.285 x 16) = int(4.56) = 4
        (3, 11, 0.9, 4),  # round(5 x .9) = round(4.5) = 4: more slots than the three candidates
    ],
)
def test_official_number_of_slots_by_hand(
    words: int, padding: int, mask_prob: float, expected: int
) -> None:
    batch = one_window(CLS, *[A] * words, SEP, *[PAD] * padding)
    masked = draw_slots(batch, mask_prob=mask_prob, seed=0, step=0)
    assert masked.used_BK.sum() == expected


def test_independent_choice_of_positions_by_hand(
    given_numbers: Callable[[list[float], list[float]], None],
) -> None:
    # A candidate is chosen if its number is below p = .3: positions 1 and 4. [CLS], [MASK], [SEP]
    # and padding, positions 0, 3, 5 and 6, are no candidates, although their numbers are below.
    batch = one_window(CLS, A, B, MASK, C, SEP, PAD)
    given_numbers([0.0, 0.29, 0.3, 0.1, 0.0, 0.2, 0.1], [])
    masked = choose_independently(batch, mask_prob=0.3, seed=0, step=0)
    assert masked.used_BK.tolist() == [[False, True, False, False, True, False, False]]
    assert masked.labels_BK[masked.used_BK].tolist() == [A, C]
    assert masked.ids_BT.tolist() == [[CLS, MASK, B, MASK, MASK, SEP, PAD]]


def test_shares_of_masks_random_words_and_kept_tokens_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of the chosen positions 1 to 4, a number below the share of kept tokens, .1, keeps the token,
    # one below .1 + .2 writes a random word, and any other one [MASK]. With a vocabulary of
    # FIRST_WORD + 4, the word is FIRST_WORD + floor(number x 4).
    numbers = {
        counter_rng.KEEP: [0.0, 0.09, 0.1, 0.29, 0.3, 0.0],
        counter_rng.WORD: [0.0, 0.9, 0.75, 0.49, 0.9, 0.0],
    }
    monkeypatch.setattr(
        counter_rng, "uniform", lambda _seed, stream, *_: torch.tensor([numbers[stream]])
    )
    batch = one_window(CLS, A, B, C, D, SEP)
    slots_BK = torch.tensor([[1, 2, 3, 4, 0]])
    used_BK = torch.tensor([[True, True, True, True, False]])
    masked = MaskedBatch(
        ids_BT=torch.tensor([[CLS, MASK, MASK, MASK, MASK, SEP]]),
        slots_BK=slots_BK, used_BK=used_BK,
        labels_BK=batch.ids_BT.gather(1, slots_BK), draws_BK=slots_BK,
    )  # fmt: skip
    shares = InputShares(mask=0.7, random=0.2)
    assert shares.keep == pytest.approx(0.1)
    inputs = apply_shares(masked, batch, shares=shares, vocab=FIRST_WORD + 4, seed=0, step=0)
    words = [FIRST_WORD + 3, FIRST_WORD + 1]  # floor(.75 x 4) and floor(.49 x 4)
    assert inputs.ids_BT.tolist() == [[CLS, A, *words, MASK, SEP]]
    assert inputs.labels_BK.equal(masked.labels_BK)


def test_window_without_candidates_has_no_slots() -> None:
    batch = one_window(CLS, MASK, SEP, PAD, PAD, PAD, PAD, PAD)
    masked = draw_slots(batch, mask_prob=0.5, seed=0, step=0)
    assert not masked.used_BK.any()
    assert masked.ids_BT.equal(batch.ids_BT)
    assert write_tokens(batch, masked, masked.labels_BK + 1).equal(batch.ids_BT)


def test_official_scatter_averages_the_tokens_of_a_position_by_hand() -> None:
    batch = one_window(CLS, A, B, C, SEP, PAD)
    slots_BK = torch.tensor([[3, 1, 3, 3, 2, 2, 0]])
    masked = MaskedBatch(
        ids_BT=batch.ids_BT,
        slots_BK=slots_BK,
        used_BK=torch.tensor([[True] * 6 + [False]]),
        labels_BK=batch.ids_BT.gather(1, slots_BK),
        draws_BK=torch.arange(7)[None],
    )
    # Position 3: (20 + 21 + 10) // 3 = 17. Position 2: (30 + 41) // 2 = 35. Position 0 is unused.
    tokens_BK = torch.tensor([[20, 9, 21, 10, 30, 41, 99]])
    assert write_tokens(batch, masked, tokens_BK).tolist() == [[CLS, 9, 35, 17, SEP, PAD]]


def test_slots_of_one_position_sample_with_random_numbers_of_their_own() -> None:
    batch = thousands()
    masked = draw_slots(batch, mask_prob=0.15, seed=1, step=0)
    assert masked.draws_BK.equal(torch.arange(19).expand_as(masked.slots_BK))
    distinct = choose_distinct(batch, mask_prob=0.15, seed=1, step=0)
    assert distinct.draws_BK.equal(distinct.slots_BK)
