"""What spoils a ranking metric is an error or a warning that names metrics that are not spoiled."""

from typing import Any

import pytest

from lab.config.experiment import Experiment
from lab.config.metrics import METRICS, alternative_metrics
from lab.loading import search_space, sweep_warnings
from lab.loading.error_messages import SpaceError

SIZES = {"encoder.size": ["nano", "tiny"]}
WIDTHS: dict[str, Any] = {"objective.generator.width": [0.25, 0.5]}


def load(metric: str, compare: dict[str, Any], **sections: Any) -> Experiment:
    document: dict[str, Any] = {
        "question": "Which one?",
        "metric": metric,
        "base": {
            "encoder": {"size": "nano"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e12},
        },
        "compare": compare,
        "search": {"seeds": 3},
    }
    return search_space.check_experiment("comparison", document | sections)


def warnings(metric: str, compare: dict[str, Any], **sections: Any) -> list[str]:
    return list(sweep_warnings.collect_warnings(load(metric, compare, **sections)))


def alternatives(message: str) -> tuple[set[str], set[str]]:
    """Return the metrics that a message offers, and those that it calls confounded."""
    listed = "comparable here: " + message.partition("comparable here: ")[2]
    parts = dict(part.split(": ") for part in listed.split("; "))
    return set(parts["comparable here"].split(", ")), set(
        parts["confounded"].split(", ") if "confounded" in parts else ()
    )


def test_probe_across_encoder_sizes_gives_a_warning_with_alternatives() -> None:
    (warning,) = warnings("probe/pos/accuracy", SIZES)
    assert warning.startswith(
        "metric: probe/pos/accuracy is confounded with encoder.hidden, encoder.embedding, in which "
        "trials differ: even an untrained encoder scores higher with wider embeddings"
    )
    clean, confounded = alternatives(warning)
    assert {"detect/bigram/auroc", "detect/mlm/auroc", "finetune/TASK"} <= clean
    assert {"probe/pos/accuracy", "probe/sentiment/accuracy"} <= confounded


@pytest.mark.parametrize(
    ("compare", "path"),
    [
        ({"encoder.embedding": [16, 64]}, "encoder.embedding"),
        ({"data.length": [16, 64]}, "data.length"),
        ({"data.vocab": [512, 8192]}, "data.vocab"),
        (
            {"data.tokenizer": [{"kind": "trained"}, {"kind": "trained", "cased": True}]},
            "data.tokenizer.cased",
        ),
        ({"encoder": [{"size": "nano"}, {"size": "nano", "embedding": 32}]}, "encoder.embedding"),
    ],
)
def test_probe_across_a_shape_gives_a_warning(compare: dict[str, Any], path: str) -> None:
    (warning,) = warnings("probe/pos/accuracy", compare)
    assert f"is confounded with {path}, in which" in warning


@pytest.mark.parametrize("metric", ["detect/bigram/auroc", "probe/pos/accuracy"])
def test_settings_of_the_training_alone_give_no_warning(metric: str) -> None:
    assert warnings(metric, {"optim.lr": [1e-3, 2e-3]}) == []
    assert warnings(metric, {"encoder.layers": [1, 4]}) == []


def test_detection_across_encoder_sizes_gives_no_warning() -> None:
    assert warnings("detect/bigram/auroc", SIZES) == []


def test_sweep_without_a_ranking_gives_no_warning() -> None:
    assert warnings("probe/pos/accuracy", SIZES, answer="noise") == []
    assert warnings("detect/bigram/auroc", WIDTHS, answer="noise") == []


@pytest.mark.parametrize("source", ["bigram", "mlm"])
@pytest.mark.parametrize("score", ["auroc", "calibrated_loss"])
@pytest.mark.parametrize(
    ("compare", "path"),
    [
        (WIDTHS, "objective.generator.width"),
        ({"objective.kind": ["electra", "electra_15"]}, "objective.kind"),
        (
            {
                "objective": [
                    {"kind": "random", "replacement_distribution": name}
                    for name in ("uniform", "unigram")
                ]
            },
            "objective.replacement_distribution",
        ),
    ],
)
def test_detection_across_replacements_gives_a_warning_with_neutral_scores(
    source: str, score: str, compare: dict[str, Any], path: str
) -> None:
    metric = f"detect/{source}/{score}"
    (warning,) = warnings(metric, compare)
    start = f"metric: {metric} is not neutral between trials that differ in "
    assert warning.startswith(start)
    assert path in warning.removeprefix(start).partition(": ")[0].split(", ")
    neutral, confounded = alternatives(warning)
    assert {
        "mlm/nats_per_character",
        "pairs/accuracy",
        "probe/pos/nats",
        "finetune/TASK",
    } <= neutral
    assert not any(name.startswith("detect/") for name in neutral | confounded)
    assert f"; not neutral: {'detect/unigram/auroc, ' * ('.kind' in path)}" in warning


@pytest.mark.parametrize("metric", ["mlm/nats_per_character", "pairs/accuracy", "probe/pos/nats"])
def test_scores_without_replacements_are_neutral_between_generators(metric: str) -> None:
    assert warnings(metric, WIDTHS) == []


def test_tuned_generator_gives_a_warning() -> None:
    tune = {"objective.generator.width": {"choices": [0.25, 1]}}
    search = {"sampler": "grid", "trials": 2, "seeds": 3}
    compare = {"optim.lr": [1e-3, 2e-3]}
    (warning,) = warnings("detect/bigram/auroc", compare, tune=tune, search=search)
    assert "is not neutral between trials that differ in objective.generator.width:" in warning


def test_probe_is_the_alternative_within_a_width_only() -> None:
    (warning,) = warnings("detect/bigram/auroc", WIDTHS | {"encoder.embedding": [16, 64]})
    neutral, confounded = alternatives(warning)
    assert "pairs/accuracy" in neutral
    assert {"probe/pos/nats", "mlm/nats_per_character"} <= confounded


def test_tuned_shape_gives_a_warning() -> None:
    tune = {"encoder.embedding": {"choices": [32, 64]}}
    search = {"sampler": "grid", "trials": 2, "seeds": 3}
    (warning,) = warnings(
        "probe/pos/accuracy", {"optim.lr": [1e-3, 2e-3]}, tune=tune, search=search
    )
    assert "is confounded with encoder.embedding, in" in warning


def test_refused_metric_names_those_that_can_rank() -> None:
    with pytest.raises(SpaceError) as caught:
        load("detect/bigram/auroc", {"data.length": [16, 32]})
    clean, confounded = alternatives(str(caught.value))
    assert "finetune/TASK" in clean
    assert "probe/pos/accuracy" in confounded
    assert not any(name.startswith("detect/") for name in clean | confounded)
    with pytest.raises(SpaceError) as caught:
        load("train/loss", {"objective": [{"kind": "electra"}, {"kind": "mlm"}]})
    clean, confounded = alternatives(str(caught.value))
    assert {"probe/pos/accuracy", "finetune/TASK"} <= clean
    assert not confounded
    # mlm has no discriminator, so that detection cannot rank it.
    assert not any(name.startswith("detect/") for name in clean)


def test_losses_of_the_training_are_no_alternatives() -> None:
    networks = ("generator", "discriminator", "predictor")
    names, confounded, biased = alternative_metrics((), networks)
    assert confounded == biased == []
    assert {name for name in METRICS if name not in names} == {
        name for name in METRICS if name.startswith("train/")
    }
