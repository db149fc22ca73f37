"""Properties of objectives that the cost, the training loop, the loader and the export read."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.metrics import Network
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.base import Head, NetworkPass
from lab.config.objectives.electra import AuxiliaryMlmConfig, Electra15Config, ElectraConfig
from lab.config.objectives.generators import (
    AnyGeneratorConfig,
    FrozenGeneratorConfig,
    SamplingConfig,
)
from lab.config.objectives.masking import BERT, InputShares, Masking
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.objectives.update_rules import (
    AlternationConfig,
    EpochAlternationConfig,
    ReinforceConfig,
)
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import Ramp

ALL, GENERATOR, DISCRIMINATOR = (
    UpdatedNetworks.ALL,
    UpdatedNetworks.GENERATOR,
    UpdatedNetworks.DISCRIMINATOR,
)
ENCODER = EncoderConfig(layers=4, hidden=24, ffn=96, heads=2, embedding=16, dropout=0.1)
NARROW = replace(ENCODER, hidden=12, ffn=48, heads=1)  # half of the width, the default
SLOTS: Head = "vocabulary_at_slots"
EVERYWHERE: Head = "vocabulary_at_all_tokens"
DETECTION: Head = "detection"

ELECTRA = ElectraConfig(kind="electra")
MLM = MlmConfig(kind="mlm")
RANDOM = RandomReplacementConfig(kind="random")
TWO_STAGE = TwoStageConfig(kind="two_stage")
ADVERSARIAL = AdversarialConfig(kind="adversarial")
ALTERNATION = replace(ADVERSARIAL, rule=AlternationConfig(kind="alternation", steps=3))
FROZEN = FrozenGeneratorConfig(
    kind="frozen", init_from=FromMlmRun(kind="mlm", budget=Budget(kind="flops", amount=1e6))
)
WITH_FROZEN = ElectraConfig(kind="electra", sharing="none", generator=FROZEN)
KINDS: tuple[AnyObjectiveConfig, ...] = (
    ELECTRA,
    Electra15Config(kind="electra_15"),
    ReplaceMlmConfig(kind="replace_mlm"),
    AllTokensMlmConfig(kind="all_tokens_mlm"),
    MLM,
    TWO_STAGE,
    ADVERSARIAL,
    RANDOM,
)
DETECTS: frozenset[Network] = frozenset({"generator", "discriminator"})
PREDICTS: frozenset[Network] = frozenset({"generator", "predictor"})


def by_kind(read: Callable[[Any], object]) -> dict[str, object]:
    return {objective.kind: read(objective) for objective in KINDS}


def test_a_search_space_can_name_each_kind_and_a_pass_has_one_of_the_heads() -> None:
    assert {type(objective) for objective in KINDS} == set(get_args(AnyObjectiveConfig))
    assert set(get_args(Head)) == {SLOTS, EVERYWHERE, DETECTION}


def test_each_kind_names_its_networks() -> None:
    assert by_kind(lambda objective: objective.networks) == {
        "electra": DETECTS,
        "electra_15": DETECTS,
        "replace_mlm": PREDICTS,
        "all_tokens_mlm": PREDICTS,
        "mlm": {"predictor"},
        "two_stage": DETECTS,
        "adversarial": DETECTS,
        "random": {"discriminator"},
    }


def test_two_stage_alone_divides_the_budget_and_starts_from_its_own_weights() -> None:
    kinds = by_kind(lambda one: (one.staged, isinstance(one.starts_from_scratch, str)))
    assert kinds == by_kind(lambda one: (one is TWO_STAGE, True))
    reasons = by_kind(lambda one: bool(one.starts_from_scratch))
    assert reasons == by_kind(lambda one: one is TWO_STAGE)


def test_electra_15_alone_takes_the_loss_at_the_chosen_tokens() -> None:
    electra_15 = Electra15Config(kind="electra_15")
    detecting = {one.kind: one.loss_at_all_tokens for one in (ELECTRA, electra_15, ADVERSARIAL)}
    assert detecting == {"electra": True, "electra_15": False, "adversarial": True}


def test_defaults_are_those_of_the_paper() -> None:
    assert by_kind(lambda one: one.mask_prob) == dict.fromkeys(by_kind(id), 0.15)
    assert by_kind(lambda one: one.masking) == dict.fromkeys(by_kind(id), "paper")
    assert (ELECTRA.disc_weight, ELECTRA.gen_weight, ELECTRA.sharing) == (50.0, 1.0, "tokens")
    assert (ELECTRA.auxiliary, AuxiliaryMlmConfig(kind="mlm").weight) == (None, 1.0)
    sampling = ELECTRA.sampling
    assert (sampling.temperature, sampling.dropout, sampling.disallow_correct) == (1.0, True, False)
    assert ELECTRA.generator == GeneratorConfig(width=0.5, depth=1.0)
    assert ReplaceMlmConfig(kind="replace_mlm").mlm_weight == 1.0
    adversarial = AdversarialConfig(kind="adversarial")
    assert (adversarial.adversarial_weight, adversarial.reward) == (1.0, "own_token")
    assert adversarial.rule == ReinforceConfig(kind="reinforce")
    assert (TWO_STAGE.switch, RANDOM.replacement_distribution) == (0.5, "unigram")
    rules = AlternationConfig(kind="alternation"), EpochAlternationConfig(kind="epoch_alternation")
    assert (rules[0].steps, rules[1].epochs) == (1, 1)
    assert {rule.first for rule in rules} == {"discriminator"}


def test_shape_of_the_generator() -> None:
    shapes = by_kind(lambda one: one.generator_shape(ENCODER))
    expected: dict[str, object] = dict.fromkeys(shapes, NARROW)
    assert shapes == expected | {"mlm": None, "random": None, "two_stage": ENCODER}


def test_encoders_that_share_all_weights_have_one_shape() -> None:
    equal = replace(ELECTRA, sharing="all", generator=GeneratorConfig(width=1.0))
    assert equal.generator_shape(ENCODER) == ENCODER
    with pytest.raises(ValueError, match="sharing all requires"):
        replace(ELECTRA, sharing="all").generator_shape(ENCODER)
    assert replace(ELECTRA, sharing="none").generator_shape(ENCODER) == NARROW


@pytest.mark.parametrize(
    ("sharing", "table", "encoders"),
    [("none", False, False), ("tokens", True, False), ("all", False, True), ("gdes", False, False)],
)
def test_sharing_says_what_both_networks_have_in_common(
    sharing: Any, table: bool, encoders: bool
) -> None:
    objective = replace(ELECTRA, sharing=sharing)
    assert (objective.shares_table, objective.shares_encoders) == (table, encoders)


@pytest.mark.parametrize("objective", [MLM, RANDOM, TWO_STAGE], ids=lambda one: one.kind)
def test_objectives_without_a_joint_generator_share_and_freeze_nothing(objective: Any) -> None:
    common = (objective.shares_table, objective.shares_encoders, objective.frozen_generator)
    assert common == (False, False, False)


def test_frozen_generator_shares_nothing_and_has_no_loss() -> None:
    assert WITH_FROZEN.frozen_generator
    assert not ELECTRA.frozen_generator
    with pytest.raises(ValueError, match="sharing must be none, not gdes"):
        replace(WITH_FROZEN, sharing="gdes")
    with pytest.raises(ValueError, match="gen_weight: must be omitted"):
        replace(WITH_FROZEN, gen_weight=2.0)
    assert replace(ELECTRA, gen_weight=2.0, sharing="gdes").gen_weight == 2.0


def test_adversarial_generator_is_trained_and_sampled_as_it_is_trained() -> None:
    with pytest.raises(ValueError, match="cannot be frozen"):
        replace(ADVERSARIAL, sharing="none", generator=FROZEN)
    with pytest.raises(ValueError, match="sharing must be none, not tokens"):
        replace(ADVERSARIAL, generator=FROZEN)  # the checks of all joint objectives apply, too
    with pytest.raises(ValueError, match=r"sampling\.dropout must be true"):
        replace(ADVERSARIAL, sampling=SamplingConfig(dropout=False))


def test_export_omits_the_heads_that_transformers_does_not_have() -> None:
    omitted = by_kind(lambda one: bool(one.not_exported))
    assert omitted == by_kind(lambda one: one.kind == "all_tokens_mlm")
    assert by_kind(lambda one: type(one.not_exported)) == dict.fromkeys(omitted, str)
    auxiliary = replace(ELECTRA, auxiliary=AuxiliaryMlmConfig(kind="mlm"))
    assert "auxiliary" in auxiliary.not_exported


def test_masking_of_an_initializing_mlm_run_is_that_of_the_trial() -> None:
    assert replace(MLM, masking="bert").mlm_masking == "bert"
    assert replace(ELECTRA, masking=BERT).mlm_masking == BERT
    found = [replace(RANDOM, masking=each).mlm_masking for each in ("paper", "code", "bernoulli")]
    assert found == ["paper", "code", "paper"]  # `bernoulli` is no masking of mlm


def test_shares_of_the_input_add_up_to_one() -> None:
    assert (BERT.mask, BERT.random) == (0.8, 0.1)
    assert BERT.keep == pytest.approx(0.1)
    assert InputShares(mask=0.7, random=0.3).keep == pytest.approx(0.0)
    assert InputShares(mask=0.9, random=0.1 + 1e-10).keep == 0.0
    with pytest.raises(ValueError, match=r"at most 1, not 1\.1"):
        InputShares(mask=0.8, random=0.3)


# Validation: the alternative that an input means.


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"width": 0.25}, GeneratorConfig(width=0.25)),
        ({"kind": "frozen", "init_from": {"kind": "trial", "name": "abcd"}},
         FrozenGeneratorConfig(kind="frozen", init_from=FromTrial(kind="trial", name="abcd"))),
        (GeneratorConfig(width=0.25), GeneratorConfig(width=0.25)),
        (FROZEN, FROZEN),
    ],
)  # fmt: skip
def test_generator_with_a_kind_is_a_frozen_one(raw: object, expected: object) -> None:
    found: object = TypeAdapter(AnyGeneratorConfig).validate_python(raw)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("code", "code"),
        ({"mask": 0.8, "random": 0.1}, BERT),
        (BERT, BERT),
    ],
)
def test_mapping_of_the_masking_is_shares(raw: object, expected: object) -> None:
    assert TypeAdapter[Any](Masking).validate_python(raw) == expected


@pytest.mark.parametrize(
    ("kind", "raw", "location"),
    [
        (AnyGeneratorConfig, {"depth": 0}, ("GeneratorConfig", "depth")),
        (AnyGeneratorConfig, {"kind": "frozen"}, ("FrozenGeneratorConfig", "init_from")),
        (Masking, "other", ("a masking",)),
        (Masking, {"mask": 0.8}, ("shares", "random")),
    ],
)
def test_error_is_about_the_alternative_that_was_meant(
    kind: Any, raw: object, location: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(raw)
    assert [error["loc"] for error in caught.value.errors()] == [location]


# Passes of a step.


def test_every_step_of_a_single_network_updates_it() -> None:
    for updates in UpdatedNetworks:
        assert MLM.passes(ENCODER, updates) == (NetworkPass(ENCODER, SLOTS, True),)
        assert RANDOM.passes(ENCODER, updates) == (NetworkPass(ENCODER, DETECTION, True),)


@pytest.mark.parametrize(
    ("objective", "head"),
    [
        (ELECTRA, DETECTION),
        (ReplaceMlmConfig(kind="replace_mlm"), SLOTS),
        (AllTokensMlmConfig(kind="all_tokens_mlm"), EVERYWHERE),
    ],
    ids=["electra", "replace_mlm", "all_tokens_mlm"],
)
def test_joint_step_runs_the_generator_and_then_the_encoder(objective: Any, head: Any) -> None:
    trained = {ALL: (True, True), GENERATOR: (True, False), DISCRIMINATOR: (False, True)}
    for updates, (of_generator, of_encoder) in trained.items():
        assert objective.passes(ENCODER, updates) == (
            NetworkPass(NARROW, SLOTS, of_generator, "generator"),
            NetworkPass(ENCODER, head, of_encoder, "encoder"),
        )


def test_sampling_without_dropout_runs_the_generator_twice_where_it_has_dropout() -> None:
    def flags(objective: Any, dropout: float = 0.1, updates: UpdatedNetworks = ALL) -> list[bool]:
        passes = objective.passes(replace(ENCODER, dropout=dropout), updates)
        return [one.updated for one in passes if one.network == "generator"]

    without = SamplingConfig(dropout=False)
    assert flags(ELECTRA) == [True]
    assert flags(replace(ELECTRA, sampling=without)) == [True, False]
    assert flags(replace(ELECTRA, sampling=without), dropout=0.0) == [True]
    assert flags(WITH_FROZEN) == flags(replace(WITH_FROZEN, sampling=without)) == [False]
    for updates, expected in ((GENERATOR, [True]), (DISCRIMINATOR, [False])):
        assert flags(TWO_STAGE, updates=updates) == expected
    two_stage = replace(TWO_STAGE, sampling=without)
    assert flags(two_stage, updates=GENERATOR) == [True]
    assert flags(two_stage, updates=DISCRIMINATOR) == [False, False]
    assert flags(two_stage, dropout=0.0, updates=DISCRIMINATOR) == [False]


def test_second_stage_runs_both_networks() -> None:
    assert TWO_STAGE.passes(ENCODER, GENERATOR) == (NetworkPass(ENCODER, SLOTS, True, "generator"),)
    assert TWO_STAGE.passes(ENCODER, DISCRIMINATOR) == (
        NetworkPass(ENCODER, SLOTS, False, "generator"),
        NetworkPass(ENCODER, DETECTION, True),
    )


def test_auxiliary_loss_is_one_more_pass_of_the_encoder_where_it_is_trained() -> None:
    auxiliary = replace(ELECTRA, auxiliary=AuxiliaryMlmConfig(kind="mlm"))
    for updates in UpdatedNetworks:
        more = auxiliary.passes(ENCODER, updates)[len(ELECTRA.passes(ENCODER, updates)) :]
        assert more == (() if updates is GENERATOR else (NetworkPass(ENCODER, SLOTS, True),))


@pytest.mark.parametrize("updates", UpdatedNetworks)
def test_baseline_of_reinforce_costs_four_flops_a_weight_and_slot(updates: UpdatedNetworks) -> None:
    expected = 0 if updates is DISCRIMINATOR else 2 * 2 * 12 * 7
    assert ADVERSARIAL.extra_flops(ENCODER, updates, 7) == expected
    assert replace(ADVERSARIAL, adversarial_weight=0.0).extra_flops(ENCODER, updates, 7) == 0
    assert ELECTRA.extra_flops(ENCODER, updates, 7) == 0


# Phases and varying settings.


def test_minimum_steps_update_each_network() -> None:
    steps = by_kind(lambda one: one.minimum_steps())
    assert steps == dict.fromkeys(steps, 1) | {"two_stage": 6}
    found = [replace(TWO_STAGE, switch=switch).minimum_steps() for switch in (0.25, 0.875, 0.7)]
    assert found == [12, 24, 10]
    assert ALTERNATION.minimum_steps() == 6
    assert replace(ALTERNATION, adversarial_weight=0.0).minimum_steps() == 1
    epochs = EpochAlternationConfig(kind="epoch_alternation", epochs=5)
    assert replace(ADVERSARIAL, rule=epochs).minimum_steps() == 2


def test_minimum_epochs_are_those_of_an_alternation_by_epochs() -> None:
    epochs = EpochAlternationConfig(kind="epoch_alternation", epochs=5)
    assert replace(ADVERSARIAL, rule=epochs).minimum_epochs() == 5
    assert ALTERNATION.minimum_epochs() == 0
    assert by_kind(lambda one: one.minimum_epochs()) == dict.fromkeys(by_kind(id), 0)


def test_settings_that_an_objective_does_not_have_are_one() -> None:
    assert by_kind(lambda one: one.disc_weight_at(0.5)) == {
        "electra": 50.0, "electra_15": 50.0, "replace_mlm": 1.0, "all_tokens_mlm": 1.0,
        "mlm": 1.0, "two_stage": 1.0, "adversarial": 50.0, "random": 1.0,
    }  # fmt: skip
    assert by_kind(lambda one: one.temperature_at(0.5)) == dict.fromkeys(by_kind(id), 1.0)


def test_ramps_of_temperature_and_weight_follow_the_progress() -> None:
    falling = SamplingConfig(temperature=Ramp(start=2.0, end=1.0))
    for objective in (replace(ELECTRA, sampling=falling), replace(TWO_STAGE, sampling=falling)):
        assert [objective.temperature_at(p) for p in (0.0, 0.25, 1.0)] == [2.0, 1.75, 1.0]
    weighted = replace(ELECTRA, disc_weight=Ramp(start=10.0, end=50.0))
    assert [weighted.disc_weight_at(p) for p in (0.0, 0.25, 1.0)] == [10.0, 20.0, 50.0]
