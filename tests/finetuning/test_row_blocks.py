"""Blocks of evaluation rows: their variance is that of resampled rows, for all metrics."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lab.config.tasks import (
    ClassificationTask,
    FileRows,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
    TaskConfig,
)
from lab.finetuning.features import TaskWindow
from lab.finetuning.finetuner import FinetuneRun, default_protocol
from lab.finetuning.heads import Answer, Span
from lab.finetuning.metrics import score_task
from lab.finetuning.results import FinetuneResults
from lab.finetuning.row_blocks import find_row_blocks
from lab.score_blocks import BLOCKS
from lab.storage import sealed
from lab.tasks.examples import Example, Examples, QuestionExample, TagExample, TextExample

NOTHING = FileRows(kind="file", path="none")
ROWS: Any = {"train": NOTHING, "evaluation": NOTHING}
ONE_EACH = (TextExample("a", None, "no"), TextExample("b", None, "yes"))
R = 4 * BLOCKS
CONFIGS: dict[str, TaskConfig] = {
    "f1": ClassificationTask(kind="classification", metric="f1", **ROWS),
    "accuracy": ClassificationTask(kind="classification", **ROWS),
    "matthews": PairTask(kind="pairs", metric="matthews", **ROWS),
    "spearman": RegressionTask(kind="regression", **ROWS),
    "pearson": RegressionTask(kind="regression", metric="pearson", **ROWS),
    "accuracy of words": TaggingTask(kind="tagging", **ROWS),
    "macro_f1 of words": TaggingTask(kind="tagging", metric="macro_f1", **ROWS),
    "exact match": QuestionAnsweringTask(kind="question_answering", metric="exact_match", **ROWS),
    "f1 of answers": QuestionAnsweringTask(kind="question_answering", **ROWS),
}


def draw_answers(config: TaskConfig) -> tuple[list[Example], list[Answer]]:
    """Return rows and predictions; the rows of a block are equally hard."""
    rng = np.random.default_rng(0)
    right_R = rng.random(R) < np.repeat(rng.uniform(0.4, 1.0, BLOCKS), R // BLOCKS)
    label_R = rng.random(R) < 0.3
    match config:
        case RegressionTask():
            number_R = rng.normal(size=R)
            noise_R = np.where(right_R, 0.3, 3.0) * rng.normal(size=R)
            rows: list[Example] = [TextExample("a", None, n) for n in number_R.tolist()]
            return rows, (number_R + noise_R).tolist()
        case TaggingTask():
            words_R = rng.integers(1, 9, R).tolist()
            tags = [["nvx"[i % 3] for i in range(words)] for words in words_R]
            rows = [TagExample(["w"] * len(each), each) for each in tags]
            answers: list[Answer] = [
                ["nvx".index(tag) if right else 0 for tag in each]
                for each, right in zip(tags, right_R, strict=True)
            ]
            return rows, answers
        case QuestionAnsweringTask():
            rows = [QuestionExample("q", "u v king day", ["king day"], [4])] * R
            starts = np.where(right_R, 2, np.where(label_R, 3, 0)).tolist()
            return rows, [Span(start, max(start, 3 * (start > 0)), 1.0, 0.0) for start in starts]
        case _:
            rows = [TextExample("a", None, "yes" if label else "no") for label in label_R]
            return rows, np.where(right_R, label_R, ~label_R).astype(int).tolist()


def build_task(config: TaskConfig, rows: Sequence[Example]) -> Examples:
    is_text = isinstance(config, ClassificationTask | PairTask)
    tagged = (TagExample(["w"] * 3, list("nvx")),)
    train = ONE_EACH if is_text else tagged if isinstance(config, TaggingTask) else tuple(rows)
    return Examples(
        name="task", config=config, train=train, evaluation=tuple(rows), fingerprint="f"
    )


def windows_of(answers: Sequence[Answer]) -> list[TaskWindow]:
    """Return a window for each row; the context of questions has four words."""
    spans_N2 = np.array([[0, 1], [2, 3], [4, 8], [9, 12]])
    return [TaskWindow([], [], row, 0, spans_N2) for row in range(len(answers))]


def score(config: TaskConfig, rows: Sequence[Example], answers: Sequence[Answer]) -> float:
    scores = score_task(build_task(config, rows), windows_of(answers), answers)
    return scores[config.metric]


def find_blocks(config: TaskConfig, rows: Sequence[Example], answers: Sequence[Answer]) -> Any:
    return find_row_blocks(build_task(config, rows), windows_of(answers), answers)


@pytest.mark.parametrize("name", CONFIGS)
def test_variance_equals_that_of_a_bootstrap_of_blocks_of_rows(name: str) -> None:
    config = CONFIGS[name]
    rows, answers = draw_answers(config)
    blocks = find_blocks(config, rows, answers)
    assert len(blocks) == BLOCKS
    assert sum(blocks) == pytest.approx(0.0, abs=1e-4)
    rng = np.random.default_rng(1)
    rows_BS: npt.NDArray[np.int64] = np.arange(R).reshape(BLOCKS, -1)
    drawn = []
    for _ in range(200):
        kept = rows_BS[rng.integers(BLOCKS, size=BLOCKS)].ravel().tolist()
        drawn.append(score(config, [rows[i] for i in kept], [answers[i] for i in kept]))
    error = math.sqrt(BLOCKS * np.var(blocks, ddof=1))
    assert error == pytest.approx(np.std(drawn), rel=0.15)


def test_windows_of_one_tagged_row_are_in_one_block() -> None:
    """Rows have two windows each, so that an assignment of windows would give other blocks."""
    config = CONFIGS["macro_f1 of words"]
    rows, answers = draw_answers(config)
    windows, halves = [], []
    for row, tags in enumerate(answers):
        assert isinstance(tags, list)
        for half in (tags[:2], tags[2:]):
            windows.append(TaskWindow([], [], row))
            halves.append(half)
    assert find_row_blocks(build_task(config, rows), windows, halves) == find_blocks(
        config, rows, answers
    )


def test_small_split_has_a_block_for_each_row() -> None:
    config = CONFIGS["accuracy"]
    rows, answers = draw_answers(config)
    assert len(find_blocks(config, rows[:7], answers[:7])) == 7


@pytest.mark.parametrize("name", ["f1", "matthews", "spearman", "pearson"])
def test_score_that_is_undefined_without_a_block_has_no_blocks(name: str) -> None:
    """All rows but the first have the same label or number."""
    config = CONFIGS[name]
    is_number = isinstance(config, RegressionTask)
    labels: list[Any] = [1.0, *[0.0] * 9] if is_number else ["yes", *["no"] * 9]
    rows = [TextExample("a", None, label) for label in labels]
    answers: list[Answer] = [row / 10 for row in range(10)] if is_number else [1, 0] * 5
    assert score(config, rows, answers) != 0
    assert find_blocks(config, rows, answers) == []


@pytest.mark.parametrize("predicted", [[2.0] * R, [math.nan, *[2.0] * (R - 1)]])
def test_predictions_without_a_correlation_have_no_blocks(predicted: list[float]) -> None:
    rows, _ = draw_answers(CONFIGS["spearman"])
    assert find_blocks(CONFIGS["spearman"], rows, predicted) == []


# The median of several runs.

RUN = FinetuneRun(seed=0, scores={"accuracy": 0.5}, flops=1.0, tokens=2, seconds=3.0)


def save_runs(folder: Path, *runs: tuple[float, list[float]]) -> FinetuneResults:
    """Store a run for each score and its blocks; return the results."""
    task = build_task(CONFIGS["accuracy"], ONE_EACH)
    results = FinetuneResults(folder, task, default_protocol(16), 8)
    for seed, (accuracy, blocks) in enumerate(runs):
        results.save(replace(RUN, seed=seed, scores={"accuracy": accuracy}, blocks=blocks))
    return results


def test_blocks_of_the_median_are_those_of_the_runs_in_the_middle(tmp_path: Path) -> None:
    low, first, second, high = [1.0, -1.0], [2.0, -2.0], [4.0, -4.0], [8.0, -8.0]
    results = save_runs(tmp_path, (0.9, high), (0.6, second), (0.1, low), (0.5, first))
    assert results.median_blocks(1) == high
    assert results.median_blocks(3) == second
    assert results.median_blocks(4) == [3.0, -3.0]
    assert results.median_blocks(5) == []


def test_median_has_no_blocks_if_a_run_in_the_middle_has_none(tmp_path: Path) -> None:
    """A run at the end of the order needs none."""
    results = save_runs(tmp_path, (0.1, []), (0.5, [1.0, -1.0]), (0.9, [2.0, -2.0]))
    assert results.median_blocks(3) == [1.0, -1.0]
    assert results.median_blocks(2) == []


def test_blocks_of_the_median_predict_its_change_on_resampled_rows(tmp_path: Path) -> None:
    """The variance equals that of the median of five runs over a bootstrap of blocks."""
    rng = np.random.default_rng(2)
    level_R = np.repeat(rng.uniform(0.2, 1.0, BLOCKS), R // BLOCKS)
    right_SR = rng.random((5, R)) < level_R + np.linspace(-0.2, 0.2, 5)[:, None]
    rows = [TextExample("a", None, "no")] * R
    config = CONFIGS["accuracy"]
    runs = []
    for right_R in right_SR:
        answers: list[Answer] = (~right_R).astype(int).tolist()
        runs.append((score(config, rows, answers), find_blocks(config, rows, answers)))
    blocks = save_runs(tmp_path, *runs).median_blocks(5)
    drawn_DB = rng.integers(BLOCKS, size=(2_000, BLOCKS))
    means_SB = right_SR.reshape(5, BLOCKS, -1).mean(2)
    medians_D = np.median(means_SB[:, drawn_DB].mean(2), axis=0)
    error = math.sqrt(BLOCKS * np.var(blocks, ddof=1))
    assert error == pytest.approx(medians_D.std(), rel=0.1)


def test_stored_runs_without_blocks_are_read(tmp_path: Path) -> None:
    """Content without the entry, as of earlier versions."""
    results = save_runs(tmp_path, (0.5, [1.0, -1.0]))
    content = sealed.read(results.file)
    del content["runs"][0]["blocks"]
    sealed.write(results.file, content)
    assert results.runs() == {0: RUN}
    assert results.median_blocks(1) == []
