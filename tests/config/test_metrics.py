"""Metrics declare the settings across which their values are not comparable, with a reason."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.config.metrics import CORRUPTIONS, METRICS, Metric
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


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_the_name_of_its_key_and_a_title(name: str) -> None:
    assert METRICS[name].name == name
    assert METRICS[name].title


def test_every_corruption_and_probe_has_a_metric() -> None:
    assert {f"detect/{source}/auroc" for source in CORRUPTIONS} <= METRICS.keys()
    assert {f"probe/{task}/accuracy" for task in EMBEDDED} <= METRICS.keys()


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
def test_auroc_is_comparable_between_generators_but_not_between_tokenizers(source: str) -> None:
    auroc = METRICS[f"detect/{source}/auroc"]
    assert (
        auroc.find_incomparable_path(("objective.generator.width", "encoder.size", "optim.lr"))
        is None
    )
    assert auroc.find_incomparable_path(("optim.lr", "data.vocab")) == "data.vocab"


@pytest.mark.parametrize("name", ["auroc", "loss"])
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
@given(varied=st.lists(paths, max_size=4))
@settings
def test_probes_are_comparable_across_all_settings(task: str, varied: list[str]) -> None:
    assert METRICS[f"probe/{task}/accuracy"].find_incomparable_path(tuple(varied)) is None


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
