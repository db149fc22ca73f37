"""A metric says across what it may be compared, and why not."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.config.metrics import CORRUPTIONS, METRICS, PROBES, Metric

settings = hypothesis_settings(deadline=None)
names = st.sampled_from(["objective", "objectives", "generator", "width", "data", "lr"])
paths = st.lists(names, min_size=1, max_size=4).map(".".join)


def spoiled_by(*prefixes: str) -> Metric:
    return Metric(name="m", direction="minimize", title="m", spoiled_by=prefixes, because="so")


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_metric_says_why_it_is_spoiled_exactly_where_it_can_be(metric: Metric) -> None:
    assert bool(metric.because) == bool(metric.spoiled_by)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_found_by_its_own_name_and_has_a_title(name: str) -> None:
    assert METRICS[name].name == name
    assert METRICS[name].title


def test_every_corruption_and_probe_has_its_metric() -> None:
    assert {f"detect/{source}/auroc" for source in CORRUPTIONS} <= METRICS.keys()
    assert {f"probe/{task}/accuracy" for task in PROBES} <= METRICS.keys()


@pytest.mark.parametrize("name", [name for name in METRICS if name.startswith("train/")])
@pytest.mark.parametrize(
    "path",
    ["objective", "objective.generator.width", "objective.mask_prob", "encoder.size", "data.vocab"],
)
def test_a_raw_loss_never_ranks_objectives_or_encoders(name: str, path: str) -> None:
    assert METRICS[name].spoiler((path,)) == path


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
def test_a_loss_that_holds_the_discriminators_ranks_no_training(name: str, path: str) -> None:
    assert METRICS[name].spoiler((path,)) == path


@pytest.mark.parametrize("source", CORRUPTIONS)
def test_auroc_survives_the_generator_and_not_the_tokenizer(source: str) -> None:
    auroc = METRICS[f"detect/{source}/auroc"]
    assert auroc.spoiler(("objective.generator.width", "encoder.size", "optim.lr")) is None
    assert auroc.spoiler(("optim.lr", "data.vocab")) == "data.vocab"


@pytest.mark.parametrize("task", PROBES)
@given(varied=st.lists(paths, max_size=4))
@settings
def test_nothing_spoils_a_probe(task: str, varied: list[str]) -> None:
    assert METRICS[f"probe/{task}/accuracy"].spoiler(tuple(varied)) is None


@given(path=paths, rest=paths)
@settings
def test_a_spoiler_covers_what_lies_below_it_and_what_holds_it(path: str, rest: str) -> None:
    below = f"{path}.{rest}"
    assert spoiled_by(path).spoiler((below,)) == below
    assert spoiled_by(below).spoiler((path,)) == path
    assert spoiled_by(path).spoiler((path,)) == path


def test_a_prefix_ends_at_a_dot() -> None:
    assert spoiled_by("data").spoiler(("database", "data_2.vocab")) is None
    assert spoiled_by("objective.generator").spoiler(("objective.generator_2",)) is None


def test_the_first_spoiler_is_named() -> None:
    assert spoiled_by("data").spoiler(("optim.lr", "data.vocab", "data.length")) == "data.vocab"


def test_without_variation_nothing_is_spoiled() -> None:
    assert all(metric.spoiler(()) is None for metric in METRICS.values())


@given(a=st.floats(-9, 9), b=st.floats(-9, 9))
@settings
def test_better_is_strict_and_follows_the_direction(a: float, b: float) -> None:
    low = spoiled_by()
    high = Metric(name="m", direction="maximize", title="m")
    assert low.better(a, b) == high.better(b, a) == (a < b)
    assert not low.better(a, a)
