"""Sweeps are ranked together only where their scores are comparable."""

import dataclasses
import json
from typing import Any

import pytest
from frames.compared_sweeps import DATA, FIRST, SECOND, SETTINGS, read, sweep
from simulated.sweeps import METRIC

from lab.config.metrics import METRICS
from lab.reporting.comparison.comparability import find_obstacle, list_doubts
from lab.tracking import tags
from lab.tracking.code_versions import CodeVersion

PAIRS = "pairs/accuracy"


def test_sweeps_with_equal_contents_are_comparable() -> None:
    for metric in (METRIC, "probe/pos/accuracy", PAIRS):
        sweeps = read(sweep("one", FIRST, metric), sweep("two", SECOND, metric))
        assert find_obstacle(sweeps, across_code=False) == ""
        assert list(list_doubts(sweeps)) == []


@pytest.mark.parametrize(
    ("metric", "settings", "changes", "reason"),
    [
        ("detect/mlm/auroc", {}, {}, "the sweeps are ranked by different metrics"),
        (METRIC, {}, {tags.ANSWER: "path"}, "two tests the steps from text to report"),
        (METRIC, {"evaluations": 8}, {}, "trials differ in evaluations (4, 8): scores at"),
        (METRIC, {"budget.kind": "tokens"}, {}, "trials differ in budget.kind (flops, tokens)"),
        (METRIC, {"data.vocab": 512}, {}, "detect/bigram/auroc cannot rank trials that differ in "
         "data.vocab: the held-out examples consist of"),
        (METRIC, {"data.layout": "full"}, {}, "cannot rank trials that differ in data.layout"),
        (METRIC, {}, {tags.DATA: DATA.replace("1a2b", "0000")}, "the sweeps have different text "
         "(text-1a2b in one; text-0000 in two)"),
        (METRIC, {}, {tags.DATA: DATA.replace("3c4d", "0000")}, "the sweeps have different "
         "corruptions of the held-out text (held-out-3c4d.npz in one; held-out-0000.npz in two)"),
        (METRIC, {}, {tags.DATA: ""}, "the hash of the text is not recorded for two"),
    ],
)  # fmt: skip
def test_sweeps_without_comparable_scores_are_refused_with_the_reason(
    metric: str, settings: dict[str, Any], changes: dict[str, str], reason: str
) -> None:
    second = sweep("two", SECOND, metric, SETTINGS | settings, **changes)
    for sweeps in ((sweep("one", FIRST), second), (second, sweep("one", FIRST))):
        obstacle = find_obstacle(read(*sweeps), across_code=False)
        if sweeps[1] is second:
            assert reason in obstacle
        assert obstacle


@pytest.mark.parametrize(
    ("metric", "settings", "examples", "reason"),
    [
        (PAIRS, {"data.vocab": 512}, {"pairs": "aa"}, ""),
        (PAIRS, {}, {"pairs": "bb"}, "different minimal pairs (aa in one; bb in two)"),
        (PAIRS, {}, {}, "hash of the minimal pairs is not recorded for two"),
        (PAIRS, {"data.share": 0.5}, {"pairs": "aa"}, "different texts: they differ in data.share"),
        ("finetune/rte", {}, {"finetune/rte": "dd"}, "different examples of rte (cc in one; dd in"),
        ("finetune/rte", {"data.length": 64}, {"finetune/rte": "cc"}, ""),
        ("probe/pos/accuracy", {"data.length": 64}, {}, ""),
    ],
)
def test_scores_that_are_defined_on_texts_are_comparable_across_vocabularies(
    metric: str, settings: dict[str, Any], examples: dict[str, str], reason: str
) -> None:
    known = {tags.EXAMPLES: json.dumps({"pairs": "aa", "finetune/rte": "cc"})}
    first = sweep("one", FIRST, metric, **known)
    own = {tags.EXAMPLES: json.dumps(examples), tags.DATA: "text-0000 pairs-0000.json"}
    own = own if settings else own | {tags.DATA: DATA.replace("5e6f", "0000")}
    second = sweep("two", SECOND, metric, SETTINGS | settings, **own)
    obstacle = find_obstacle(read(first, second), across_code=False)
    assert reason in obstacle
    assert bool(obstacle) is bool(reason)


def test_texts_in_files_with_other_vocabularies_are_doubted() -> None:
    files = SETTINGS | {"data.source.kind": "files"}
    first = sweep("one", FIRST, "probe/pos/accuracy", files)
    other = {tags.DATA: "text-0000"}
    second = sweep("two", SECOND, "probe/pos/accuracy", files | {"data.vocab": 512}, **other)
    assert find_obstacle(read(first, second), across_code=False) == ""
    assert "do not show whether the files have the same content" in next(
        list_doubts(read(first, second))
    )


def test_versions_of_the_code_are_compared_on_request() -> None:
    version = CodeVersion(code="ffff", trials=3, commits=())
    second = dataclasses.replace(sweep("two", SECOND), codes=(version,))
    sweeps = read(sweep("one", FIRST), second)
    assert find_obstacle(sweeps, across_code=False) == (
        "the trials were computed by different versions of the code (c0de in one; ffff in two), "
        "which --across-code compares"
    )
    assert find_obstacle(sweeps, across_code=True) == ""
    assert "a difference between sweeps may be one of the code" in next(list_doubts(sweeps))


def test_metrics_across_documents_are_those_that_select_them() -> None:
    """The comparability of texts is that of this metric."""
    assert METRICS["mlm/nats_per_character"].incomparable_across == (
        "data.source", "data.share", "data.held_out", "data.bad_text"
    )  # fmt: skip
