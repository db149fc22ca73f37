"""The number of masked tokens that a mask probability realises in a full window."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.mask_counts import MaskCount, count_slots, describe_masks, list_mask_counts
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.schedules.ramps import ProbabilityRamp
from lab.config.schedules.window_growth import GrowingWindows
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.training.objectives.masking import choose_independently, mask_batch


def trial(length: int = 16, layout: Any = "full", **changes: Any) -> Trial:
    default: dict[str, Any] = {
        "encoder": SIZES["nano"],
        "objective": ElectraConfig(kind="electra", mask_prob=0.15),
        "data": DataConfig(length=length, layout=layout),
        "budget": Budget(kind="tokens", amount=1e6),
    }
    return Trial(**default | changes)


def masked(mask_prob: Any, **changes: Any) -> ElectraConfig:
    return ElectraConfig(kind="electra", mask_prob=mask_prob, **changes)


@given(
    length=st.integers(8, 130),
    short=st.integers(0, 60),
    mask_prob=st.one_of(
        st.floats(0.01, 0.99), st.integers(1, 99).map(lambda n: n / 100), st.just(0.25)
    ),
)
@settings(deadline=None, max_examples=300)
def test_count_is_the_number_of_slots_that_training_masks(
    length: int, short: int, mask_prob: float
) -> None:
    tokens = max(1, length - 2 - short)
    row = [CLS, *[FIRST_WORD] * tokens, SEP]
    ids_BT = torch.tensor([row + [PAD] * (length - len(row))])
    batch = mask_batch(
        Batch(ids_BT, torch.tensor([0])),
        mask_prob=mask_prob,
        masking="paper",
        vocab=FIRST_WORD + 1,
        seed=0,
        step=0,
    )
    assert batch.used_BK.sum() == count_slots(length, tokens, mask_prob)


@given(
    length=st.sampled_from([8, 16, 64, 128]),
    mask_prob=st.one_of(st.floats(0.01, 0.99), st.integers(1, 99).map(lambda n: n / 100)),
    masking=st.sampled_from(["paper", "code"]),
)
@settings(deadline=None, max_examples=200)
def test_printed_count_is_that_of_training_with_either_masking(
    length: int, mask_prob: float, masking: Any
) -> None:
    ids_BT = torch.tensor([[CLS, *[FIRST_WORD] * (length - 2), SEP]])
    batch = mask_batch(
        Batch(ids_BT, torch.tensor([0])),
        mask_prob=mask_prob, masking=masking, vocab=FIRST_WORD + 1, seed=0, step=0,
    )  # fmt: skip
    (count,) = list_mask_counts(trial(length, objective=masked(mask_prob, masking=masking)))
    assert count == MaskCount(length, length - 2, int(batch.used_BK.sum()))


def test_independently_chosen_positions_have_an_expected_number() -> None:
    settings = {"kind": "random", "masking": "bernoulli"}
    one, other = (
        trial(objective=RandomReplacementConfig(**settings, mask_prob=p)) for p in (0.15, 0.16)
    )
    assert describe_masks(one) == (
        "2.1 of 14 tokens (15.0 %) on average, each chosen independently"
    )
    assert list_mask_counts(one) != list_mask_counts(other)
    ids_BT = torch.tensor([[CLS, *[FIRST_WORD] * 14, SEP]]).expand(20_000, 16)
    batch = choose_independently(
        Batch(ids_BT, torch.arange(20_000)), mask_prob=0.15, seed=0, step=0
    )
    assert batch.used_BK.sum() / 20_000 == pytest.approx(2.1, abs=0.05)


def test_a_window_of_16_has_six_counts_between_a_tenth_and_four_tenths() -> None:
    counts = {count_slots(16, 14, 0.1 + n * 0.0003) for n in range(1_001)}
    assert counts == {1, 2, 3, 4, 5, 6}


def test_constant_probability_and_length_have_one_count() -> None:
    assert list_mask_counts(trial()) == (MaskCount(16, 14, 2),)
    assert describe_masks(trial()) == "2 of 14 tokens (14.3 %)"


def test_a_second_separator_is_not_masked() -> None:
    assert list_mask_counts(trial(layout="segments")) == (MaskCount(16, 13, 2),)


def test_growing_windows_have_a_count_for_each_length() -> None:
    growing = trial(64, windows=GrowingWindows(kind="growing", start=16))
    assert list_mask_counts(growing) == (MaskCount(16, 14, 2), MaskCount(64, 62, 9))
    assert describe_masks(growing) == (
        "windows of 16: 2 of 14 tokens (14.3 %); windows of 64: 9 of 62 tokens (14.5 %)"
    )


def test_varying_probability_has_all_counts_that_it_passes() -> None:
    falling = trial(objective=masked(ProbabilityRamp(start=0.3, end=0.1)))
    assert [count.slots for count in list_mask_counts(falling)] == [4, 3, 2, 1]
    assert describe_masks(falling) == "1 to 4 of 14 tokens (7.1 % to 28.6 %)"


def test_positions_drawn_with_replacement_are_fewer() -> None:
    code = trial(objective=masked(0.4, masking="code"))
    # 1 - (13 / 14)^6 = .359
    assert describe_masks(code) == (
        "6 of 14 tokens (42.9 %), drawn with replacement: 35.9 % distinct on average"
    )
    bert = trial(objective=MlmConfig(kind="mlm", mask_prob=0.4, masking="bert"))
    assert describe_masks(bert) == "6 of 14 tokens (42.9 %)"


@pytest.mark.parametrize("order", [1, -1])
def test_several_trials_give_the_fewest_and_the_most(order: int) -> None:
    trials = [replace(trial(), objective=masked(value)) for value in (0.15, 0.25, 0.4)][::order]
    assert describe_masks(*trials) == "2 to 6 of 14 tokens (14.3 % to 42.9 %)"
