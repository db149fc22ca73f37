"""Labels that cannot be learned or scored are refused when a task is read, with the row."""

import json
from pathlib import Path
from typing import Any

import pytest

from lab.errors import UserError
from lab.loading.task_table import load_task
from lab.tasks import examples

CLASSES = "kind: classification"


def read(folder: Path, settings: str, train: list[Any], evaluation: list[Any]) -> examples.Examples:
    """Return a task of texts with these labels; a list of labels is a tagged sentence."""
    for split, labels in (("train", train), ("evaluation", evaluation)):
        rows = [
            {"text": f"{split} {n}", "pair": "b", "label": label}
            | (
                {"words": [f"{split}{n}"] * len(label), "tags": label}
                if isinstance(label, list)
                else {}
            )
            for n, label in enumerate(labels)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "own.yaml").write_text(
        f"{settings}\ntrain: train.jsonl\nevaluation: evaluation.jsonl\n"
    )
    return examples.read_examples(load_task(str(folder / "own.yaml")))


def refusal(folder: Path, settings: str, train: list[Any], evaluation: list[Any]) -> str:
    with pytest.raises(UserError) as error:
        read(folder, settings, train, evaluation)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "")


@pytest.mark.reported
@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro_f1", "matthews"])
@pytest.mark.parametrize("evaluation", [[-1, -1], [0, -1, 1]])
def test_an_evaluation_label_without_training_row_is_refused_with_its_row(
    tmp_path: Path, metric: str, evaluation: list[int]
) -> None:
    settings = f"{CLASSES}\nmetric: {metric}"
    line = refusal(tmp_path, settings, [0, 1, 0, 1], evaluation)
    row = evaluation.index(-1) + 1
    assert line.startswith(f"evaluation.jsonl:{row}: label: no training row has the label '-1'")
    assert "labels of the training rows: '0', '1'; -1 marks a split whose labels are not" in line


@pytest.mark.reported
def test_rare_evaluation_tags_are_errors_and_more_of_them_are_refused(tmp_path: Path) -> None:
    rare = read(tmp_path, "kind: tagging", [["x", "y"]], [["x"] * 19 + ["z"]])
    assert rare.unseen == ("z",)
    line = refusal(tmp_path, "kind: tagging", [["x", "y"]], [["x", "x"], ["-1", "-1"]])
    assert line.startswith("evaluation.jsonl:2: tags: no training word has the tag '-1'; 2 of 4")


@pytest.mark.reported
@pytest.mark.parametrize(
    ("first", "second"),
    [("1.0", "1"), ("true", "True"), ("1", " 1"), ("+2", "2.00"), (True, "true"), ("1e1", "10")],
)
def test_a_label_that_is_written_in_two_ways_is_refused_with_both_rows(
    tmp_path: Path, first: Any, second: Any
) -> None:
    """In two files, no prediction would be right; in one, a class would be cut into two."""
    line = refusal(tmp_path, CLASSES, [first, "other"], ["other", second])
    assert line.startswith(f"evaluation.jsonl:2: label: {str(second)!r} is the label")
    assert "of train.jsonl:1, written in another way" in line
    assert "train.jsonl:2" in refusal(tmp_path, CLASSES, [first, second, "other"], ["other"])


@pytest.mark.reported
@pytest.mark.parametrize(
    ("first", "second"),
    [("caf\u00e9", "cafe\u0301"), ("pos", "pos\u200b"), ("\ufeffpos", "pos"), ("p\u00ados", "pos")],
)
def test_labels_that_look_the_same_are_refused_with_both_rows(
    tmp_path: Path, first: str, second: str
) -> None:
    """Letters composed in two ways, and characters without a width: two classes on the disk."""
    line = refusal(tmp_path, CLASSES, [first, "other", second], [first, second])
    assert line.startswith(f"train.jsonl:3: label: {second!a} is the label {first!a} of train")
    assert line.isascii()


@pytest.mark.reported
@pytest.mark.parametrize("number", ["1_0", "\u0661\u0662", True, "0x1p3", "1,5", ""])
def test_texts_that_only_python_takes_for_numbers_are_refused(tmp_path: Path, number: Any) -> None:
    line = refusal(tmp_path, "kind: regression", [1.0, number], [1.0, 2.0])
    assert line.startswith("train.jsonl:2: label: must be a number, not ")


def test_codes_that_look_like_numbers_stay_different_labels(tmp_path: Path) -> None:
    codes = ["1", "01", "NA", "nan", "e5", "-", ".", "12345678901234567", "12345678901234568"]
    assert set(read(tmp_path, CLASSES, codes, codes).labels) == set(codes)


@pytest.mark.reported
@pytest.mark.parametrize("metric", ["spearman", "pearson"])
@pytest.mark.parametrize("numbers", [[3.0], [3.0, 3.0, 3.0]])
@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_numbers_without_a_correlation_are_refused(
    tmp_path: Path, metric: str, numbers: list[float], split: str
) -> None:
    settings, good = f"kind: regression\nmetric: {metric}", [1.0, 2.0]
    both = (numbers, good) if split == "training" else (good, numbers)
    line = refusal(tmp_path, settings, *both)
    assert f"the number 3 in the {split} split; a correlation needs at least two" in line
    assert (".jsonl:1: the only row has" in line) == (len(numbers) == 1)


@pytest.mark.reported
def test_numbers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    line = refusal(tmp_path, "kind: regression", [1.0, 2.0], [1.0, float("nan")])
    assert line == "evaluation.jsonl:2: label: must be a number, not nan"


@pytest.mark.reported
def test_evaluation_rows_that_make_a_metric_constant_are_refused(tmp_path: Path) -> None:
    matthews = refusal(tmp_path, f"{CLASSES}\nmetric: matthews", ["x", "y"], ["y", "y"])
    assert "all evaluation rows have the label 'y', for which metric matthews is" in matthews
    f1 = refusal(tmp_path, f"{CLASSES}\nmetric: f1", ["x", "y"], ["x", "x"])
    assert "no evaluation row has the label 'y', for which metric f1 is computed" in f1
    assert read(tmp_path, f"{CLASSES}\nmetric: accuracy", ["x", "y"], ["x", "x"]).unseen == ()
