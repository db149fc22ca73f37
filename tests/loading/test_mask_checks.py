"""Compared mask probabilities must mask different numbers of tokens."""

from typing import Any

import pytest

from lab.config.experiment import Experiment
from lab.loading import mask_checks, search_space, sweep_warnings
from lab.loading.error_messages import SpaceError

MASKS = "objective.mask_prob"
GROWING = {"kind": "growing", "start": 16}


def load(base: dict[str, Any] | None = None, **sections: Any) -> Experiment:
    document: dict[str, Any] = {
        "question": "How much should be masked?",
        "metric": "probe/pos/accuracy",
        "base": {
            "encoder": {"size": "nano"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e12},
        }
        | (base or {}),
        "search": {"sampler": "qmc", "trials": 4, "seeds": 3},
    }
    if "tune" not in sections:
        document["search"] = {"seeds": 3}
    return search_space.check_experiment("masks", document | sections)


def error(base: dict[str, Any] | None = None, **sections: Any) -> str:
    with pytest.raises(SpaceError) as caught:
        load(base, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_compared_values_that_mask_the_same_tokens_are_refused() -> None:
    assert error(compare={MASKS: [0.15, 0.4, 0.16]}) == (
        "compare.objective.mask_prob: mask probabilities 0.15 and 0.16 mask the same number of "
        "tokens of a full window, 2 of 14 tokens (14.3 %); use values that mask different "
        "numbers, or longer windows"
    )


def test_values_that_mask_different_tokens_are_accepted() -> None:
    assert load(compare={MASKS: [0.15, 0.2]})
    assert load({"data": {"length": 128}, "batch": 8}, compare={MASKS: [0.15, 0.16]})


def test_values_of_independently_chosen_positions_are_accepted() -> None:
    bernoulli = {"objective": {"kind": "random", "masking": "bernoulli"}}
    assert load(bernoulli, compare={MASKS: [0.15, 0.16]})


def test_values_are_refused_only_if_windows_of_every_length_agree() -> None:
    growing = {"data": {"length": 64}, "windows": GROWING}
    assert load(growing, compare={MASKS: [0.15, 0.165]})
    assert "windows of 16: 2 of 14 tokens (14.3 %); windows of 64: 9 of" in error(
        growing, compare={MASKS: [0.15, 0.151]}
    )


def test_equal_masks_of_cells_that_differ_elsewhere_are_accepted() -> None:
    objectives = [
        {"kind": "electra", "mask_prob": 0.15},
        {"kind": "random", "mask_prob": 0.16},
    ]
    assert load(compare={"objective": objectives})


@pytest.mark.parametrize(
    "values", [{"choices": [0.15, 0.16]}, {"low": 0.15, "high": 0.25, "step": 0.01}]
)
def test_tuned_values_that_mask_the_same_tokens_are_refused(values: dict[str, Any]) -> None:
    assert "tune.objective.mask_prob: mask probabilities 0.15 and 0.16 mask the same" in error(
        tune={MASKS: values}
    )


def test_ramps_that_mask_the_same_tokens_are_refused() -> None:
    ramps = [{"start": 0.25, "end": 0.15}, {"start": 0.252, "end": 0.15}]
    assert "mask probabilities 0.25 → 0.15 and 0.252 → 0.15 mask the same number" in error(
        compare={MASKS: ramps}
    )
    assert load(compare={MASKS: [*ramps[:1], {"start": 0.15, "end": 0.25}]})


def warnings(experiment: Experiment) -> str:
    return "\n".join(sweep_warnings.collect_warnings(experiment))


def test_continuous_range_of_few_counts_gives_a_warning() -> None:
    tuned = {MASKS: {"low": 0.12, "high": 0.4}}
    assert "the range from 0.12 to 0.4 has only 5 distinct numbers of masked tokens, 2 to 6 of" in (
        warnings(load(tune=tuned))
    )
    assert warnings(load({"data": {"length": 128}, "batch": 8}, tune=tuned)) == ""


def test_range_of_an_end_of_a_ramp_gives_a_warning() -> None:
    ramp = {"objective": {"kind": "electra", "mask_prob": {"start": 0.15, "end": 0.15001}}}
    tuned = {f"{MASKS}.end": {"low": 0.16, "high": 0.2}}
    assert "tune.objective.mask_prob.end: the range from 0.16 to 0.2 has only 2 distinct" in (
        warnings(load(ramp, tune=tuned))
    )


def lines(experiment: Experiment) -> list[str]:
    return mask_checks.mask_lines(search_space.corner_trials(experiment))


def test_masked_tokens_are_listed_for_each_probability_and_length() -> None:
    assert lines(load()) == [
        "masked tokens of a full window, mask_prob 0.25: 4 of 14 tokens (28.6 %)"
    ]
    compared = load(compare={MASKS: [0.15, 0.25], "objective.generator.width": [0.25, 0.5]})
    assert lines(compared) == [
        "masked tokens of a full window:",
        "  mask_prob 0.15: 2 of 14 tokens (14.3 %)",
        "  mask_prob 0.25: 4 of 14 tokens (28.6 %)",
    ]
    tuned = load(tune={MASKS: {"low": 0.12, "high": 0.4}})
    assert lines(tuned) == [
        "masked tokens of a full window, mask_prob 0.12 to 0.4: 2 to 6 of 14 tokens (14.3 % to "
        "42.9 %)"
    ]
