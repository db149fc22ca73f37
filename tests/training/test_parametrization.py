"""The maximal update parametrization: sizes of activations and of their changes at all widths."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from members import LENGTH, VOCAB, text
from torch import Tensor
from torch.nn import functional as F

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig, AnyOptimizerConfig, MuonConfig
from lab.config.parametrization import (
    MaximalUpdateParametrization,
    Parametrization,
    StandardParametrization,
)
from lab.config.trial import Seeds, Trial
from lab.data.batches import Batch, segment_ids
from lab.training import optimizer as optim
from lab.training.initialization import initialize_weights
from lab.training.model import Block, DetectionHead
from lab.training.objectives import build_objective
from lab.training.optimizer import Adam, _group
from lab.training.parametrization import width_scales

STANDARD, MUP = StandardParametrization(), MaximalUpdateParametrization(kind="mup")
WIDTHS = (32, 64, 128, 256)
ADAM, MUON = AdamConfig(lr=2e-3), MuonConfig(kind="muon", lr=2e-3)
STEPS = 4


def trial(kind: str, hidden: int, parametrization: Parametrization, heads: int = 2) -> Trial:
    objectives = {"mlm": MlmConfig(kind="mlm"), "electra": ElectraConfig(kind="electra")}
    return Trial(
        encoder=EncoderConfig(
            layers=2,
            hidden=hidden,
            ffn=4 * hidden,
            heads=heads,
            embedding=hidden,
            init_std=0.1,
            dropout=0,
            parametrization=parametrization,
        ),
        objective=objectives[kind],
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        budget=Budget(kind="tokens", amount=1),
    )


def activations(objective: Any, batch: Batch) -> dict[str, Tensor]:
    """Return the hidden states of each layer and the logits at all positions."""
    states = objective.encoder.compute_hidden_states(batch.ids_BT, segment_ids(batch.ids_BT))
    head = (
        objective.detection(states[-1])
        if hasattr(objective, "detection")
        else objective.vocabulary(states[-1], objective.encoder.embeddings.table())
        - objective.vocabulary.bias
    )
    names = [f"layer {number}" for number in range(len(states))] + ["logits"]
    return {name: value.detach() for name, value in zip(names, [*states, head], strict=True)}


def changes(built: Trial, settings: AnyOptimizerConfig) -> dict[str, float]:
    """Return the root mean square of the change of each activation in `STEPS` steps."""
    objective: Any = build_objective(built, torch.ones(VOCAB))
    optimizer, batch = optim.build_optimizer(objective, settings), text()
    before = activations(objective, batch)
    for step in range(STEPS):
        optimizer.zero_grad()
        objective(batch, step).total.backward()
        optim.clip_gradients(objective, settings)
        optimizer.step()
    after = activations(objective, batch)
    return {name: (after[name] - before[name]).square().mean().sqrt().item() for name in before}


def slopes(
    kind: str, settings: AnyOptimizerConfig, parametrization: Parametrization
) -> dict[str, float]:
    """Return the exponent of the width in the change of each activation."""
    measured = [
        [
            changes(replace(trial(kind, width, parametrization), seeds=Seeds().repeat(n)), settings)
            for n in range(3)
        ]
        for width in WIDTHS
    ]
    logs = np.log(WIDTHS)
    return {
        name: float(
            np.polyfit(
                logs, [np.mean([np.log(run[name]) for run in runs]) for runs in measured], 1
            )[0]
        )
        for name in measured[0][0]
    }


@pytest.mark.parametrize("settings", [ADAM, MUON], ids=["adam", "muon"])
@pytest.mark.parametrize("kind", ["mlm", "electra"])
def test_changes_of_activations_do_not_grow_with_the_width_under_mup_only(
    kind: str, settings: AnyOptimizerConfig
) -> None:
    scaled, standard = (slopes(kind, settings, each) for each in (MUP, STANDARD))
    assert all(abs(scaled[f"layer {number}"]) < 0.1 for number in range(3)), scaled
    # The part of the change that comes from the initial table shrinks with the width.
    assert -0.4 < scaled["logits"] < 0.2, scaled
    assert standard["logits"] > 0.4, standard
    assert standard["logits"] > scaled["logits"] + 0.3, standard


@pytest.mark.parametrize("settings", [ADAM, MUON], ids=["adam", "muon"])
def test_base_shape_is_trained_as_with_the_standard_parametrization(
    settings: AnyOptimizerConfig,
) -> None:
    base, standard = (trial("electra", MUP.hidden, each) for each in (MUP, STANDARD))
    # The generator has the base shape too, because half of the width would be scaled.
    base, standard = (
        replace(each, objective=replace(each.objective, generator=GeneratorConfig(width=1)))
        for each in (base, standard)
    )
    for kind in ("electra", "mlm"):
        if kind == "mlm":
            base, standard = (trial(kind, MUP.hidden, each) for each in (MUP, STANDARD))
        assert changes(base, settings) == changes(standard, settings)


def test_attention_logits_are_divided_by_the_head_width() -> None:
    wide = Block(trial("mlm", 128, MUP).encoder)
    narrow = Block(trial("mlm", 128, MUP, heads=8).encoder)
    scales = [
        width_scales(block, MUP)[block.query.weight].init
        / width_scales(block, MUP)[block.key.weight].init
        for block in (wide, narrow)
    ]
    # Attention divides by sqrt(d): the factor is sqrt(16) / sqrt(d), so logits have sqrt(16) / d.
    assert scales == pytest.approx([(16 / 64) ** 0.5, 1.0])


def test_step_with_scaled_weights_equals_a_step_with_a_multiplier_of_the_output() -> None:
    """Adam: a weight W with the multiplier m is a weight m W with the rate m lr."""
    head = DetectionHead(trial("electra", 128, MUP).encoder)
    initialize_weights(head, trial("electra", 128, MUP).encoder, 0)
    scale = width_scales(head, MUP)[head.dense_prediction.weight]
    assert scale.init == scale.adam == MUP.hidden / 128
    x, weight = torch.randn(5, 128), head.dense_prediction.weight.detach()
    multiplied, folded = (weight / scale.init).requires_grad_(), weight.clone().requires_grad_()
    settings = AdamConfig(eps=1e-30, weight_decay=0.0)
    forms = [(multiplied, scale.init, 0.1), (folded, 1.0, 0.1 * scale.adam)]
    optimizers = [Adam([_group([p], rate, 0.0)], settings) for p, _, rate in forms]
    for _ in range(3):
        for (parameter, factor, _), optimizer in zip(forms, optimizers, strict=True):
            optimizer.zero_grad()
            (F.linear(x, parameter) * factor).square().mean().backward()
            optimizer.step()
        torch.testing.assert_close(F.linear(x, multiplied) * scale.init, F.linear(x, folded))


def test_only_weights_between_layers_and_outputs_are_scaled() -> None:
    objective = build_objective(trial("electra", 64, MUP), torch.ones(VOCAB))
    scaled = width_scales(objective, MUP)
    names = {name for name, parameter in objective.named_parameters() if parameter in scaled}
    assert not [name for name in names if "embeddings." in name]
    assert {
        name for name in names if name.startswith("encoder.layers.0.") and "weight" in name
    } == {
        f"encoder.layers.0.{layer}.weight"
        for layer in ("query", "key", "value", "attention_output", "intermediate", "output")
    }
    assert {"detection.dense.weight", "detection.dense_prediction.weight"} <= names
    assert {"generator.vocabulary.norm.weight", "generator.vocabulary.norm.bias"} <= names
