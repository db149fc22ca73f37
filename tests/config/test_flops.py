"""The analytic FLOP counts equal the paper's figures and PyTorch's counter."""

import itertools
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from members import Weightless
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import ElectraConfig as HfElectraConfig
from transformers import ElectraForPreTraining, ElectraModel
from transformers.models.electra.modeling_electra import ElectraGeneratorPredictions

from lab.config.architecture import SIZES, EncoderConfig, GeneratorConfig
from lab.config.budget import Budget, Cost, Spent
from lab.config.costs.paper_flops import paper_step
from lab.config.data import DataConfig
from lab.config.flops import masked_slots, mean_cost, step_cost
from lab.config.init_from import FromMlmRun
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import AuxiliaryMlmConfig, Electra15Config, ElectraConfig
from lab.config.objectives.generators import FrozenGeneratorConfig, SamplingConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.objectives.update_rules import AlternationConfig, EpochAlternationConfig
from lab.config.optimizer import MuonConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import CountRamp, ProbabilityRamp
from lab.config.schedules.window_growth import GrowingWindows
from lab.config.trial import Trial
from lab.data.batches import Batch, Batches
from lab.data.vocabulary import FIRST_WORD
from lab.training import optimizer
from lab.training.gradients import Gradients
from lab.training.loop import train_steps
from lab.training.objectives import build_objective

PAPER_VOCAB = 30_522
RATIOS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
# A shallow version of size small, with its embedding projection from 128 to 256.
SHALLOW = EncoderConfig(layers=2, hidden=256, ffn=1024, heads=4, embedding=128)
SHAPES = {"tiny": SIZES["tiny"], "shallow": SHALLOW, "mini": SIZES["mini"]}


def trial(
    encoder: EncoderConfig, width: float = 0.5, *, vocab: int, length: int, batch: int
) -> Trial:
    return Trial(
        encoder=encoder,
        objective=ElectraConfig(kind="electra", generator=GeneratorConfig(width=width)),
        data=DataConfig(vocab=vocab, length=length),
        batch=batch,
        budget=Budget(kind="flops", amount=1e18),
    )


def paper_small(width: float) -> Cost:
    return step_cost(trial(SIZES["small"], width, vocab=PAPER_VOCAB, length=128, batch=128))


def paper_electra(encoder: EncoderConfig, width: float, length: int, batch: int) -> float:
    generator = GeneratorConfig(width=width).derive_shape(encoder)
    return sum(
        paper_step(network, head, length=length, vocab=PAPER_VOCAB, batch=batch)
        for network, head in ((encoder, "detection"), (generator, "vocabulary_at_slots"))
    )


# Figures printed by flops_computation.py; the numbers of steps are those of its MODEL_FLOPS table.
def test_paper_flops_of_bert_small_are_the_official_figure() -> None:
    step = paper_step(
        SIZES["small"], "vocabulary_at_slots", length=128, vocab=PAPER_VOCAB, batch=128
    )
    assert step * 1_450_000 == pytest.approx(1.4187399146496e18, rel=1e-9)


def test_paper_flops_of_electra_small_are_the_official_figure() -> None:
    step = paper_electra(SIZES["small"], 1 / 4, 128, 128)
    assert step * 1_000_000 == pytest.approx(1.293743798272e18, rel=1e-9)


def test_paper_flops_of_bert_base_are_the_official_figure() -> None:
    step = paper_step(
        SIZES["base"], "vocabulary_at_slots", length=512, vocab=PAPER_VOCAB, batch=256
    )
    assert step * 1_000_000 == pytest.approx(6.428335104e19, rel=1e-9)


def test_paper_flops_of_electra_base_are_the_official_figure() -> None:
    step = paper_electra(SIZES["base"], 1 / 3, 512, 256)
    assert step * 766_000 == pytest.approx(6.424541834277683e19, rel=1e-9)


def test_paper_flops_of_a_step_are_those_of_both_networks() -> None:
    assert paper_small(1 / 4).paper_flops == pytest.approx(
        paper_electra(SIZES["small"], 1 / 4, 128, 128), rel=1e-9
    )


# The expected ratios include element-wise work; the honest count omits it and is within 1 %.
def test_honest_cost_of_a_small_step_grows_with_the_generator_as_expected() -> None:
    steps = [paper_small(ratio).flops for ratio in RATIOS]
    relative = [step / steps[1] for step in steps]
    assert relative == pytest.approx([0.953, 1, 1.167, 1.435, 1.801], rel=0.01)


def test_paper_cost_of_a_small_step_grows_with_the_generator_as_expected() -> None:
    steps = [paper_small(ratio).paper_flops for ratio in RATIOS]
    relative = [step / steps[1] for step in steps]
    assert relative == pytest.approx([0.972, 1, 1.101, 1.263, 1.484], abs=5e-4)


def test_honest_cost_of_electra_small_is_slightly_below_the_count_with_element_wise_work() -> None:
    cost = paper_small(1 / 4)
    total = cost.flops * 1_000_000
    assert 0.97 * 1.173e18 < total < 1.173e18
    assert cost.tokens == 128 * 128


class Reference(nn.Module):
    """ELECTRA from the modules of transformers: shared embeddings, head at masked positions."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        assert isinstance(trial.objective, ElectraConfig)
        narrow = config(trial.objective.generator.derive_shape(trial.encoder), trial)
        self.generator = ElectraModel(narrow)
        self.head = ElectraGeneratorPredictions(narrow)
        self.discriminator = ElectraForPreTraining(config(trial.encoder, trial))
        self.generator.embeddings = self.discriminator.electra.embeddings

    def forward(self, ids_BT: torch.Tensor, slots_BK: torch.Tensor) -> torch.Tensor:
        hidden_BTH = self.generator(ids_BT).last_hidden_state
        index_BKH = slots_BK.unsqueeze(-1).expand(-1, -1, hidden_BTH.shape[-1])
        table_VE = self.generator.embeddings.word_embeddings.weight
        logits_BKV = self.head(hidden_BTH.gather(1, index_BKH)) @ table_VE.T
        return logits_BKV.mean() + self.discriminator(ids_BT).logits.mean()


def config(encoder: EncoderConfig, trial: Trial) -> HfElectraConfig:
    return HfElectraConfig(
        vocab_size=trial.data.vocab,
        embedding_size=encoder.embedding,
        hidden_size=encoder.hidden,
        num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.heads,
        intermediate_size=encoder.ffn,
        max_position_embeddings=trial.data.length,
        attn_implementation="eager",
    )


# The counts are equal, because both consist of matrix products only. Attention is eager because the
# counter does not count the fused kernel that sdpa runs on a CPU without dropout (18 % here).
@pytest.mark.parametrize("length", [32, 128])
@pytest.mark.parametrize("width", [0.25, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_honest_count_equals_pytorchs_counter(shape: str, width: float, length: int) -> None:
    counted = trial(SHAPES[shape], width, vocab=512, length=length, batch=1)
    model = Reference(counted)
    ids_BT = torch.randint(counted.data.vocab, (counted.batch, length))
    slots_BK = torch.arange(masked_slots(length, 0.15)).expand(counted.batch, -1)
    with FlopCounterMode(display=False) as counter:
        model(ids_BT, slots_BK).backward()
    assert step_cost(counted).flops == counter.get_total_flops()


def test_small_has_the_parameters_of_the_paper() -> None:
    small = trial(SIZES["small"], 1 / 4, vocab=PAPER_VOCAB, length=512, batch=1)
    with torch.device("meta"):
        model = Reference(small)
    shared = set(model.discriminator.parameters())
    generator = [p for part in (model.generator, model.head) for p in part.parameters()]
    vocabulary_bias = PAPER_VOCAB
    assert sum(p.numel() for p in shared) == 13_549_057
    assert sum(p.numel() for p in generator if p not in shared) + vocabulary_bias == pytest.approx(
        0.65e6, rel=0.01
    )


def test_six_n_counts_the_weights_without_tables_and_vocabulary_head() -> None:
    small = trial(SIZES["small"], 1 / 4, vocab=PAPER_VOCAB, length=128, batch=1)
    with torch.device("meta"):
        model = Reference(small)
    bodies = (model.generator, model.discriminator.electra)
    parts = [
        part
        for body in bodies
        for part in (body.encoder, getattr(body, "embeddings_project", nn.Identity()))
    ]
    weights = sum(p.numel() for part in parts for p in part.parameters())
    assert step_cost(small).six_n == 6 * weights * 128


# `flops` and `paper_flops` are rounded once per step, so they are linear up to half a FLOP a step.
@given(
    batch=st.integers(1, 4_096), width=st.sampled_from(RATIOS), length=st.sampled_from([32, 128])
)
@settings(deadline=None)
def test_every_count_is_linear_in_the_batch(batch: int, width: float, length: int) -> None:
    def cost(batch: int) -> Cost:
        return step_cost(trial(SIZES["small"], width, vocab=2_048, length=length, batch=batch))

    one, many = cost(1), cost(batch)
    assert many.tokens == batch * one.tokens
    assert many.six_n == batch * one.six_n
    assert many.flops == pytest.approx(batch * one.flops, abs=batch)
    assert many.paper_flops == pytest.approx(batch * one.paper_flops, abs=batch)


@given(length=st.integers(8, 4_096), mask_prob=st.floats(0.001, 0.99))
@settings(deadline=None)
def test_masked_slots_fit_the_window(length: int, mask_prob: float) -> None:
    assert 1 <= masked_slots(length, mask_prob) <= length


def test_window_of_128_has_19_masked_positions() -> None:
    assert masked_slots(128, 0.15) == 19


def test_mlm_costs_less_than_electra_on_the_same_encoder() -> None:
    electra = trial(SIZES["tiny"], vocab=2_048, length=32, batch=8)
    mlm = Trial(
        encoder=electra.encoder,
        objective=MlmConfig(kind="mlm"),
        data=electra.data,
        batch=8,
        budget=electra.budget,
    )
    assert step_cost(mlm).flops < step_cost(electra).flops
    assert step_cost(mlm).tokens == step_cost(electra).tokens


# The lab's own objectives, in every phase. The encoder is small, but it has an embedding projection
# in both networks, and its dimensions are all different, so that no two can be confused.
ENCODER = EncoderConfig(layers=2, hidden=24, ffn=96, heads=2, embedding=16, dropout=0, norm="pre")
EQUAL_SIZE = GeneratorConfig(width=1.0, depth=1.0)
FROZEN = FrozenGeneratorConfig(
    kind="frozen", init_from=FromMlmRun(kind="mlm", budget=Budget(kind="flops", amount=1e6))
)
AUXILIARY = AuxiliaryMlmConfig(kind="mlm")
OBJECTIVES: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra"),
    "electra, none": ElectraConfig(kind="electra", sharing="none"),
    "electra, all": ElectraConfig(kind="electra", sharing="all", generator=EQUAL_SIZE),
    "electra, gdes": ElectraConfig(kind="electra", sharing="gdes"),
    "electra, one layer": ElectraConfig(kind="electra", generator=GeneratorConfig(depth=0.5)),
    "electra, never correct": ElectraConfig(
        kind="electra", sampling=SamplingConfig(temperature=2.0, disallow_correct=True)
    ),
    "electra, frozen": ElectraConfig(kind="electra", sharing="none", generator=FROZEN),
    "electra, code": ElectraConfig(kind="electra", masking="code"),
    "electra, auxiliary": ElectraConfig(kind="electra", masking="bert", auxiliary=AUXILIARY),
    "electra, all, auxiliary": ElectraConfig(
        kind="electra", sharing="all", generator=EQUAL_SIZE, auxiliary=AUXILIARY
    ),
    "electra_15": Electra15Config(kind="electra_15"),
    "replace_mlm": ReplaceMlmConfig(kind="replace_mlm"),
    "replace_mlm, gdes": ReplaceMlmConfig(kind="replace_mlm", sharing="gdes"),
    "all_tokens_mlm": AllTokensMlmConfig(kind="all_tokens_mlm", mask_prob=0.3),
    "all_tokens_mlm, gdes": AllTokensMlmConfig(kind="all_tokens_mlm", sharing="gdes"),
    "all_tokens_mlm, frozen": AllTokensMlmConfig(
        kind="all_tokens_mlm", sharing="none", generator=FROZEN
    ),
    "mlm": MlmConfig(kind="mlm", mask_prob=0.4),
    "mlm, bert": MlmConfig(kind="mlm", masking="bert"),
    "two_stage": TwoStageConfig(kind="two_stage"),
    "adversarial": AdversarialConfig(kind="adversarial"),
    "adversarial, none": AdversarialConfig(kind="adversarial", sharing="none"),
    "adversarial, half": AdversarialConfig(kind="adversarial", adversarial_weight=0.5),
    "adversarial, no game": AdversarialConfig(kind="adversarial", adversarial_weight=0.0),
    "alternation": AdversarialConfig(
        kind="adversarial", sharing="none", rule=AlternationConfig(kind="alternation")
    ),
    "alternation, all, auxiliary": AdversarialConfig(
        kind="adversarial",
        sharing="all",
        generator=EQUAL_SIZE,
        reward="all_tokens",
        rule=AlternationConfig(kind="alternation", first="generator"),
        auxiliary=AUXILIARY,
    ),
    "random": RandomReplacementConfig(kind="random"),
    "random, bernoulli": RandomReplacementConfig(kind="random", masking="bernoulli"),
}
PHASES = [
    (name, updates) for name, config in OBJECTIVES.items() for updates in config.phase_shares()
]
every_phase = pytest.mark.parametrize(
    ("objective", "updates"), PHASES, ids=[f"{name}-{updates.value}" for name, updates in PHASES]
)


def trial_of(
    objective: AnyObjectiveConfig, encoder: EncoderConfig = ENCODER, **budget: Any
) -> Trial:
    return Trial(
        encoder=encoder,
        objective=objective,
        data=DataConfig(vocab=300, length=20),
        batch=3,
        budget=Budget(**budget) if budget else Budget(kind="tokens", amount=1e6),
    )


def counted(trial: Trial, updates: UpdatedNetworks, progress: float = 0.0) -> int:
    """Return PyTorch's count of the forward and backward FLOPs of a step."""
    objective = build_objective(trial, torch.ones(trial.data.vocab, dtype=torch.int64))
    step_settings = trial.settings_at(progress)
    shape = (step_settings.batch, step_settings.length)
    words_BT = torch.randint(FIRST_WORD, trial.data.vocab, shape)
    objective.train().begin(updates, step_settings)
    # The counter does not count the fused kernel. In the math kernel attention is matrix products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        batch = Batch(words_BT, torch.arange(step_settings.batch))
        objective(batch, 0, updates).total.backward()
    return counter.get_total_flops()


@every_phase
def test_honest_count_of_every_objective_in_every_phase_equals_pytorchs_counter(
    objective: str, updates: UpdatedNetworks
) -> None:
    trial = trial_of(OBJECTIVES[objective])
    assert step_cost(trial, updates).flops == counted(trial, updates)


VARYING = {
    "windows": GrowingWindows(kind="growing", start=8, until=0.6),
    "batch": CountRamp(start=2, end=5),
}
FALLING_MASK_PROB = ProbabilityRamp(start=0.4, end=0.15)


@every_phase
def test_honest_count_equals_pytorchs_counter_at_every_progress_of_varying_settings(
    objective: str, updates: UpdatedNetworks
) -> None:
    varying = replace(
        trial_of(replace(OBJECTIVES[objective], mask_prob=FALLING_MASK_PROB)), **VARYING
    )
    costs = [step_cost(varying, updates, progress).flops for progress in (0.0, 0.59, 0.6, 1.0)]
    assert len(set(costs)) == 4
    # Short and full windows, each with other settings than at the start.
    assert costs[1::2] == [counted(varying, updates, progress) for progress in (0.59, 1.0)]


@pytest.mark.parametrize("encoder", [replace(ENCODER, embedding=24), replace(ENCODER, norm="post")])
@pytest.mark.parametrize("objective", ["electra, none", "all_tokens_mlm", "mlm", "random"])
def test_honest_count_is_exact_without_a_projection_and_with_either_norm(
    objective: str, encoder: EncoderConfig
) -> None:
    trial = trial_of(OBJECTIVES[objective], encoder)
    assert step_cost(trial).flops == counted(trial, UpdatedNetworks.ALL)


def test_frozen_generator_costs_a_third_of_a_trained_one() -> None:
    """The forward pass is 2 of the 6 in 6N, and 1 of 3 in the honest count."""
    frozen, trained = OBJECTIVES["electra, frozen"], OBJECTIVES["electra, none"]
    narrow = trial_of(MlmConfig(kind="mlm"), GeneratorConfig().derive_shape(ENCODER))
    with_trained, with_frozen = step_cost(trial_of(trained)), step_cost(trial_of(frozen))
    assert 3 * (with_trained.flops - with_frozen.flops) == 2 * step_cost(narrow).flops
    assert 3 * (with_trained.six_n - with_frozen.six_n) == 2 * step_cost(narrow).six_n


WITHOUT_DROPOUT = SamplingConfig(dropout=False)
SAMPLERS: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra", sampling=WITHOUT_DROPOUT),
    "electra_15": Electra15Config(kind="electra_15", sampling=WITHOUT_DROPOUT),
    "replace_mlm": ReplaceMlmConfig(kind="replace_mlm", sampling=WITHOUT_DROPOUT),
    "all_tokens_mlm": AllTokensMlmConfig(kind="all_tokens_mlm", sampling=WITHOUT_DROPOUT),
    "two_stage": TwoStageConfig(kind="two_stage", sampling=WITHOUT_DROPOUT),
    "electra, frozen": ElectraConfig(
        kind="electra", sharing="none", generator=FROZEN, sampling=WITHOUT_DROPOUT
    ),
}
SAMPLER_PHASES = [
    (name, updates) for name, config in SAMPLERS.items() for updates in config.phase_shares()
]
every_sampler_phase = pytest.mark.parametrize(
    ("objective", "updates"),
    SAMPLER_PHASES,
    ids=[f"{name}-{updates.value}" for name, updates in SAMPLER_PHASES],
)


@every_sampler_phase
def test_honest_count_of_sampling_without_dropout_equals_pytorchs_counter(
    objective: str, updates: UpdatedNetworks
) -> None:
    trial = trial_of(SAMPLERS[objective], replace(ENCODER, dropout=0.1))
    assert step_cost(trial, updates).flops == counted(trial, updates)


@pytest.mark.parametrize("objective", ["electra", "electra_15", "replace_mlm", "all_tokens_mlm"])
def test_sampling_without_dropout_costs_one_more_forward_pass_of_the_generator(
    objective: str,
) -> None:
    separate, encoder = SAMPLERS[objective], replace(ENCODER, dropout=0.1)
    joint = replace(separate, sampling=SamplingConfig())
    generator = step_cost(trial_of(MlmConfig(kind="mlm"), GeneratorConfig().derive_shape(encoder)))
    costs = step_cost(trial_of(separate, encoder)), step_cost(trial_of(joint, encoder))
    # The cost of a generator that is trained includes its backward pass.
    assert 3 * (costs[0].flops - costs[1].flops) == generator.flops
    assert 3 * (costs[0].six_n - costs[1].six_n) == generator.six_n
    assert 2 * (costs[0].paper_flops - costs[1].paper_flops) == pytest.approx(
        generator.paper_flops, abs=4
    )
    # An encoder without dropout needs no second pass.
    assert step_cost(trial_of(separate)) == step_cost(trial_of(joint))


def test_auxiliary_loss_costs_an_mlm_step_of_the_encoder() -> None:
    costs = [
        step_cost(trial_of(objective))
        for objective in (
            OBJECTIVES["electra, auxiliary"],
            OBJECTIVES["electra"],
            MlmConfig(kind="mlm"),
        )
    ]
    with_auxiliary, without, mlm = costs
    assert with_auxiliary.flops == without.flops + mlm.flops
    assert with_auxiliary.six_n == without.six_n + mlm.six_n
    expected = without.paper_flops + mlm.paper_flops
    assert with_auxiliary.paper_flops == pytest.approx(expected, abs=1)


def test_alternation_has_no_backward_pass_of_the_frozen_network() -> None:
    trial = trial_of(OBJECTIVES["alternation"])
    both, generator, discriminator = (step_cost(trial, updates) for updates in UpdatedNetworks)
    # With weights G < D: (6 G + 2 D) + (2 G + 6 D) = 4/3 (6 G + 6 D).
    assert 3 * (generator.six_n + discriminator.six_n) == 4 * both.six_n
    assert generator.six_n < discriminator.six_n < both.six_n
    assert generator.flops < discriminator.flops < both.flops
    assert both.tokens == generator.tokens == discriminator.tokens


class Uncomputed(Gradients):
    """Gradients that are not computed: the loop only selects and counts its steps."""

    def compute(self, *_: object) -> dict[str, torch.Tensor]:
        return {}


def run(trial: Trial) -> tuple[Spent, list[UpdatedNetworks]]:
    """Return the totals of a training run, and the networks that each of its steps updated."""
    objective: Any = Weightless()
    objective.weight.grad = torch.zeros(())
    text = Batches(np.full((4, 8), FIRST_WORD, np.uint16), 0)
    batches = {data.length: text for data in trial.data_configs}
    ticks = itertools.count()
    steps = train_steps(
        Uncomputed(objective, batches, trial),
        optimizer.build_optimizer(objective, trial.optim),
        trial=trial,
        clock=lambda: float(next(ticks)),
    )
    *_, last = steps
    return last.spent, objective.learnt


WITHOUT_PHASES = [
    name
    for name, config in OBJECTIVES.items()
    if set(config.phase_shares()) == {UpdatedNetworks.ALL}
]
TINY = replace(SIZES["tiny"], dropout=0.1)
WITH_PHASES: dict[str, AnyObjectiveConfig] = {
    "two_stage": OBJECTIVES["two_stage"],
    "two_stage, early": TwoStageConfig(kind="two_stage", switch=0.2),
    "two_stage, late": TwoStageConfig(kind="two_stage", switch=0.75, sampling=WITHOUT_DROPOUT),
    "alternation": OBJECTIVES["alternation"],
    "alternation, narrow": AdversarialConfig(
        kind="adversarial",
        sharing="none",
        generator=GeneratorConfig(width=0.25, depth=0.5),
        rule=AlternationConfig(kind="alternation", steps=2),
    ),
    "generator first": AdversarialConfig(
        kind="adversarial", rule=AlternationConfig(kind="alternation", first="generator")
    ),
}


@pytest.mark.parametrize("objective", WITHOUT_PHASES)
def test_mean_cost_without_phases_is_the_cost_of_a_step(objective: str) -> None:
    trial = trial_of(OBJECTIVES[objective])
    assert mean_cost(trial) == step_cost(trial)


@pytest.mark.trains
@pytest.mark.parametrize("steps", [40, 41.3, 200.6])
@pytest.mark.parametrize("kind", ["flops", "tokens"])
@pytest.mark.parametrize("objective", WITH_PHASES)
def test_mean_cost_predicts_the_steps_of_a_run_with_phases_within_one_step(
    objective: str, kind: Literal["flops", "tokens"], steps: float
) -> None:
    unit = getattr(step_cost(trial_of(WITH_PHASES[objective], TINY)), kind)
    trial = trial_of(WITH_PHASES[objective], TINY, kind=kind, amount=steps * unit)
    spent, updated = run(trial)
    predicted = trial.budget.steps(mean_cost(trial))
    assert predicted is not None
    assert abs(spent.steps - predicted) <= 1
    mean = mean_cost(trial)
    for name in ("tokens", "flops", "paper_flops", "six_n"):
        per_step = getattr(spent, name) / spent.steps
        assert per_step == pytest.approx(getattr(mean, name), rel=1.5 / spent.steps), name
    costs = {updates: step_cost(trial, updates) for updates in set(updated)}
    assert spent.flops == sum(costs[updates].flops for updates in updated)


@pytest.mark.trains
def test_cost_of_a_run_that_alternates_by_epochs_is_the_sum_of_its_steps() -> None:
    """An epoch of the text of `run` has 4 windows of 20 tokens; a step reads one window."""
    config = AdversarialConfig(
        kind="adversarial", rule=EpochAlternationConfig(kind="epoch_alternation", epochs=2)
    )
    trial = replace(trial_of(config, TINY, kind="tokens", amount=20 * 20), batch=1)
    spent, updated = run(trial)
    one, other = UpdatedNetworks.DISCRIMINATOR, UpdatedNetworks.GENERATOR
    assert updated == [one] * 8 + [other] * 8 + [one] * 4
    assert spent.flops == sum(step_cost(trial, updates).flops for updates in updated)


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["flops", "tokens"])
@pytest.mark.parametrize("switch", [0.2, 0.5, 0.75])
def test_two_stages_divide_the_budget_at_the_switch(
    switch: float, kind: Literal["flops", "tokens"]
) -> None:
    config = TwoStageConfig(kind="two_stage", switch=switch)
    trial = trial_of(
        config, TINY, kind=kind, amount=200 * getattr(step_cost(trial_of(config)), kind)
    )
    _, updated = run(trial)
    first = updated.count(UpdatedNetworks.GENERATOR)
    assert updated == [UpdatedNetworks.GENERATOR] * first + [UpdatedNetworks.DISCRIMINATOR] * (
        len(updated) - first
    )
    one = getattr(step_cost(trial, UpdatedNetworks.GENERATOR), kind)
    assert 0 <= first * one - switch * trial.budget.amount < one


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["flops", "tokens"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_run_of_200_steps_of_every_objective_spends_its_budget_within_one_percent(
    objective: str, kind: Literal["flops", "tokens"]
) -> None:
    trial = trial_of(
        OBJECTIVES[objective], TINY, kind=kind, amount=1.0
    )  # mean_cost depends on the budget's kind
    amount = 200.37 * getattr(mean_cost(trial), kind)
    trial = replace(trial, budget=replace(trial.budget, amount=amount))
    spent, _ = run(trial)
    assert abs(spent.steps - 200) <= 1
    assert getattr(spent, kind) == pytest.approx(amount, rel=0.01)
    largest = max(
        getattr(step_cost(trial, updates), kind) for updates in OBJECTIVES[objective].phase_shares()
    )
    assert abs(getattr(spent, kind) - amount) <= largest / 2


@pytest.mark.trains
@pytest.mark.parametrize("width", [0.25, 1.0])
@pytest.mark.parametrize("sharing", ["tokens", "all", "none", "gdes"])
def test_cost_of_muons_products_equals_pytorchs_counter(
    width: float, sharing: Literal["none", "tokens", "all", "gdes"]
) -> None:
    if sharing == "all" and width < 1:
        pytest.skip("needs encoders of one size")
    with_adam = replace(
        trial(SIZES["nano"], width, vocab=400, length=16, batch=4),
        objective=ElectraConfig(
            kind="electra", generator=GeneratorConfig(width=width), sharing=sharing
        ),
    )
    with_muon = replace(with_adam, optim=MuonConfig(kind="muon"))
    objective = build_objective(with_muon, torch.ones(400))
    for parameter in objective.parameters():
        parameter.grad = torch.ones_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizer.build_optimizer(objective, with_muon.optim).step()
    difference = step_cost(with_muon).flops - step_cost(with_adam).flops
    assert difference == counter.get_total_flops()


@pytest.mark.trains
@every_phase
def test_cost_of_muon_covers_exactly_the_matrices_that_a_step_updates(
    objective: str, updates: UpdatedNetworks
) -> None:
    with_adam = trial_of(OBJECTIVES[objective])
    with_muon = replace(with_adam, optim=MuonConfig(kind="muon"))
    network = build_objective(with_muon, torch.ones(300, dtype=torch.int64))
    step_settings = with_muon.settings_at(0.0)
    network.train().begin(updates, step_settings)
    words_BT = torch.randint(FIRST_WORD, 300, (step_settings.batch, step_settings.length))
    batch = Batch(words_BT, torch.arange(step_settings.batch))
    network(batch, 0, updates).total.backward()
    with FlopCounterMode(display=False) as counter:
        optimizer.build_optimizer(network, with_muon.optim).step()
    difference = step_cost(with_muon, updates).flops - step_cost(with_adam, updates).flops
    assert difference == counter.get_total_flops() > 0


SCHEDULES: dict[str, dict[str, Any]] = {
    "windows": {"windows": VARYING["windows"]},
    "late windows": {"windows": GrowingWindows(kind="growing", start=16, until=0.9)},
    "more windows": {"batch": VARYING["batch"]},
    "fewer windows": {"batch": CountRamp(start=40, end=4)},
    "mask rate": {"mask_prob": FALLING_MASK_PROB},
    "all": {**VARYING, "mask_prob": FALLING_MASK_PROB},
}


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["flops", "tokens"])
@pytest.mark.parametrize("objective", ["electra", "all_tokens_mlm", "two_stage", "alternation"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_run_with_varying_settings_spends_its_budget_in_the_predicted_steps(
    schedule: str, objective: str, kind: Literal["flops", "tokens"]
) -> None:
    changes = dict(SCHEDULES[schedule])
    mask_prob = changes.pop("mask_prob", 0.15)
    trial = replace(trial_of(replace(OBJECTIVES[objective], mask_prob=mask_prob), TINY), **changes)
    trial = replace(trial, budget=Budget(kind=kind, amount=1.0))  # mean_cost uses its kind
    amount = 400.3 * getattr(mean_cost(trial), kind)
    trial = replace(trial, budget=replace(trial.budget, amount=amount))
    spent, _ = run(trial)
    assert spent.steps == pytest.approx(trial.budget.steps(mean_cost(trial)), abs=4)
    assert getattr(spent, kind) == pytest.approx(amount, rel=0.01)
    mean = mean_cost(trial)
    for name in ("tokens", "flops", "paper_flops", "six_n"):
        assert getattr(spent, name) / spent.steps == pytest.approx(getattr(mean, name), rel=0.01)
