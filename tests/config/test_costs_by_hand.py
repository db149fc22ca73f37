"""Costs computed by hand: the terms of one step, and the mean over a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from typing_extensions import override

from lab.config import flops
from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget, Cost
from lab.config.costs.paper_flops import paper_step
from lab.config.data import DataConfig
from lab.config.flops import masked_slots, mean_cost, step_cost
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.objectives.update_rules import AlternationConfig
from lab.config.optimizer import AdamConfig, MuonConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import CountRamp, ProbabilityRamp, Ramp
from lab.config.schedules.window_growth import GrowingWindows
from lab.config.trial import Trial

ALL, GENERATOR, DISCRIMINATOR = (
    UpdatedNetworks.ALL,
    UpdatedNetworks.GENERATOR,
    UpdatedNetworks.DISCRIMINATOR,
)
# All dimensions are different. The generator has half of the width: hidden 12, ffn 48, one head.
ENCODER = EncoderConfig(layers=2, hidden=24, ffn=96, heads=2, embedding=16, dropout=0)
NARROW = GeneratorConfig(width=0.5).derive_shape(ENCODER)
VOCAB, LENGTH, BATCH, SLOTS = 300, 20, 3, 3
TOKENS = BATCH * LENGTH
ALTERNATION = AdversarialConfig(kind="adversarial", rule=AlternationConfig(kind="alternation"))


@dataclass(frozen=True, kw_only=True)
class Uneven(AdversarialConfig):
    """An alternation in which the generator is updated in a quarter of the steps."""

    @override
    def phase_shares(self) -> Mapping[UpdatedNetworks, float]:
        return {GENERATOR: 0.25, DISCRIMINATOR: 0.75}


def trial_of(
    objective: AnyObjectiveConfig,
    kind: Literal["flops", "tokens", "seconds"] = "flops",
    **changes: Any,
) -> Trial:
    base = Trial(
        encoder=ENCODER,
        objective=objective,
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        batch=BATCH,
        budget=Budget(kind=kind, amount=1e9),
    )
    return replace(base, **changes)


# One step.


@pytest.mark.parametrize(("embedding", "projection"), [(16, 2 * 16 * 24), (24, 0)])
def test_terms_of_the_encoder_are_those_of_its_matrix_products(
    embedding: int, projection: int
) -> None:
    """2 FLOPs a weight and token; scores and weighted sums of attention read 20 positions."""
    assert flops.encoder_terms(replace(ENCODER, embedding=embedding), LENGTH) == {
        "project_embedding": projection,
        "query_key_value": 2 * (3 * 2 * 24 * 24),
        "attention": 2 * (2 * 2 * 24 * 20),
        "attention_output": 2 * (2 * 24 * 24),
        "feed_forward": 2 * (2 * 2 * 24 * 96),
    }


def test_terms_of_the_heads_are_those_of_their_matrix_products() -> None:
    assert flops.generator_head_terms(ENCODER, VOCAB) == {
        "head_transform": 2 * 24 * 16,
        "head_vocabulary": 2 * 16 * 300,
    }
    assert flops.discriminator_head_terms(ENCODER) == {
        "detect_transform": 2 * 24 * 24,
        "detect": 2 * 24,
    }
    assert flops.copy_gate_terms(ENCODER) == {"copy_gate": 2 * 24}


@pytest.mark.parametrize(("embedding", "projection"), [(16, 16 * 24 + 24), (24, 0)])
def test_weights_of_the_blocks_and_the_projection(embedding: int, projection: int) -> None:
    attention, feed_forward, norms = 4 * (24 * 24 + 24), 2 * 24 * 96 + 96 + 24, 2 * 2 * 24
    expected = 2 * (attention + feed_forward + norms) + projection
    assert flops.encoder_weights(replace(ENCODER, embedding=embedding)) == expected


@pytest.mark.parametrize(
    ("length", "mask_prob", "slots"),
    [(8, 0.001, 1), (128, 0.15, 19), (20, 0.145, 3), (200, 0.4, 81)],
)
def test_masked_slots_are_the_share_plus_a_half_percent_and_at_least_one(
    length: int, mask_prob: float, slots: int
) -> None:
    assert masked_slots(length, mask_prob) == slots


# Forward FLOPs of a token in the blocks of each network, of a slot in the vocabulary head, and of a
# token in the detection head.
BODY = {ENCODER: 768 + 6_912 + 3_840 + 2_304 + 18_432, NARROW: 384 + 1_728 + 1_920 + 576 + 4_608}
WORD = {ENCODER: 768 + 9_600, NARROW: 384 + 9_600}
DETECT = 1_152 + 48
WEIGHTS = {ENCODER: 2 * 7_224 + 408, NARROW: 2 * 1_884 + 204}
PREDICTS = {shape: TOKENS * BODY[shape] + BATCH * SLOTS * WORD[shape] for shape in BODY}
DETECTS = TOKENS * (BODY[ENCODER] + DETECT)
BASELINE = BATCH * 2 * 2 * 12 * SLOTS  # forward and backward pass of one logit a slot


@pytest.mark.parametrize(
    ("objective", "updates", "honest", "sixths"),
    [
        (MlmConfig(kind="mlm"), ALL, 3 * PREDICTS[ENCODER], {ENCODER: 6}),
        (RandomReplacementConfig(kind="random"), ALL, 3 * DETECTS, {ENCODER: 6}),
        (
            ElectraConfig(kind="electra"), ALL, 3 * PREDICTS[NARROW] + 3 * DETECTS,
            {NARROW: 6, ENCODER: 6},
        ),
        (
            AllTokensMlmConfig(kind="all_tokens_mlm"), ALL,
            3 * PREDICTS[NARROW] + 3 * TOKENS * (BODY[ENCODER] + WORD[ENCODER] + 2 * 24),
            {NARROW: 6, ENCODER: 6},
        ),
        (
            AdversarialConfig(kind="adversarial"), ALL,
            3 * PREDICTS[NARROW] + 3 * DETECTS + BASELINE, {NARROW: 6, ENCODER: 6},
        ),
        (
            ALTERNATION, GENERATOR, 3 * PREDICTS[NARROW] + DETECTS + BASELINE,
            {NARROW: 6, ENCODER: 2},
        ),
        (ALTERNATION, DISCRIMINATOR, PREDICTS[NARROW] + 3 * DETECTS, {NARROW: 2, ENCODER: 6}),
        (TwoStageConfig(kind="two_stage"), GENERATOR, 3 * PREDICTS[ENCODER], {ENCODER: 6}),
        (
            TwoStageConfig(kind="two_stage"), DISCRIMINATOR, PREDICTS[ENCODER] + 3 * DETECTS,
            {ENCODER: 6 + 2},
        ),
    ],
    ids=lambda value: getattr(value, "kind", None) or getattr(value, "value", None),
)  # fmt: skip
def test_step_costs_its_forward_passes_once_and_three_times_where_it_updates(
    objective: AnyObjectiveConfig,
    updates: UpdatedNetworks,
    honest: int,
    sixths: Mapping[EncoderConfig, int],
) -> None:
    cost = step_cost(trial_of(objective), updates)
    assert cost.tokens == TOKENS
    assert cost.flops == honest
    assert cost.six_n == sum(each * WEIGHTS[shape] * TOKENS for shape, each in sixths.items())


def test_pass_without_an_update_costs_half_of_the_papers_count() -> None:
    sizes = {"length": LENGTH, "vocab": VOCAB, "batch": BATCH}
    generator = paper_step(NARROW, "vocabulary_at_slots", **sizes)
    discriminator = paper_step(ENCODER, "detection", **sizes)
    trial = trial_of(ALTERNATION)
    found = [step_cost(trial, updates).paper_flops for updates in (ALL, GENERATOR, DISCRIMINATOR)]
    assert found == [
        round(generator + discriminator),
        round(generator + discriminator / 2),
        round(generator / 2 + discriminator),
    ]


def test_cost_of_a_step_is_that_at_the_start_unless_its_progress_is_given() -> None:
    varying = trial_of(MlmConfig(kind="mlm"), batch=CountRamp(start=2, end=5))
    assert step_cost(varying).tokens == 2 * LENGTH
    assert step_cost(varying, progress=1.0).tokens == 5 * LENGTH


def _newton_schulz(h: int, f: int, layers: int) -> int:
    """An iteration is x x^T, the square of it, and a product with x, for six matrices a block."""
    square = 2 * h * h * h + 2 * h**3 + 2 * h * h * h
    wide = 2 * h * h * f + 2 * h**3 + 2 * h * h * f
    return layers * (4 * square + 2 * wide)


@pytest.mark.parametrize(
    ("objective", "updates", "per_iteration"),
    [
        (MlmConfig(kind="mlm"), ALL, _newton_schulz(24, 96, 2)),
        (
            ElectraConfig(kind="electra"), ALL,
            _newton_schulz(24, 96, 2) + _newton_schulz(12, 48, 2),
        ),
        (ALTERNATION, GENERATOR, _newton_schulz(12, 48, 2)),
        (ALTERNATION, DISCRIMINATOR, _newton_schulz(24, 96, 2)),
        (
            ElectraConfig(kind="electra", sharing="all", generator=GeneratorConfig(width=1.0)), ALL,
            _newton_schulz(24, 96, 2),
        ),
    ],
)  # fmt: skip
def test_muon_adds_its_products_for_the_matrices_of_the_updated_networks(
    objective: AnyObjectiveConfig, updates: UpdatedNetworks, per_iteration: int
) -> None:
    adam, muon = (
        step_cost(replace(trial_of(objective), optim=optim), updates)
        for optim in (AdamConfig(), MuonConfig(kind="muon", iterations=4))
    )
    assert muon.flops - adam.flops == 4 * per_iteration
    assert replace(muon, flops=0) == replace(adam, flops=0)


# The mean over a run.


def assert_equal(found: Cost, expected: Mapping[str, float], rel: float = 1e-9) -> None:
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=rel, abs=0.51), name


def averages(costs: list[Cost], steps: list[float]) -> dict[str, float]:
    """Return the mean of each count over steps of several costs."""
    return {
        name: sum(getattr(cost, name) * n for cost, n in zip(costs, steps, strict=True))
        / sum(steps)
        for name in ("tokens", "flops", "paper_flops", "six_n")
    }


@pytest.mark.parametrize("kind", ["flops", "tokens", "seconds"])
def test_stages_have_the_steps_that_their_shares_of_the_budget_pay_for(
    kind: Literal["flops", "tokens", "seconds"],
) -> None:
    trial = trial_of(TwoStageConfig(kind="two_stage", switch=0.2), kind)
    costs = [step_cost(trial, updates) for updates in (GENERATOR, DISCRIMINATOR)]
    units = [cost.flops if kind == "flops" else cost.tokens for cost in costs]
    steps = [share / unit for share, unit in zip((0.2, 0.8), units, strict=True)]
    assert_equal(mean_cost(trial), averages(costs, steps))


@pytest.mark.parametrize("kind", ["flops", "tokens"])
def test_networks_that_take_turns_have_equally_many_steps(kind: Literal["flops", "tokens"]) -> None:
    trial = trial_of(ALTERNATION, kind)
    costs = [step_cost(trial, updates) for updates in (GENERATOR, DISCRIMINATOR)]
    assert_equal(mean_cost(trial), averages(costs, [1, 1]))


def test_growing_windows_have_the_steps_that_their_tokens_pay_for() -> None:
    """Seven windows of 8 positions replace three of 20 in the first 60 % of the tokens."""
    windows = GrowingWindows(kind="growing", start=8, until=0.6)
    trial = trial_of(MlmConfig(kind="mlm"), "tokens", windows=windows)
    costs = [step_cost(trial, progress=progress) for progress in (0.0, 0.8)]
    assert [cost.tokens for cost in costs] == [56, 60]
    assert_equal(mean_cost(trial), averages(costs, [0.6 / 56, 0.4 / 60]))


def test_ramp_of_the_batch_has_the_steps_that_its_tokens_pay_for() -> None:
    """The batch from 2 to 5 is 2 and 5 in a sixth of the run each, 3 and 4 in a third each."""
    trial = trial_of(MlmConfig(kind="mlm"), "tokens", batch=CountRamp(start=2, end=5))
    costs = [step_cost(trial, progress=progress) for progress in (0.0, 1 / 3, 2 / 3, 1.0)]
    assert [cost.tokens for cost in costs] == [40, 60, 80, 100]
    steps = [(1 / 6) / 40, (1 / 3) / 60, (1 / 3) / 80, (1 / 6) / 100]
    assert_equal(mean_cost(trial), averages(costs, steps), rel=3e-3)


def test_setting_without_compute_does_not_change_the_mean_cost() -> None:
    constant, ramp = (
        trial_of(ElectraConfig(kind="electra", disc_weight=weight))
        for weight in (50.0, Ramp(start=50.0, end=5.0))
    )
    assert mean_cost(ramp) == mean_cost(constant)


FALLING = ProbabilityRamp(start=0.9, end=0.1)


@pytest.mark.parametrize(
    "objective",
    [
        ElectraConfig(kind="electra", mask_prob=FALLING),
        Uneven(kind="adversarial", mask_prob=FALLING),
    ],
    ids=["electra", "uneven"],
)
def test_steps_are_as_dense_as_the_budget_divided_by_their_mean_cost(
    objective: AnyObjectiveConfig,
) -> None:
    """At progress p a step costs m(p) on average, and 1 / m(p) steps are taken."""
    trial = trial_of(objective, data=DataConfig(vocab=3_000, length=200))
    shares = objective.phase_shares()

    def at(progress: float, unit: Callable[[Cost], int]) -> float:
        return sum(unit(step_cost(trial, one, progress)) * share for one, share in shares.items())

    grid = (np.arange(600) + 0.5) / 600
    honest = np.array([at(p, lambda cost: cost.flops) for p in grid])
    paper = np.array([at(p, lambda cost: cost.paper_flops) for p in grid])
    steps = (1 / honest).mean()
    expected = {"flops": 1 / steps, "paper_flops": (paper / honest).mean() / steps}
    assert_equal(mean_cost(trial), expected, rel=5e-4)
