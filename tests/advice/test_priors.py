"""Advice without own runs: every value is called a prior and names what it is from."""

import pytest

from lab.advice.devices import DEVICES, find_speeds
from lab.advice.document import write_document
from lab.advice.priors import advise_from_priors, pick_prior
from lab.loading import search_space, yaml_text

BUDGETS = [1e11, 3e12, 1e15, 1e18, 6e19, 1e22]


@pytest.mark.parametrize("flops", BUDGETS)
def test_every_setting_is_a_prior_with_a_source(flops: float) -> None:
    advice = advise_from_priors(flops, find_speeds(DEVICES["a100"], ()).of_largest())
    assert "no value is from own runs" in advice.heading
    for value in advice.values:
        assert value.source.kind == ("prior" if value.path else value.source.kind)
        assert value.source.kind in {"prior", "computed"}
        assert value.source.text
        assert value.source.factor is None
    assert advice.next_trial is None


@pytest.mark.parametrize("flops", BUDGETS)
def test_search_space_of_priors_is_valid_and_its_trial_the_advised_one(flops: float) -> None:
    advice = advise_from_priors(flops, None)
    raw = yaml_text.parse(write_document(advice, "python -m lab.advise --priors"))
    experiment = search_space.check_experiment("advised", raw)
    assert search_space.build_trial(experiment.base, {}) == advice.trial


def test_sizes_of_the_paper_are_advised_near_its_budgets() -> None:
    assert [pick_prior(flops).size for flops in BUDGETS] == [
        "nano32", "nano", "tiny", "small", "base", "large",
    ]  # fmt: skip


def test_budget_too_small_to_learn_is_warned_about() -> None:
    (warning,) = advise_from_priors(1e11, None).warnings
    assert "begin to learn" in warning
    assert advise_from_priors(1e13, None).warnings == ()
