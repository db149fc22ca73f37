"""A report states the settings that change its ranking metric without any training."""

from typing import Any

import pandas as pd

from lab.reporting.confounding import describe_bias, describe_confounding
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

TRIALS = {
    "number": [0, 1, 2],
    "encoder.size": ["nano", "tiny", "tiny"],
    "encoder.hidden": [64, 128, 128],
    "encoder.layers": [2, 2, 2],
    "data.vocab": [2_048, 2_048, None],  # the process of the last trial stored no parameters
    "data": ['{"share": 1}', '{"share": 0.5}', '{"share": 0.5}'],
    "probe/pos/accuracy": [0.6, 0.7, 0.7],
    "detect/bigram/auroc": [0.6, 0.7, None],
    "detect/mlm/auroc": [None, None, None],
    "finetune/sentiment": [0.6, 0.7, 0.7],
    "finetune/flops": [1e9, 1e9, 1e9],
}


def make_frames(metric: str, answer: str, columns: dict[str, Any]) -> SweepFrames:
    return SweepFrames(
        name="sizes",
        sweep={tags.METRIC: metric, tags.ANSWER: answer},
        measures={},
        texts={},
        trials=pd.DataFrame(TRIALS | {k.replace("__", "."): v for k, v in columns.items()}),
        curves=pd.DataFrame(),
    )


def describe(metric: str = "probe/pos/accuracy", answer: str = "ranking", **columns: Any) -> str:
    lines = describe_confounding(make_frames(metric, answer, columns))
    assert all(name == "confounded" for name, _ in lines)
    return "\n".join(text for _, text in lines)


def test_confounding_setting_is_stated_with_recorded_alternatives() -> None:
    text = describe()
    assert text.startswith("probe/pos/accuracy is confounded with encoder.hidden, in which trials")
    assert text.endswith("not depend on them: detect/bigram/auroc, finetune/sentiment")


def test_detection_is_no_alternative_across_vocabularies() -> None:
    text = describe(data__vocab=[512, 2_048, 2_048])
    assert "confounded with encoder.hidden, data.vocab, in which" in text
    assert text.endswith("not depend on them: finetune/sentiment")


def test_nothing_is_stated_where_nothing_confounds_a_ranking() -> None:
    assert describe(encoder__hidden=[64, 64, 64]) == ""
    assert describe("detect/bigram/auroc") == ""
    assert describe(answer="noise") == ""


GENERATORS = {"objective.generator.width": [0.25, 1.0, 1.0], "encoder.hidden": [64, 64, 64]}


def test_detection_across_generators_is_stated_with_recorded_neutral_scores() -> None:
    columns = GENERATORS | {"pairs/accuracy": [0.6, 0.6, 0.6]}
    ((name, text),) = describe_bias(make_frames("detect/bigram/auroc", "ranking", columns))
    assert name == "not neutral"
    assert text.startswith(
        "detect/bigram/auroc is not neutral between trials that differ in objective.generator.width"
    )
    assert text.endswith("scores that are: probe/pos/accuracy, pairs/accuracy, finetune/sentiment")


def test_neutral_ranking_has_no_line() -> None:
    assert describe_bias(make_frames("probe/pos/accuracy", "ranking", GENERATORS)) == []
    assert describe_bias(make_frames("detect/bigram/auroc", "noise", GENERATORS)) == []
    assert describe_bias(make_frames("detect/bigram/auroc", "ranking", {})) == []
