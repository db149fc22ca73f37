"""Calls of an objective: windows at an offset, parts of a batch, no gradient, names of networks."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from members import MEMBERS, POST, Member, each, each_turn, make_objective, masked, text, windows

from lab.config.objectives.generators import SamplingConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.data.batches import Batch
from lab.data.vocabulary import PAD
from lab.training.objectives.masking import chosen_positions
from lab.training.objectives.mlm import Mlm

BY_ID = {member.id: member for member in MEMBERS}
_SAMPLING = SamplingConfig(dropout=False)
SEPARATE = tuple(
    replace(
        BY_ID[name],
        id=f"{name}_without_dropout",
        encoder=POST,
        objective=replace(BY_ID[name].objective, sampling=_SAMPLING),
    )
    for name in ("electra_none", "two_stage")
)  # these sample in a second pass


def evaluated(member: Member, updates: UpdatedNetworks) -> Any:
    """Return an objective in evaluation mode, ready for a step that updates `updates`."""
    objective = make_objective(member)
    objective.begin(updates, objective.step_settings)
    return objective.eval()


@each_turn((*MEMBERS, *SEPARATE))
@torch.no_grad()
def test_windows_at_an_offset_read_the_rows_of_the_position_tables_from_there_on(
    member: Member, updates: UpdatedNetworks
) -> None:
    objective = evaluated(member, updates)
    rolled = deepcopy(objective)
    for name, table in rolled.named_parameters():
        if "position" in name:
            table.copy_(table.roll(-5, 0))
    batch = Batch(torch.from_numpy(windows(8, 6, 8)), torch.arange(8) + 100)
    found = objective(batch._replace(offset=5), 2, updates)
    expected = rolled(batch, 2, updates)
    assert found.parts.keys() == expected.parts.keys()
    for name, part in expected.parts.items():
        assert found.parts[name].equal(part), name
    assert not found.total.equal(objective(batch, 2, updates).total)


@torch.no_grad()
def test_predictions_without_an_offset_read_the_position_tables_from_the_first_row() -> None:
    model = make_objective(next(m for m in MEMBERS if isinstance(m.objective, MlmConfig))).eval()
    assert isinstance(model, Mlm)
    ids_BT, slots_BK = torch.from_numpy(windows(8, 6, 8)), torch.arange(1, 4).expand(8, -1)
    start, second = (model.predict(ids_BT, slots_BK, ids_BT != PAD, offset) for offset in (0, 1))
    found = model.predict(ids_BT, slots_BK, ids_BT != PAD)
    assert found.equal(start)
    assert not found.equal(second)


@each_turn()
def test_losses_of_parts_of_a_batch_add_up_to_its_loss(
    member: Member, updates: UpdatedNetworks
) -> None:
    objective, batch = evaluated(member, updates), text()
    counts = objective.token_counts(batch, 4)
    whole = objective(batch, 4, updates)
    first, second = (objective(batch.rows(*rows), 4, updates, counts) for rows in ((0, 3), (3, 8)))
    assert (first.total + second.total).item() == pytest.approx(whole.total.item(), rel=1e-5)
    for name, part in whole.parts.items():
        total = first.parts[name] + second.parts[name]
        assert total.item() == pytest.approx(part.item(), rel=1e-4, abs=1e-6), name


@each()
def test_token_counts_are_those_of_the_masks_of_the_step(member: Member) -> None:
    objective, batch = make_objective(member), text()
    for step in range(3):
        counts, selected = objective.token_counts(batch, step), masked(member, batch, step)
        assert counts.slots == selected.used_BK.sum()
        assert counts.chosen == chosen_positions(selected).sum()
        assert counts.text == (batch.segment_BT > 0).sum()


@each_turn()
@torch.no_grad()
def test_no_graph_is_recorded_where_gradients_are_disabled(
    member: Member, updates: UpdatedNetworks
) -> None:
    objective = make_objective(member)
    objective.begin(updates, objective.step_settings)
    assert not objective(text(), 0, updates).total.requires_grad


@each()
def test_networks_are_the_exported_one_and_then_a_trained_generator(member: Member) -> None:
    objective = make_objective(member)
    own = "discriminator" if "discriminator" in member.objective.networks else "encoder"
    trained = "generator" in member.objective.networks and not member.objective.frozen_generator
    assert list(objective.networks()) == [own, *(["generator"] if trained else [])]
