"""Costs of a trial that are known before its training equal those of the networks themselves."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ElectraConfig, ElectraModel

from lab.config.budget import Spent
from lab.config.costs.constraints import Constraints, describe_violations, measure_trial
from lab.config.costs.encoder import encoder_parameters, inference_flops
from lab.config.costs.memory import estimate_memory
from lab.config.costs.second_objective import compute_cost
from lab.config.flops import step_cost
from lab.config.trial import Trial
from lab.loading.search_space import build_trial
from lab.training.model import Encoder

BASE: dict[str, Any] = {
    "encoder": {"layers": 2, "hidden": 32, "ffn": 96, "heads": 2, "embedding": 32, "dropout": 0},
    "objective": {"kind": "electra"},
    "data": {"vocab": 300, "length": 24},
    "windows": {"kind": "full"},
    "batch": 8,
    "budget": {"kind": "flops", "amount": 1e10},
}
SHAPES = ({}, {"encoder.embedding": 16}, {"encoder.layers": 1, "encoder.ffn": 64})


def hf_model(trial: Trial) -> ElectraModel:
    """Return an ELECTRA of `transformers` with the shape of a trial's encoder."""
    shape = trial.encoder
    return ElectraModel(
        ElectraConfig(
            vocab_size=trial.data.vocab,
            embedding_size=shape.embedding,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.ffn,
            max_position_embeddings=trial.data.length,
        )
    ).eval()


@pytest.mark.parametrize("settings", SHAPES, ids=str)
def test_parameters_are_those_of_the_exported_encoder(settings: dict[str, Any]) -> None:
    trial = build_trial(BASE, settings)
    assert encoder_parameters(trial) == hf_model(trial).num_parameters()


@pytest.mark.parametrize("settings", SHAPES, ids=str)
def test_parameters_with_norms_before_the_blocks_are_those_of_the_encoder(
    settings: dict[str, Any],
) -> None:
    trial = build_trial(BASE, settings | {"encoder.norm": "pre"})
    encoder = Encoder(trial.encoder, trial.data.vocab, trial.data.length)
    assert encoder_parameters(trial) == sum(each.numel() for each in encoder.parameters())


@pytest.mark.parametrize("settings", SHAPES, ids=str)
def test_inference_flops_are_those_that_torch_counts(settings: dict[str, Any]) -> None:
    trial = build_trial(BASE, settings)
    model = hf_model(trial)
    model.set_attn_implementation("eager")  # the counter sees the products of attention
    ids = torch.zeros(3, trial.data.length, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids)
    assert counter.get_total_flops() == inference_flops(trial) * ids.numel()


@pytest.mark.parametrize("kind", ["flops", "tokens"])
def test_tokens_are_those_of_the_steps_until_the_budget_is_spent(kind: str) -> None:
    amount = {"flops": 1e10, "tokens": 2e4}[kind]
    trial = build_trial(BASE, {"budget.kind": kind, "budget.amount": amount})
    spent = Spent()
    while trial.budget.fraction(spent) < 1:
        spent = spent.plus(step_cost(trial), 0.0)
    assert abs(compute_cost("tokens", trial) - spent.tokens) <= step_cost(trial).tokens


def test_tokens_include_those_of_preparatory_runs() -> None:
    base = BASE | {"objective": {"kind": "mlm"}, "budget": {"kind": "tokens", "amount": 2e5}}
    half = {"kind": "mlm", "budget": {"kind": "tokens", "amount": 1e5}}
    whole, started = build_trial(base, {}), build_trial(base, {"init_from": half})
    assert compute_cost("tokens", started) == pytest.approx(compute_cost("tokens", whole), rel=0.01)


def test_violations_name_each_limit_that_is_exceeded() -> None:
    trial = build_trial(BASE, {})
    parameters, memory = encoder_parameters(trial), estimate_memory(trial) / 2**30
    exact = Constraints(parameters=parameters, memory_gib=memory, seconds=1.0)
    assert describe_violations(measure_trial(exact, trial)) == ""
    below = Constraints(parameters=parameters - 1, memory_gib=memory / 2, seconds=1.0)
    reason = describe_violations(measure_trial(below, trial, seconds=2.5))
    assert [part.partition(":")[0] for part in reason.split("; ")] == [
        "constraints.parameters", "constraints.memory_gib", "constraints.seconds"
    ]  # fmt: skip
    assert measure_trial(below, trial).keys() == {"parameters", "memory_gib"}
    assert measure_trial(Constraints(), trial, seconds=9.0) == {}
