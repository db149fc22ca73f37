"""A trend under `optim.lr` gives each trial the learning rate of its size, horizon and batch."""

from typing import Any

import jsonschema
import pytest

from lab.config.flops import encoder_weights, mean_cost
from lab.config.trial import Value
from lab.loading.error_messages import SpaceError
from lab.loading.schema import json_schema
from lab.loading.search_space import build_trial, check_experiment, dump_experiment
from lab.loading.yaml_text import parse

TREND = {"rate": 1e-3, "parameters": {"at": 1e5, "exponent": -0.3}}


def base(lr: object, **changes: Value) -> dict[str, Value]:
    budget = {"kind": "flops", "amount": 1e12}
    settings = {"encoder": {"size": "nano"}, "objective": {"kind": "mlm"}, "budget": budget}
    return settings | {"optim": {"lr": lr}} | changes


def rate(lr: object, **changes: Value) -> float:
    return build_trial(base(lr), changes).optim.lr


def test_rate_follows_the_power_law_of_every_quantity() -> None:
    shape = {"encoder.size": "tiny"}
    trial = build_trial(base(1e-3), shape)
    parameters, step = encoder_weights(trial.encoder), mean_cost(trial)
    tokens = round(1e12 / step.flops) * step.tokens
    found = rate(
        {
            "rate": 2e-3,
            "parameters": {"at": 1e5, "exponent": -0.3},
            "tokens": {"at": 1e6, "exponent": -0.1},
            "batch": {"at": 512, "exponent": 0.5},
        },
        **shape,
    )
    expected = (
        2e-3
        * (parameters / 1e5) ** -0.3
        * (tokens / 1e6) ** -0.1
        * (step.tokens / 512) ** 0.5
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)
    assert rate({"rate": 2e-3}, **shape) == 2e-3


def test_trend_has_the_trial_of_its_number_and_is_replaced_by_a_compared_or_tuned_rate() -> None:
    assert build_trial(base(TREND), {}) == build_trial(base(rate(TREND)), {})
    assert rate(TREND, **{"optim.lr": 3e-3}) == 3e-3


def test_search_space_with_a_trend_survives_being_written_and_read() -> None:
    raw: dict[str, Any] = {
        "question": "?", "metric": "mlm/nats_per_character", "base": base(TREND),
        "compare": {"encoder.size": ["nano32", "nano"]},
    }  # fmt: skip
    jsonschema.validate(raw, json_schema())
    experiment = check_experiment("x", raw)
    assert check_experiment("x", parse(dump_experiment(experiment))) == experiment


@pytest.mark.parametrize(
    ("lr", "changes", "message"),
    [
        ({"rate": 0}, {}, "base.optim.lr.rate: "),
        (
            {"rate": 1e-3, "depth": {"at": 1, "exponent": 1}},
            {},
            "base.optim.lr.depth: unknown key; allowed: rate, parameters, tokens, batch",
        ),
        (
            {"rate": 1e-3, "tokens": {"at": 1, "power": 1}},
            {},
            "base.optim.lr.tokens.power: unknown key; allowed: at, exponent",
        ),
        ({"rate": 1e-3, "tokens": {"at": 1e6}}, {}, "base.optim.lr.tokens.exponent: "),
        ({"rate": 1e-3, "parameters": {"at": 1e30, "exponent": -1}}, {}, "base.optim.lr: "),
        (
            {"rate": 1e-3, "tokens": {"at": 1e6, "exponent": 1}},
            {"budget": {"kind": "seconds", "amount": 9}},
            "base.optim.lr.tokens: must be omitted",
        ),
    ],
)  # fmt: skip
def test_invalid_trends_are_refused_by_their_path(
    lr: object, changes: dict[str, Value], message: str
) -> None:
    with pytest.raises(SpaceError) as error:
        build_trial(base(lr, **changes), {})
    assert str(error.value).startswith(message)
