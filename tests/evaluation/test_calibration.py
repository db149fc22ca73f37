"""Calibrated detection loss: scikit-learn's logistic regression, invariances and limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lab.evaluation.calibration import alternate_halves, calibrated_losses

M = 4_000


def calibrated_loss(logits_M: Tensor, replaced_M: Tensor) -> float:
    return calibrated_losses(logits_M, replaced_M).mean().item()


def make_answers(seed: int = 0, strength: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, labels with 15 % replaced tokens, and halves."""
    generator = torch.Generator().manual_seed(seed)
    replaced_M = torch.rand(M, generator=generator) < 0.15
    noise_M = torch.randn(M, generator=generator, dtype=torch.float64)
    return noise_M + strength * replaced_M - 7, replaced_M, alternate_halves(M)


def base_rate_loss(replaced_M: Tensor, half_M: Tensor) -> float:
    """Return the loss of predicting, in each half, the share of replaced tokens of the other."""
    total = 0.0
    for scored_M in (half_M, ~half_M):
        share = replaced_M[~scored_M].double().mean()
        total -= torch.where(replaced_M[scored_M], share.log(), (1 - share).log()).sum().item()
    return total / len(replaced_M)


def test_loss_equals_that_of_sklearns_logistic_regression() -> None:
    logits_M, replaced_M, half_M = make_answers()
    total = 0.0
    x, y, half = logits_M.numpy()[:, None], replaced_M.numpy(), half_M.numpy()
    for scored in (half, ~half):
        reference = LogisticRegression(C=np.inf, tol=1e-10).fit(x[~scored], y[~scored])
        log_shares = reference.predict_log_proba(x[scored])
        total -= log_shares[np.arange(len(log_shares)), y[scored].astype(int)].sum()
    assert calibrated_loss(logits_M, replaced_M) == pytest.approx(total / M, abs=1e-6)


@given(slope=st.floats(0.01, 100), bias=st.floats(-50, 50))
@settings(max_examples=20)
def test_temperature_and_bias_of_the_detector_do_not_matter(slope: float, bias: float) -> None:
    logits_M, replaced_M, _ = make_answers()
    expected = calibrated_loss(logits_M, replaced_M)
    moved = calibrated_loss(slope * logits_M + bias, replaced_M)
    assert moved == pytest.approx(expected, abs=1e-6)


def test_better_separation_has_a_lower_loss() -> None:
    losses = [calibrated_loss(*make_answers(strength=x)[:2]) for x in (0.0, 1.0, 3.0, 50.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-3


@pytest.mark.parametrize("strength", [-2.0, 0.0])
def test_detector_that_separates_nothing_has_the_loss_of_the_base_rate(strength: float) -> None:
    """The slope is not negative, so that a detector is not rewarded for being wrong."""
    logits_M, replaced_M, half_M = make_answers(strength=strength)
    logits_M = logits_M if strength else torch.zeros(M)
    loss = calibrated_loss(logits_M, replaced_M)
    assert loss == pytest.approx(base_rate_loss(replaced_M, half_M), abs=1e-6)


def test_each_half_is_calibrated_on_the_other_one() -> None:
    """A half with shifted logits is worse than one that is fitted and scored by itself."""
    logits_M, replaced_M, half_M = make_answers(strength=3.0)
    shifted = calibrated_loss(logits_M + 5 * half_M, replaced_M)
    assert shifted > calibrated_loss(logits_M, replaced_M) + 0.1


def test_logits_that_are_not_finite_give_nan() -> None:
    logits_M, replaced_M, _ = make_answers()
    logits_M[3] = math.inf
    assert math.isnan(calibrated_loss(logits_M, replaced_M))


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 1_000])
def test_halves_are_alternating_blocks_of_about_equal_size(count: int) -> None:
    half_N = alternate_halves(count)
    assert abs(int(half_N.sum()) * 2 - count) <= max(1, count // 16 + 1)
    assert int((half_N[1:] != half_N[:-1]).sum()) == min(count, 16) - 1


@pytest.mark.parametrize(
    "replaced", [[True, False], [True, True, False], [False, True, True, True]]
)
def test_few_tokens_have_a_finite_loss(replaced: list[bool]) -> None:
    logits_M = torch.arange(float(len(replaced)))
    assert math.isfinite(calibrated_loss(logits_M, torch.tensor(replaced)))
