"""Recommended settings follow from the figures of a text and the compute of a trial."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from languages import ENGLISH, sentences

from lab.config.data import TextFiles, TrainedTokenizer
from lab.config.experiment import Experiment
from lab.config.flops import mean_cost
from lab.loading import search_space
from lab.suggestion import compute_tiers, data_settings, recommend, token_survey
from lab.suggestion.commented_yaml import to_plain
from lab.suggestion.compute_tiers import DESIGNS, TABLE
from lab.suggestion.facts import EPOCHS, Facts, TaskFacts
from lab.suggestion.recommend import WIDTHS, Recommendation
from lab.suggestion.source_guess import SourceGuess
from lab.suggestion.text_survey import TextSurvey
from lab.suggestion.tokenizer_settings import recommend_tokenizer

FLOPS = st.floats(3e10, 1e16)


@pytest.fixture(scope="module")
def facts() -> Facts:
    sample = tuple(sentences(ENGLISH, 1_000))
    text = TextSurvey(
        share=1.0,
        files=1,
        stored=60_000_000,
        documents=1_000_000,
        characters=60_000_000,
        words=12_000_000,
        duplicates=0.0,
        bad={},
        letters=50_000_000,
        scripts={"LATIN": 1.0},
        accented=0.0,
        upper=0.03,
        compatibility=0.0,
        overlong=0.0,
        median_document=60.0,
        sample=sample,
    )
    source = TextFiles(kind="files", paths=("a.txt",))
    return Facts(
        guess=SourceGuess(source=source, because={"encoding": "UTF-8."}, damaged=False),
        text=text,
        tokenizer=recommend_tokenizer(text, cased=False),
        tokens=token_survey.survey_tokens(TrainedTokenizer(), 2_048, sample),
        task=None,
    )


def recommended(facts: Facts, flops: float) -> Recommendation:
    return recommend.recommend(facts, flops, DESIGNS[1], "30 minutes")


def experiment(facts: Facts, flops: float) -> Experiment:
    return search_space.check_experiment("mine", to_plain(recommended(facts, flops).document))


@given(first=FLOPS, second=FLOPS)
def test_more_compute_never_gives_a_smaller_encoder(first: float, second: float) -> None:
    sizes = [compute_tiers.pick_size(flops).weights for flops in sorted((first, second))]
    assert sizes == sorted(sizes)


@given(flops=FLOPS)
def test_more_compute_never_gives_fewer_repeats(flops: float) -> None:
    for before in DESIGNS:
        few, many = (
            compute_tiers.pick_design(amount, before=before) for amount in (flops, 10 * flops)
        )
        assert few.trials + few.seeds <= many.trials + many.seeds


def test_sizes_and_designs_are_sorted() -> None:
    assert [size.min_flops for size in TABLE] == sorted({size.min_flops for size in TABLE})
    assert [size.weights for size in TABLE] == sorted({size.weights for size in TABLE})
    assert TABLE[0].min_flops == DESIGNS[-1].min_flops == 0


@pytest.mark.parametrize("flops", [5e10, 5e11, 5e12, 5e13, 5e14])
def test_no_trial_makes_more_than_the_maximal_number_of_passes(facts: Facts, flops: float) -> None:
    small = replace(facts, text=replace(facts.text, characters=1_000_000))
    space = experiment(small, flops)
    for width in WIDTHS:
        trial = search_space.build_trial(space.base, {"objective.generator.width": width})
        cost = mean_cost(trial)
        read = trial.budget.amount / cost.flops * cost.tokens
        one_pass = small.total * small.tokens.positions_per_token(trial.data.length)
        assert read <= 1.05 * EPOCHS * one_pass  # the budget is rounded to two digits


def test_warning_for_a_text_too_small_for_the_time(facts: Facts) -> None:
    small = replace(facts, text=replace(facts.text, characters=1_000_000))
    assert any(
        "too small for this time" in warning for warning in recommended(small, 5e13).warnings
    )
    assert recommended(facts, 5e12).warnings == ()


def test_warning_for_too_little_compute_to_learn(facts: Facts) -> None:
    (warning,) = recommended(facts, 1e11).warnings
    assert "too few to learn from context" in warning
    assert "give more minutes" in warning


def test_warning_for_a_task_with_too_little_compute_for_transfer(facts: Facts) -> None:
    task = TaskFacts(file="t.yaml", name="t", sizes=(10,), because="")
    for flops, warned in ((2e12, True), (1e13, False)):
        warnings = recommended(replace(facts, task=task), flops).warnings
        assert any("may not tell the widths apart" in line for line in warnings) is warned


def test_reason_is_given_for_not_searching_rates(facts: Facts) -> None:
    for design in DESIGNS:
        document = recommend.recommend(facts, 1e12, design, "30 minutes").document
        reason = document["search"].because
        assert ("too short for a search of learning rates" in reason) is (design.trials == 0)


def test_only_a_share_of_a_large_text_is_prepared(facts: Facts) -> None:
    large = replace(facts, text=replace(facts.text, characters=10**12))
    space = experiment(large, 5e12)
    trial = search_space.build_trial(space.base, {"objective.generator.width": 0.25})
    cost = mean_cost(trial)
    read = trial.budget.amount / cost.flops * cost.tokens
    positions = large.tokens.positions_per_token(trial.data.length)
    available = trial.data.share * large.total * positions
    assert 2 * read < available < 6 * read
    assert "share" not in to_plain(recommended(facts, 5e12).document)["base"]["data"]


@pytest.mark.parametrize(("size", "least"), [(10, 16), (30, 32), (60, 64), (500, 64)])
def test_window_is_long_enough_for_the_texts_of_the_task(
    facts: Facts, size: int, least: int
) -> None:
    task = TaskFacts(file="t.yaml", name="t", sizes=[size] * 50, because="Rows.")
    window = data_settings.recommend_window(
        compute_tiers.pick_size(5e12), replace(facts, task=task)
    )
    assert window.value == least
    assert f"take at most {size} positions" in window.because


def test_number_of_positions_of_a_step_does_not_depend_on_the_window(facts: Facts) -> None:
    task = TaskFacts(file="sentiment", name="sentiment", sizes=[60] * 50, because="Rows.")
    for each in (facts, replace(facts, task=task)):
        base = to_plain(recommend.recommend(each, 5e12, DESIGNS[1], "").document)["base"]
        assert base["batch"] * base["data"]["length"] == 1_024


@pytest.mark.parametrize(
    ("changed", "setting", "value"),
    [
        ({"accented": 0.03}, "accents", "keep"),
        ({"accented": 0.0001}, "accents", "strip"),
        ({"compatibility": 0.05}, "normalization", "nfkc"),
    ],
)
def test_tokenizer_depends_on_the_letters(
    facts: Facts, changed: dict[str, float], setting: str, value: str
) -> None:
    chosen = recommend_tokenizer(replace(facts.text, **changed), cased=False)  # type: ignore[arg-type]
    assert to_plain({"tokenizer": chosen})["tokenizer"][setting] == value
