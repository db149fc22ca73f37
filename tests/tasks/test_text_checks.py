"""Texts that nothing can be learned from are refused when a task is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from lab.errors import UserError
from lab.loading.task_table import load_task
from lab.tasks import examples

pytestmark = pytest.mark.reported
TASK = "kind: classification\ntrain: train.jsonl\nevaluation: evaluation.jsonl\n"


def read(folder: Path, train: list[str], evaluation: list[str]) -> examples.Examples:
    """Return a task of these texts with two labels in turn."""
    for split, texts in (("train", train), ("evaluation", evaluation)):
        rows: list[dict[str, Any]] = [{"text": t, "label": n % 2} for n, t in enumerate(texts)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "own.yaml").write_text(TASK)
    return examples.read_examples(load_task(str(folder / "own.yaml")))


def test_evaluation_rows_that_are_trained_on_are_refused(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(10)]
    with pytest.raises(UserError, match="own: 10 of 10 evaluation rows have the text of a train"):
        read(tmp_path, texts, texts)
    with pytest.raises(UserError, match=r"own: 3 of 4 .*, \S*evaluation.jsonl:2 for example; at"):
        read(tmp_path, texts, ["new", *texts[:3]])


def test_few_repeated_texts_are_counted(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(10)]
    assert read(tmp_path, texts, ["new", "newer", *texts[:2]]).repeated == 2
    assert read(tmp_path, texts, ["new", "newer"]).repeated == 0


@pytest.mark.parametrize("text", ["", "N/A"])
def test_a_column_with_one_text_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="own: all 4 training rows have the same text, '"):
        read(tmp_path, [text] * 4, ["a", "b"])
