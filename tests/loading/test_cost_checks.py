"""Constraints, second objective and prior are refused by one line where they cannot hold."""

from typing import Any

import pytest

from lab.config.costs.constraints import Constraints
from lab.config.experiment import Experiment
from lab.loading import search_space
from lab.loading.error_messages import SpaceError

FFN = "encoder.ffn"
RATE = {"optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
# Parameters of `nano32` with an inner width of 64, 128 and 256: 74,720, 78,880 and 87,200.


def load(base: dict[str, Any] | None = None, **sections: Any) -> Experiment:
    document: dict[str, Any] = {
        "question": "Which one?",
        "metric": "pairs/accuracy",
        "base": {
            "encoder": {"size": "nano32"},
            "objective": {"kind": "electra", "generator": {"width": 0.5}},
            "budget": {"kind": "flops", "amount": 1e12},
        }
        | (base or {}),
        "search": {"sampler": "tpe", "trials": 4, "seeds": 3} if "tune" in sections else {},
    }
    return search_space.check_experiment("costs", document | sections)


def error(base: dict[str, Any] | None = None, **sections: Any) -> str:
    with pytest.raises(SpaceError) as caught:
        load(base, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cell_that_violates_a_constraint_is_refused() -> None:
    message = error(compare={FFN: [64, 128, 256]}, constraints={"parameters": 80_000})
    assert message == (
        "constraints.parameters: ffn 256 has 87,200, above the limit of 80,000; remove the "
        "setting, or raise the limit"
    )
    assert "; 2 more cells violate constraints; remove" in error(
        compare={FFN: [64, 128, 256]}, constraints={"memory_gib": 1e-6}
    )


def test_cells_at_the_limit_are_accepted() -> None:
    limits = {"parameters": 87_200, "memory_gib": 4, "seconds": 1e-3}
    assert load(compare={FFN: [64, 256]}, constraints=limits).constraints == Constraints(
        parameters=87_200, memory_gib=4, seconds=1e-3
    )


@pytest.mark.parametrize(
    "widths",
    [
        {"low": 64, "high": 256, "step": 64, "integer": True},
        {"choices": [64, 128, 256]},
        {"choices": [256, 128, 64]},
    ],
    ids=str,
)
def test_cell_with_a_feasible_tuned_setting_is_accepted(widths: dict[str, Any]) -> None:
    assert load(tune={FFN: widths}, constraints={"parameters": 74_720})
    assert "with all values under tune" in error(
        tune={FFN: widths}, constraints={"parameters": 74_719}
    )


def test_feasible_combination_of_tuned_settings_is_found() -> None:
    """Neither the first of all values nor a change of one of them alone is feasible."""
    tune = {FFN: {"choices": [256, 64]}, "encoder.layers": {"choices": [2, 1]}}
    assert load(tune=tune, constraints={"parameters": 74_720})
    assert "constraints.parameters: every trial has 74,720" in error(
        tune=tune, constraints={"parameters": 74_000}
    )


def test_seconds_are_not_checked_before_the_training() -> None:
    assert load(tune=RATE, constraints={"seconds": 1e-3})


def test_seconds_of_a_shared_gpu_are_refused() -> None:
    message = error(tune=RATE, constraints={"seconds": 9}, resources={"gpus_per_worker": 0.5})
    assert message.startswith("constraints.seconds: the seconds of a trial depend on the other")


@pytest.mark.parametrize("limits", [{"parameters": 0}, {"memory_gib": -1}, {"seconds": "ten"}])
def test_limits_are_positive_numbers(limits: dict[str, Any]) -> None:
    assert error(constraints=limits).startswith(f"constraints.{next(iter(limits))}: ")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"cost": "speed"}, "cost: must be one of parameters, inference_flops, tokens, not"),
        ({"answer": "noise"}, "cost: needs answer: ranking, not noise"),
        ({"compare": {"optim.lr": [1e-3, 2e-3]}}, "cost: all trials have the same inference comp"),
        (
            {
                "search": {"trials": 8, "stopping": {"kind": "halving", "first_rung": 0.5}},
                "tune": RATE,
                "base": {"schedule": {"kind": "constant", "warmup": 0}},
            },
            "cost: cannot be combined with search.stopping",
        ),
        (
            {"cost": "tokens", "base": {"budget": {"kind": "seconds", "amount": 60}}},
            "cost: tokens of a budget in seconds are not known before the training",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_second_objective_that_cannot_be_traded_is_refused(
    sections: dict[str, Any], message: str
) -> None:
    given = {"compare": {FFN: [64, 128]}, "cost": "inference_flops"} | sections
    assert error(given.pop("base", None), **given).startswith(message)


@pytest.mark.parametrize("cost", ["parameters", "inference_flops", "tokens"])
def test_second_objective_may_depend_on_compared_or_tuned_settings(cost: str) -> None:
    assert load(compare={FFN: [64, 128]}, cost=cost).cost == cost
    assert load(tune={FFN: {"choices": [64, 128]}}, cost=cost).cost == cost


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"tune": {}, "search": {"sampler": "tpe", "prior": ["a"]}},
            "search.prior: needs at least one setting under tune",
        ),
        ({"search": {"sampler": "qmc", "trials": 4, "prior": ["a"]}}, "search.prior: needs a samp"),
        ({"search": {"sampler": "tpe", "trials": 4, "prior": [""]}}, "search.prior"),
        ({"search": {"sampler": "tpe", "trials": 4, "prior": "a"}}, "search.prior: must be a list"),
    ],
)
def test_prior_without_a_search_that_adapts_is_refused(
    sections: dict[str, Any], message: str
) -> None:
    search = {"sampler": "tpe", "trials": 4, "prior": ["a"]}
    assert error(**({"tune": RATE, "search": search} | sections)).startswith(message)
