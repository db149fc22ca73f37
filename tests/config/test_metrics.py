"""Metrics declare the settings across which their values are not comparable, with a reason."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.config.metrics import CORRUPTIONS, METRICS, Metric, find_metric, select_metrics
from lab.tasks.embedded import EMBEDDED

settings = hypothesis_settings(deadline=None)
names = st.sampled_from(["objective", "objectives", "generator", "width", "data", "lr"])
paths = st.lists(names, min_size=1, max_size=4).map(".".join)


def incomparable_across(*prefixes: str) -> Metric:
    return Metric(
        name="m", direction="minimize", title="m", incomparable_across=prefixes, reason="so"
    )


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metric_has_a_reason_if_and_only_if_settings_make_it_incomparable(metric: Metric) -> None:
    assert bool(metric.reason) == bool(metric.incomparable_across)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metric_has_a_reason_if_and_only_if_settings_confound_it(metric: Metric) -> None:
    assert bool(metric.confounding) == bool(metric.confounded_across)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metric_has_a_reason_if_and_only_if_it_is_not_neutral(metric: Metric) -> None:
    assert bool(metric.bias) == bool(metric.biased_across)


@pytest.mark.parametrize("task", EMBEDDED)
def test_probes_are_confounded_with_what_changes_untrained_encoders(task: str) -> None:
    probe = METRICS[f"probe/{task}/accuracy"]
    spoiled = ("encoder.hidden", "data.vocab", "data.length", "data")
    others = ("encoder.layers", "encoder.size", "objective.generator.width", "windows", "optim.lr")
    assert probe.find_confounding_paths((*others, *spoiled)) == spoiled


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_the_name_of_its_key_and_a_title(name: str) -> None:
    assert METRICS[name].name == name
    assert METRICS[name].title


def test_every_corruption_and_probe_has_a_metric() -> None:
    for score in ("auroc", "calibrated_loss"):
        assert {f"detect/{source}/{score}" for source in CORRUPTIONS} <= METRICS.keys()
    for score in ("accuracy", "nats"):
        assert {f"probe/{task}/{score}" for task in EMBEDDED} <= METRICS.keys()


@pytest.mark.parametrize("name", [name for name in METRICS if name.startswith("train/")])
@pytest.mark.parametrize(
    "path",
    ["objective", "objective.generator.width", "objective.mask_prob", "encoder.size", "data.vocab"],
)
def test_training_losses_cannot_rank_objectives_or_encoders(name: str, path: str) -> None:
    assert METRICS[name].find_incomparable_path((path,)) == path


@pytest.mark.parametrize("name", ["train/discriminator_loss", "train/loss"])
@pytest.mark.parametrize(
    "path",
    [
        "objective.disc_weight",
        "optim.lr",
        "budget.amount",
        "init_from",
        "batch.end",
        "windows.until",
    ],
)
def test_losses_of_the_discriminator_cannot_rank_training_settings(name: str, path: str) -> None:
    assert METRICS[name].find_incomparable_path((path,)) == path


@pytest.mark.parametrize("source", ["bigram", "mlm"])
@pytest.mark.parametrize("score", ["auroc", "calibrated_loss"])
def test_detection_is_comparable_between_objectives_but_not_between_tokenizers(
    source: str, score: str
) -> None:
    metric = METRICS[f"detect/{source}/{score}"]
    settings = ("objective", "objective.generator.width", "encoder.size", "optim.lr", "init_from")
    assert metric.find_incomparable_path(settings) is None
    assert metric.find_incomparable_path(("optim.lr", "data.vocab")) == "data.vocab"


def test_hidden_words_are_comparable_between_shapes_vocabularies_and_windows() -> None:
    metric = METRICS["mlm/nats_per_character"]
    varied = ("encoder.size", "objective", "data.vocab", "data.length", "data.tokenizer", "budget")
    assert metric.find_incomparable_path(varied) is None
    for path in ("data.source.paths", "data.share", "data.held_out"):
        assert metric.find_incomparable_path((*varied, path)) == path


def test_own_heads_are_comparable_within_an_objective_and_a_normalization() -> None:
    metric = METRICS["mlm/own_head/nats_per_character"]
    varied = ("encoder.size", "objective.mask_prob", "data.vocab", "data.length")
    assert metric.find_incomparable_path(varied) is None
    for path in ("objective", "objective.kind", "data.tokenizer.cased"):
        assert metric.find_incomparable_path((path,)) == path


@pytest.mark.parametrize("name", ["auroc", "calibrated_loss"])
@pytest.mark.parametrize(
    "path",
    [
        "objective", "objective.generator.width", "objective.replacement_distribution",
        "encoder.size", "data.vocab",
    ],
)  # fmt: skip
def test_unigram_detection_cannot_rank_settings_that_change_the_replacements(
    path: str, name: str
) -> None:
    assert METRICS[f"detect/unigram/{name}"].find_incomparable_path(("optim.lr", path)) == path
    auroc = METRICS["detect/unigram/auroc"]
    assert auroc.find_incomparable_path(("optim.lr", "batch", "objective.mask_prob")) is None


@pytest.mark.parametrize("task", EMBEDDED)
@pytest.mark.parametrize("score", ["accuracy", "nats"])
@given(varied=st.lists(paths, max_size=4))
@settings
def test_probes_are_comparable_across_all_settings(
    task: str, score: str, varied: list[str]
) -> None:
    assert METRICS[f"probe/{task}/{score}"].find_incomparable_path(tuple(varied)) is None


@pytest.mark.parametrize("name", ["pairs/accuracy", "pairs/agreement/accuracy"])
@given(varied=st.lists(paths, max_size=4))
@settings
def test_minimal_pairs_are_comparable_across_all_settings(name: str, varied: list[str]) -> None:
    assert METRICS[name].find_incomparable_path(tuple(varied)) is None
    assert METRICS[name].needs is None


def test_metric_of_a_category_of_the_user_is_found_by_its_name() -> None:
    found = find_metric("pairs/word-order_2/accuracy")
    assert found is not None
    assert (found.direction, found.task) == ("maximize", "pairs")
    assert find_metric("pairs/a b/accuracy") is None
    assert find_metric("pairs/a/b/accuracy") is None
    assert list(select_metrics(["pairs/z/accuracy", "pairs/accuracy", "spent/flops"])) == [
        "pairs/accuracy",
        "pairs/z/accuracy",
    ]


@given(path=paths, rest=paths)
@settings
def test_spoiling_path_covers_the_paths_below_and_above_it(path: str, rest: str) -> None:
    below = f"{path}.{rest}"
    assert incomparable_across(path).find_incomparable_path((below,)) == below
    assert incomparable_across(below).find_incomparable_path((path,)) == path
    assert incomparable_across(path).find_incomparable_path((path,)) == path


def test_path_prefix_ends_at_a_dot() -> None:
    assert incomparable_across("data").find_incomparable_path(("database", "data_2.vocab")) is None
    assert (
        incomparable_across("objective.generator").find_incomparable_path(
            ("objective.generator_2",)
        )
        is None
    )


def test_first_spoiling_path_is_returned() -> None:
    assert (
        incomparable_across("data").find_incomparable_path(
            ("optim.lr", "data.vocab", "data.length")
        )
        == "data.vocab"
    )


def test_metrics_are_comparable_without_varied_settings() -> None:
    assert all(metric.find_incomparable_path(()) is None for metric in METRICS.values())


@given(a=st.floats(-9, 9), b=st.floats(-9, 9))
@settings
def test_better_is_strict_and_follows_the_direction(a: float, b: float) -> None:
    low = incomparable_across()
    high = Metric(name="m", direction="maximize", title="m")
    assert low.better(a, b) == high.better(b, a) == (a < b)
    assert not low.better(a, a)
