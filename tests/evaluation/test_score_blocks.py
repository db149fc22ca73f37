"""Contributions of blocks: their variance equals that of resampled test sets."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from lab import score_blocks
from lab.evaluation import scores


def variance(blocks: list[float]) -> float:
    return len(blocks) * float(np.var(blocks, ddof=1))


def test_blocks_are_contiguous_and_of_equal_size() -> None:
    block_G = score_blocks.assign_blocks(1_000)
    assert torch.equal(block_G, block_G.sort().values)
    assert set(block_G.bincount().tolist()) == {1_000 // score_blocks.BLOCKS}
    assert score_blocks.assign_blocks(3).tolist() == [0, 1, 2]


def test_variance_of_a_mean_of_single_units_is_the_usual_one() -> None:
    values_N = torch.rand(80, generator=torch.Generator().manual_seed(0))
    found = variance(score_blocks.mean_blocks(values_N, torch.arange(80)))
    assert found == pytest.approx(float(np.var(values_N.numpy(), ddof=1)) / 80, rel=1e-2)


def test_contributions_sum_to_zero_and_double_with_the_weights_of_a_ratio() -> None:
    generator = torch.Generator().manual_seed(0)
    values_N, weights_N = torch.rand(2, 300, generator=generator)
    block_N = score_blocks.assign_blocks(300)
    blocks = score_blocks.ratio_blocks(values_N, weights_N, block_N)
    assert sum(blocks) == pytest.approx(0.0, abs=1e-4)
    halved = score_blocks.ratio_blocks(values_N, 2 * weights_N, block_N)
    assert halved == pytest.approx([b / 2 for b in blocks], rel=1e-2)


@pytest.mark.parametrize("kind", ["mean", "auroc"])
def test_variance_equals_that_of_a_block_bootstrap(kind: str) -> None:
    """Units of a block are correlated, so that a bootstrap of units would give less."""
    rng = np.random.default_rng(0)
    B, size = 60, 20
    block_N = torch.arange(B).repeat_interleave(size)
    level_N = torch.from_numpy(rng.normal(size=B)).repeat_interleave(size)
    positive_N = torch.from_numpy(rng.random(B * size) < 0.3)
    values_N = 0.7 * level_N * positive_N + positive_N + torch.from_numpy(rng.normal(size=B * size))

    def statistic(rows: torch.Tensor) -> float:
        if kind == "mean":
            return float(values_N[rows].mean())
        return scores.auroc(values_N[rows], positive_N[rows])

    blocks = (
        score_blocks.mean_blocks(values_N, block_N)
        if kind == "mean"
        else score_blocks.auroc_blocks(values_N, positive_N, block_N)
    )
    rows_BS = torch.arange(B * size).view(B, size)
    drawn = [
        statistic(rows_BS[torch.from_numpy(rng.integers(B, size=B))].flatten()) for _ in range(800)
    ]
    assert math.sqrt(variance(blocks)) == pytest.approx(np.std(drawn), rel=0.1)
    units = (
        score_blocks.mean_blocks(values_N, torch.arange(B * size))
        if kind == "mean"
        else score_blocks.auroc_blocks(values_N, positive_N, torch.arange(B * size))
    )
    assert variance(units) < 0.8 * variance(blocks)


def test_auroc_contributions_equal_the_jackknife_without_ties() -> None:
    rng = np.random.default_rng(1)
    values_N = torch.from_numpy(rng.normal(size=60))
    positive_N = torch.arange(60) % 3 == 0
    blocks = score_blocks.auroc_blocks(values_N, positive_N, torch.arange(60))
    whole = scores.auroc(values_N, positive_N)
    for n in range(60):
        kept = torch.arange(60) != n
        own = int(positive_N.sum()) if positive_N[n] else int((~positive_N).sum())
        expected = (whole - scores.auroc(values_N[kept], positive_N[kept])) * (own - 1) / own
        assert blocks[n] == pytest.approx(expected, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("kind", ["accuracy", "macro_f1", "matthews", "spearman", "pearson"])
def test_variance_of_the_jackknife_equals_that_of_a_block_bootstrap(kind: str) -> None:
    """Units of a block are correlated, so that a bootstrap of units would give less."""
    rng = np.random.default_rng(0)
    B, size = 60, 20
    block_N = torch.arange(B).repeat_interleave(size)
    level_N = np.repeat(rng.normal(size=B), size)
    gold_N = rng.normal(size=B * size)
    predicted_N = (1 + 0.5 * level_N) * gold_N + rng.normal(size=B * size)
    if kind in ("accuracy", "macro_f1", "matthews"):
        gold_N, predicted_N = np.digitize(gold_N, [0.3]), np.digitize(predicted_N, [0.0])
    score = SCORES[kind]
    blocks = score_blocks.jackknife_blocks(
        lambda kept_N: score(gold_N[kept_N], predicted_N[kept_N]), block_N
    )
    rows_BS = np.arange(B * size).reshape(B, size)
    drawn = []
    for _ in range(600):
        rows = rows_BS[rng.integers(B, size=B)].ravel()
        drawn.append(score(gold_N[rows], predicted_N[rows]))
    assert sum(blocks) == pytest.approx(0.0, abs=1e-5)
    assert math.sqrt(variance(blocks)) == pytest.approx(np.std(drawn), rel=0.1)


SCORES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": partial(metrics.f1_score, average="macro"),
    "matthews": metrics.matthews_corrcoef,
    "spearman": lambda gold, predicted: stats.spearmanr(gold, predicted).statistic,
    "pearson": lambda gold, predicted: stats.pearsonr(gold, predicted).statistic,
}


def test_jackknife_of_a_mean_is_its_influence_for_blocks_of_any_size() -> None:
    values_N = torch.rand(300, generator=torch.Generator().manual_seed(0))
    block_N = torch.from_numpy(np.sort(np.random.default_rng(0).integers(40, size=300)))
    blocks = score_blocks.jackknife_blocks(
        lambda kept_N: float(values_N[kept_N].double().mean()), block_N
    )
    assert len(set(block_N.bincount().tolist())) > 5
    assert blocks == pytest.approx(score_blocks.mean_blocks(values_N, block_N), rel=1e-2, abs=1e-8)


def test_jackknife_needs_two_blocks_and_a_score_without_each_of_them() -> None:
    values_N, block_N = torch.tensor([1.0, 1.0, 2.0, 1.0]), torch.arange(4)

    def spread(kept_N: torch.Tensor) -> float:
        """Return the ratio of two statistics that is 0 / 0 for constant values."""
        kept = values_N[kept_N]
        return float((kept.max() - kept.min()) / kept.std())

    assert math.isfinite(spread(torch.ones(4, dtype=torch.bool)))
    assert score_blocks.jackknife_blocks(spread, block_N) == []
    assert score_blocks.jackknife_blocks(spread, torch.zeros(4, dtype=torch.int64)) == []
    assert score_blocks.jackknife_blocks(spread, torch.empty(0, dtype=torch.int64)) == []


def test_score_that_is_not_finite_has_no_contributions() -> None:
    assert score_blocks.mean_blocks(torch.tensor([1.0, math.nan]), torch.arange(2)) == []
