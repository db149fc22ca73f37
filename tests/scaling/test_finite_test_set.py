"""Error of the finite test set in a law: coverage over test sets, and quantities without it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.scaling_fit import PER_TOKEN, SMALL, grid
from lab.scaling.bootstrap import bootstrap_laws
from lab.scaling.finite_test_set import find_test_set_errors, widen, widen_ends
from lab.scaling.flops import Floats
from lab.scaling.law import fit_law, laws_of, log_inputs
from lab.scaling.optimum import optimal_sizes
from lab.scaling.predictions import predict_batch
from lab.scaling.profiles import Estimate, law_interval_ends, optimal_size_ends
from lab.scaling.solver.batch import fit_batch

DRAWS, BLOCKS, LEVEL, FLOPS = 200, 50, 0.9, 1e14
POINTS = grid(5, 6, 2)
CORNERS = np.arange(len(POINTS)) // 2
SIZE = float(optimal_sizes({k: np.array([v]) for k, v in vars(SMALL).items()}, FLOPS, PER_TOKEN)[0])
# Over texts, the spread of E, A and B, and of the loss of one run, relative to their means.
SPREADS, OWN = (0.2, 0.3, 0.3), 0.02
SEEDS = 0.003  # noise between runs, relative to the loss


def draw_test_sets(
    rng: np.random.Generator, draws: int, own: float = OWN
) -> tuple[Floats, Floats, Floats]:
    """Return E, A and B of the blocks of test sets, and the losses of runs on them.

    Returns:
        arrays of shape (3, draws, B), (draws, n), and (draws, n, B): contributions of the blocks.
    """
    means = np.array([SMALL.E, SMALL.A, SMALL.B])[:, None, None]
    relative = np.array(SPREADS)[:, None, None] * rng.standard_normal((3, draws, BLOCKS))
    laws_3KB = means * (1 + relative)
    size, data = POINTS.parameters_n**-SMALL.alpha, POINTS.tokens_n**-SMALL.beta
    expected_KnB = laws_3KB[0][:, None] + sum(
        laws[:, None] * term[:, None] for laws, term in zip(laws_3KB[1:], (size, data), strict=True)
    )
    alone = own * rng.standard_normal(expected_KnB.shape)
    seeds = SEEDS * rng.standard_normal(expected_KnB.shape[:2])
    of_blocks = expected_KnB * (1 + alone) * np.exp(seeds)[:, :, None]
    losses = of_blocks.mean(axis=2)
    return laws_3KB, losses, (of_blocks - losses[:, :, None]) / BLOCKS


def accepted(share: float) -> bool:
    """Return whether a coverage of .85 to .95 gives this share in 999 of 1,000 simulations."""
    low, high = (stats.binom.ppf(q, DRAWS, p) / DRAWS for q, p in ((0.0005, 0.85), (0.9995, 0.95)))
    return bool(low <= share <= high)


def test_intervals_cover_the_law_of_all_texts_only_with_the_error_of_the_test_set() -> None:
    rng = np.random.default_rng(0)
    laws_3KB, losses, blocks = draw_test_sets(rng, DRAWS)
    inputs = np.broadcast_to(log_inputs(POINTS), (DRAWS, len(POINTS), 2))
    batch = fit_batch(inputs, losses)
    errors = find_test_set_errors(batch, blocks, CORNERS)
    fitted = {
        "E": batch.constants_K,
        "size": optimal_sizes(laws_of(batch), FLOPS, PER_TOKEN),
    }
    truths = {"E": SMALL.E, "size": SIZE}
    ends = {
        "E": law_interval_ends(batch, LEVEL)["E"],
        "size": optimal_size_ends(batch, FLOPS, PER_TOKEN, LEVEL),
    }
    growth = {"E": errors.growth()["E"], "size": errors.size_growth(FLOPS, PER_TOKEN)}
    for name, truth in truths.items():
        low, high = ends[name]
        assert np.mean((low <= truth) & (truth <= high)) < 0.8, name
        low, high = widen_ends(fitted[name], low, high, growth[name])
        assert accepted(float(np.mean((low <= truth) & (truth <= high)))), name
    # New runs are scored on the same test set: their intervals need no such error.
    tokens = FLOPS / PER_TOKEN(np.array([SIZE]))[0]
    point = np.broadcast_to(np.log([SIZE, tokens]), (DRAWS, 2))
    own_law = laws_3KB.mean(axis=2)
    expected = own_law[0] + own_law[1] * SIZE**-SMALL.alpha + own_law[2] * tokens**-SMALL.beta
    noise = np.hypot(SEEDS, OWN / np.sqrt(BLOCKS))
    new = expected * np.exp(noise * rng.standard_normal((2, DRAWS))).mean(axis=0)
    _, low, high = predict_batch(batch, point, 2, LEVEL)
    assert accepted(float(np.mean((low <= new) & (new <= high))))


def test_shift_of_all_losses_has_no_error_of_exponents_or_sizes() -> None:
    noise = 0.005 * np.random.default_rng(6).standard_normal(len(POINTS))
    fit = fit_law(replace(POINTS, losses_n=SMALL.loss(POINTS.parameters_n, POINTS.tokens_n)
                          * np.exp(noise)))  # fmt: skip
    shifts = 0.01 * np.random.default_rng(1).standard_normal(BLOCKS)
    blocks = fit.points.losses_n[:, None] * (shifts - shifts.mean())
    errors = find_test_set_errors(fit.batch, blocks[None], CORNERS)
    of_names = errors.of_logs()
    common = float(errors.common_K[0])
    assert common == pytest.approx(np.sqrt(BLOCKS) * shifts.std(ddof=1))
    for name in ("alpha", "beta", "allocation"):
        assert float(of_names[name][0]) < 1e-3 * common, name
    assert float(errors.size_growth(FLOPS, PER_TOKEN)[0]) == pytest.approx(1.0, abs=1e-5)
    for name in ("E", "A", "B"):
        assert float(of_names[name][0]) == pytest.approx(common, rel=1e-3), name
        of_noise = getattr(fit.errors, name) / getattr(fit.law, name)
        grown = np.hypot(1.0, common / of_noise)
        assert float(errors.growth()[name][0]) == pytest.approx(grown, rel=1e-3), name


def test_noise_of_each_run_alone_is_no_error_of_the_test_set() -> None:
    """It is in the residuals; over many repeats the difference is 0 on average."""
    rng = np.random.default_rng(3)
    points = grid(5, 6, 6)
    corners = np.arange(len(points)) // 6
    fit = fit_law(replace(points, losses_n=SMALL.loss(points.parameters_n, points.tokens_n)))
    own = rng.standard_normal((40, len(points), BLOCKS)) * 1e-3
    variances = [
        find_test_set_errors(fit.batch, each[None], corners).covariance_KPP[0, 0, 0] for each in own
    ]
    unadjusted = [
        find_test_set_errors(fit.batch, each[None], np.arange(len(points))).covariance_KPP[0, 0, 0]
        for each in own
    ]
    assert abs(np.mean(variances)) < 0.1 * np.mean(unadjusted)


def test_bootstrap_over_blocks_adds_the_error_of_the_test_set() -> None:
    rng = np.random.default_rng(4)
    _, losses, blocks = draw_test_sets(rng, 1, own=0.002)
    fit = fit_law(replace(POINTS, losses_n=losses[0]))
    errors = find_test_set_errors(fit.batch, blocks, CORNERS)
    spreads = [
        np.log(bootstrap_laws(fit, np.random.default_rng(5), 400, each).laws["E"]).std()
        for each in (None, blocks[0])
    ]
    added = float(errors.of_logs()["E"][0])
    assert spreads[1] == pytest.approx(np.hypot(spreads[0], added), rel=0.15)


def test_intervals_grow_on_a_log_scale_and_open_ends_stay_open() -> None:
    found = widen(Estimate(value=1.0, low=0.0, high=np.inf, level=0.9), 1.1)
    assert (found.low, found.high) == (0.0, np.inf)
    found = widen(Estimate(value=2.0, low=1.0, high=8.0, level=0.9), 1.5)
    assert np.log2([found.low, found.high]) == pytest.approx([1 - 1.5, 1 + 3.0])
