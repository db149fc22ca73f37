"""Warnings about sweeps that cannot answer their question, and the included search spaces."""

from pathlib import Path
from typing import Any

import pytest
from project import ROOT

from lab.loading import search_space
from lab.loading.learned_sizes import LEARNED, MIN_TO_LEARN
from lab.loading.sweep_warnings import collect_warnings
from lab.loading.yaml_text import parse

SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_no_included_search_space_is_ranked_by_a_score_that_is_not_neutral(file: Path) -> None:
    warnings = collect_warnings(search_space.load_experiment(file))
    assert not [text for text in warnings if "is not neutral" in text]


def warnings_of_halving(size: str, first_rung: float, kind: str = "flops") -> list[str]:
    document: dict[str, Any] = {
        "question": "Which rate is best?",
        "metric": "pairs/accuracy",
        "base": {
            "encoder": {"size": size},
            "objective": {"kind": "electra"},
            "schedule": {"kind": "constant", "warmup": 0},
            "budget": {"kind": kind, "amount": 1e12},
            "evaluations": 4,
        },
        "tune": {"optim.lr": {"low": 1e-3, "high": 2e-3}},
        "search": {
            "sampler": "qmc",
            "trials": 8,
            "seeds": 3,
            "stopping": {"kind": "halving", "first_rung": first_rung},
        },
    }
    experiment = search_space.check_experiment("halving", document)
    return [text for text in collect_warnings(experiment) if "first_rung" in text]


@pytest.mark.parametrize(
    ("size", "first_rung", "warned"),
    [("nano32", 0.25, False), ("nano", 0.5, True), ("nano48", 0.25, False)],
)
def test_rungs_before_encoders_start_to_learn_are_warned_about(
    size: str, first_rung: float, warned: bool
) -> None:
    rows = {row.size: row.low for row in LEARNED}
    assert (first_rung * 1e12 < rows.get(size, MIN_TO_LEARN)) is warned
    found = warnings_of_halving(size, first_rung)
    assert bool(found) is warned
    assert all("score above untrained ones (1.25e+12 FLOPs, docs/sizes.md)" in t for t in found)


@pytest.mark.parametrize(("file", "warned"), [("halving", True), ("halving_trunk", False)])
def test_rungs_without_a_cooldown_are_warned_about(file: str, warned: bool) -> None:
    experiment = search_space.load_experiment(ROOT / "search_spaces" / f"{file}.yaml")
    found = [text for text in collect_warnings(experiment) if "not cooled down" in text]
    assert len(found) == warned


def test_rungs_of_budgets_in_other_units_are_not_judged() -> None:
    assert warnings_of_halving("nano", 0.5, "tokens") == []


def warnings_of_batches(base: str, compare: str) -> list[str]:
    document: dict[str, Any] = {
        "question": "Which rate is best?",
        "metric": "mlm/nats_per_character",
        "base": {
            "encoder": {"size": "nano", "layers": 2},
            "objective": {"kind": "mlm"},
            "budget": {"kind": "flops", "amount": 1e12},
            **parse(base),
        },
        "compare": parse(compare),
    }
    experiment = search_space.check_experiment("batches", document)
    return [text for text in collect_warnings(experiment) if text.startswith("batch: ")]


SIZES = "encoder.size: [nano32, nano, tiny]"


def test_batches_with_one_beta2_and_weight_decay_are_warned_about_with_the_values_to_set() -> None:
    (warning,) = warnings_of_batches("batch: 64", f"{{{SIZES}, batch: [32, 128]}}")
    beta2, decay = 0.98**4, 0.01 * 4
    assert "512 to 2,048 tokens a step" in warning
    assert f"optim.beta2 {beta2:.3g} and optim.weight_decay {decay:.3g} at 2,048 tokens" in warning


@pytest.mark.parametrize(
    ("base", "compare"),
    [
        ("batch: 64", f"{{{SIZES}}}"),
        ("batch: 64", "{encoder.size: [nano32, nano], batch: [32, 128]}"),
        (
            "batch: 64",
            f"{{{SIZES}, batch: [32, 128], optim.beta2: [0.98, 0.92], "
            "optim.weight_decay: [0.01, 0.04]}",
        ),
        ("budget: {kind: tokens, amount: 1e6}", f"{{{SIZES}, batch: [32, 128]}}"),
    ],
)
def test_one_batch_two_sizes_or_settings_by_batch_are_not_warned_about(
    base: str, compare: str
) -> None:
    assert warnings_of_batches(base, compare) == []
