"""Built-in tasks, tasks of a user, and their rows."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.config import tasks
from lab.config.tasks import FileRows, HubRows, Task
from lab.errors import UserError
from lab.loading.task_table import TASKS, load_task
from lab.tasks import embedded, examples
from lab.tasks.examples import QuestionExample, TagExample, TextExample

# GLUE in nyu-mll/glue: columns, evaluation split, metric and epochs. Metrics are from Wang et al.
# 2019, table 1; accuracy for MRPC and QQP, and Spearman for STS-B, from the ELECTRA paper, section
# 3.1.
GLUE = {
    "cola": (("sentence",), "validation", "matthews", 3),
    "sst2": (("sentence",), "validation", "accuracy", 3),
    "mrpc": (("sentence1", "sentence2"), "validation", "accuracy", 3),
    "stsb": (("sentence1", "sentence2"), "validation", "spearman", 10),
    "qqp": (("question1", "question2"), "validation", "accuracy", 3),
    "mnli": (("premise", "hypothesis"), "validation_matched", "accuracy", 3),
    "qnli": (("question", "sentence"), "validation", "accuracy", 3),
    "rte": (("sentence1", "sentence2"), "validation", "accuracy", 10),
    "wnli": (("sentence1", "sentence2"), "validation", "accuracy", 3),
}


def test_built_in_tasks_are_those_of_glue_and_of_the_package() -> None:
    assert set(TASKS) == {*GLUE, "sentiment", "pos"}
    assert all(name == task.name for name, task in TASKS.items())


@pytest.mark.parametrize("name", GLUE)
def test_glue_tasks_have_the_columns_and_metrics_of_the_paper(name: str) -> None:
    columns, split, metric, epochs = GLUE[name]
    form = TASKS[name].config
    texts = (getattr(form, "text", ""), getattr(form, "pair", ""))
    assert tuple(text for text in texts if text) == columns
    assert (form.metric, form.epochs) == (metric, epochs)
    assert isinstance(form.train, HubRows)
    assert isinstance(form.evaluation, HubRows)
    assert {rows.name for rows in (form.train, form.evaluation)} == {"nyu-mll/glue"}
    assert {rows.configuration for rows in (form.train, form.evaluation)} == {name}
    assert (form.train.split, form.evaluation.split) == ("train", split)


def test_unordered_tasks_are_those_of_the_official_code() -> None:
    assert {n for n, t in TASKS.items() if getattr(t.config, "unordered", False)} == {
        "mrpc",
        "stsb",
    }


@pytest.mark.parametrize("name", ["pos", "sentiment"])
def test_tasks_of_the_package_use_all_of_their_rows(name: Any) -> None:
    task_examples = examples.read_examples(TASKS[name])
    splits = {split: list(embedded.read_embedded_rows(name, split)) for split in ("train", "test")}
    sizes = (len(task_examples.train), len(task_examples.evaluation))
    assert sizes == tuple(map(len, splits.values()))
    if name == "pos":  # no document is in both splits
        documents = [{row["doc"] for row in rows} for rows in splits.values()]
        assert documents[0].isdisjoint(documents[1])
    else:
        assert task_examples.labels == ("neg", "pos")


ROWS = [{"text": "NA", "label": "yes"}, {"text": 'a "b', "label": "no"}, {"text": "", "label": 1}]


def write_rows(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"rows{suffix}"
    match suffix:
        case ".csv":
            with file.open("w", newline="") as opened:
                table = csv.DictWriter(opened, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        case ".tsv":
            lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
            file.write_text("\n".join(lines))
        case ".jsonl":
            file.write_text("\n\n".join(json.dumps(row) for row in rows))
        case ".json":
            file.write_text(json.dumps(rows))
        case ".parquet":
            from datasets import Dataset

            texts = [{key: str(value) for key, value in row.items()} for row in rows]
            Dataset.from_list(texts).to_parquet(file)
    return file


@pytest.mark.parametrize("suffix", tasks.FORMATS)
def test_every_file_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    """NA, a single quotation mark and an empty cell are read as text."""
    file = write_rows(tmp_path, suffix, ROWS)
    (tmp_path / "other").mkdir()
    other = write_rows(tmp_path / "other", suffix, [{"text": "other", "label": "no"}])
    (tmp_path / "mine.yaml").write_text(
        f"kind: classification\ntrain: {file.name}\nevaluation: other/{other.name}\n"
    )
    task_examples = examples.read_examples(load_task(str(tmp_path / "mine.yaml")))
    assert task_examples.train == tuple(TextExample(r["text"], None, str(r["label"])) for r in ROWS)


def test_folder_saved_by_datasets_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = [{"sentence": "a b", "label": 1}, {"sentence": "c", "label": 0}]
    other = [row | {"sentence": row["sentence"] * 2} for row in rows]
    saved = {"train": Dataset.from_list(rows), "validation": Dataset.from_list(other)}
    DatasetDict(saved).save_to_disk(tmp_path / "cola")
    task_examples = examples.read_examples(load_task("cola", tmp_path))
    assert task_examples.train == (TextExample("a b", None, "1"), TextExample("c", None, "0"))


def test_glue_task_is_read_from_the_split_files_of_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "mnli").mkdir()
    for split in ("train", "validation_matched"):
        (tmp_path / "mnli" / f"{split}.tsv").write_text("premise\thypothesis\tlabel\na\tb\t2\n")
    form = load_task("mnli", tmp_path).config
    assert isinstance(form.evaluation, FileRows)
    assert form.evaluation.path == str(tmp_path / "mnli" / "validation_matched.tsv")
    with pytest.raises(UserError, match="has no train"):
        load_task("rte", tmp_path)


def test_files_of_squad_are_read(tmp_path: Path) -> None:
    answered = {"question": "Name?", "id": "1", "answers": [{"text": "Bo", "answer_start": 3}]}
    impossible = {"question": "Why?", "id": "2", "answers": [], "is_impossible": True}
    article = {"title": "t", "paragraphs": [{"context": "Ah Bo", "qas": [answered, impossible]}]}
    content = json.dumps({"version": "v2.0", "data": [article]})
    (tmp_path / "squad.json").write_text(content)
    (tmp_path / "other.json").write_text(content.replace("Ah", "Oh"))
    (tmp_path / "squad.yaml").write_text(
        "kind: question_answering\ntrain: squad.json\nevaluation: other.json\n"
    )
    task_examples = examples.read_examples(load_task(str(tmp_path / "squad.yaml")))
    assert task_examples.train == (
        QuestionExample("Name?", "Ah Bo", ["Bo"], [3]),
        QuestionExample("Why?", "Ah Bo", [], []),
    )


Own = Callable[..., Task]
TEXTS = ("text", "words", "question")


def in_capitals(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the texts in capitals; cells of another type are unchanged."""
    changed = {key: cell.upper() for key, cell in row.items() if isinstance(cell, str)}
    if isinstance(row.get("words"), list):
        changed["words"] = [word.upper() for word in row["words"]]
    return row | {key: changed[key] for key in TEXTS if key in changed}


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Return a function that loads a task from YAML text and training rows.

    The evaluation rows are the same, but for texts in other letters.
    """

    def own(yaml: str, *rows: dict[str, Any]) -> Task:
        other = [in_capitals(row) if isinstance(row, dict) else row for row in rows]
        for name, part in (("rows", rows), ("other", other)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in part))
        (tmp_path / "own.yaml").write_text(f"train: rows.jsonl\nevaluation: other.jsonl\n{yaml}")
        return load_task(str(tmp_path / "own.yaml"))

    return own


def test_words_are_a_list_or_separated_by_spaces(own: Own) -> None:
    rows = {"words": ["a", "b"], "tags": ["x", 1]}, {"words": "a  c", "tags": "x y"}
    task_examples = examples.read_examples(own("kind: tagging", *rows))
    assert task_examples.train == (
        TagExample(["a", "b"], ["x", "1"]),
        TagExample(["a", "c"], ["x", "y"]),
    )


def test_prepared_examples_equal_those_read_from_rows(own: Own, tmp_path: Path) -> None:
    row = {"text": "a", "label": 1, "words": "a", "tags": "x", "question": "q", "context": "a b"}
    for kind in ("classification", "regression", "tagging", "question_answering"):
        other = row | {"label": 2, "tags": "y", "text": "c", "words": "c", "question": "r"}
        task = own(f"kind: {kind}", row | {"answers": ANSWERS}, other | {"answers": ANSWERS})
        file = examples.prepare_examples(task, tmp_path / "cache")
        assert examples.open_examples(file) == examples.read_examples(task)
        assert examples.prepare_examples(task, tmp_path / "cache") == file


def test_fingerprint_depends_on_examples_and_epochs_but_not_on_the_metric(own: Own) -> None:
    rows = {"text": "a", "label": "x"}, {"text": "b", "label": "y"}
    first = examples.read_examples(own("kind: classification", *rows)).fingerprint
    assert (
        examples.read_examples(own("kind: classification\nmetric: macro_f1", *rows)).fingerprint
        == first
    )
    others = {
        examples.read_examples(own("kind: classification\nepochs: 4", *rows)).fingerprint,
        examples.read_examples(own("kind: classification", *reversed(rows))).fingerprint,
    }
    assert len(others | {first}) == 3


SPLITS = "train: a.csv\nevaluation: b.csv\n"
BAD_YAML = {
    "no kind": (
        SPLITS,
        "kind: required, but missing; must be one of classification, pairs, question_answering",
    ),
    "unknown kind": (SPLITS + "kind: ner", "kind: must be one of classification, pairs,"),
    "no evaluation": ("kind: tagging\ntrain: a.csv", "evaluation: required, but missing"),
    "unknown key": (SPLITS + "kind: tagging\npair: b", "pair: unknown key; allowed: kind, train,"),
    "unknown metric": (
        SPLITS + "kind: regression\nmetric: accuracy",
        "metric: must be one of spearman, pearson, not 'accuracy'",
    ),
    "no epochs": (SPLITS + "kind: pairs\nepochs: 0", "epochs: must be at least 1, not 0"),
    "rows of no kind": (
        "kind: pairs\nevaluation: b.csv\ntrain: {path: a.csv}",
        "train.kind: required, but missing; must be one of carried, file, hub, saved",
    ),
    "no split": (
        "kind: pairs\nevaluation: b.csv\ntrain: {kind: hub, name: x}",
        "train.split: required, but missing",
    ),
    "a list": ("[1, 2]", "a task is a mapping with kind, train and evaluation"),
    "not YAML": ("kind: [", "not YAML"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_invalid_yaml_is_rejected_in_one_line(tmp_path: Path, case: str) -> None:
    text, message = BAD_YAML[case]
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_task(str(tmp_path / "own.yaml"))
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'own.yaml'}: ")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["glue", "flops.yaml", "a b.yaml", "nowhere.yaml"])
def test_missing_task_is_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=name):
        load_task(name)


ANSWERS = {"text": ["b"], "answer_start": [2]}
BAD_ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no column": ("kind: classification", {"text": "a", "lable": 1}, "no column 'label'; columns:"),
    "no text": ("kind: classification", {"text": None, "label": 1}, "text: must be text, not null"),
    "no label": ("kind: classification", {"text": "a", "label": None}, "label: must be text or"),
    "half a label": ("kind: classification", {"text": "a", "label": 0.5}, "label: must be text or"),
    "no number": ("kind: regression", {"text": "a", "label": "x"}, "label: must be a number"),
    "infinite": ("kind: regression", {"text": "a", "label": "inf"}, "label: must be a number"),
    "too few tags": ("kind: tagging", {"words": "a b", "tags": "x"}, "tags: 1 tags for 2 words"),
    "no words": ("kind: tagging", {"words": [], "tags": []}, "words: no words"),
    "no list": ("kind: tagging", {"words": 3, "tags": []}, "words: must be a list or text"),
    "answers of a form": (
        "kind: question_answering",
        {"question": "q", "context": "a b", "answers": ["b"]},
        "answers: must be {text: [...], answer_start: [...]}",
    ),
    "answer elsewhere": (
        "kind: question_answering",
        {"question": "q", "context": "ab ", "answers": ANSWERS},
        "answers: 'b' is not in the context at character 2",
    ),
    "no object": ("kind: classification", [1], "not a JSON object"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_invalid_row_is_named(own: Own, tmp_path: Path, case: str) -> None:
    yaml, row, message = BAD_ROWS[case]
    good = {"text": "a", "label": 1, "words": "a", "tags": "x", "question": "q", "context": "a b"}
    with pytest.raises(UserError) as error:
        examples.read_examples(own(yaml, good | {"answers": ANSWERS}, row))
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'rows.jsonl'}:2: {message}")
    assert "\n" not in line


BAD_FILES = {
    "rows.csv": ("text,label\na,1\nb\n", "rows.csv:2: number of cells differs from the header"),
    "more.csv": ("text,label\na,1,2\n", "more.csv:1: number of cells differs from the header"),
    "rows.jsonl": ('{"text": "a", "label": 1}\n{\n', "rows.jsonl:2: not JSON"),
    "rows.json": ('{"data": 3}', "rows.json: neither a list of rows nor the format of"),
    "rows.parquet": ("PAR", "rows.parquet: not Parquet"),
    "empty.csv": ("text,label\n", "empty.csv: no rows"),
    "rows.txt": ("a", "rows.txt: unknown table format; allowed: .csv, .tsv"),
    "one.csv": ("text,label\na,x\nb,x\n", "all training rows have the label 'x'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_invalid_file_is_rejected_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_text(content)
    (tmp_path / "own.yaml").write_text(f"kind: classification\ntrain: {name}\nevaluation: {name}\n")
    with pytest.raises(UserError) as error:
        examples.read_examples(load_task(str(tmp_path / "own.yaml")))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_f1_of_more_than_two_labels_is_rejected(own: Own) -> None:
    rows = [{"text": "a", "label": label} for label in "xyz"]
    with pytest.raises(UserError, match="use macro_f1"):
        examples.read_examples(own("kind: classification\nmetric: f1", *rows))
