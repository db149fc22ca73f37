"""The table of tasks, a user's own, and what their rows say."""

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

# The GLUE benchmark's data sets as nyu-mll/glue has them: columns, split, metric (Wang et al. 2019,
# table 1; of MRPC and QQP accuracy, of STS-B Spearman, as the ELECTRA paper's section 3.1).
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


def test_the_table_holds_glue_and_what_the_lab_carries() -> None:
    assert set(TASKS) == {*GLUE, "sentiment", "pos"}
    assert all(name == task.name for name, task in TASKS.items())


@pytest.mark.parametrize("name", GLUE)
def test_glue_is_read_from_its_columns_and_scored_as_the_paper_does(name: str) -> None:
    columns, split, metric, epochs = GLUE[name]
    form = TASKS[name].form
    texts = (getattr(form, "text", ""), getattr(form, "pair", ""))
    assert tuple(text for text in texts if text) == columns
    assert (form.metric, form.epochs) == (metric, epochs)
    assert isinstance(form.train, HubRows)
    assert isinstance(form.evaluation, HubRows)
    assert {rows.name for rows in (form.train, form.evaluation)} == {"nyu-mll/glue"}
    assert {rows.configuration for rows in (form.train, form.evaluation)} == {name}
    assert (form.train.split, form.evaluation.split) == ("train", split)


def test_both_orders_are_learned_where_the_official_code_does() -> None:
    assert {n for n, t in TASKS.items() if getattr(t.form, "unordered", False)} == {"mrpc", "stsb"}


@pytest.mark.parametrize("name", ["pos", "sentiment"])
def test_what_the_lab_carries_is_learned_in_full(name: Any) -> None:
    made = examples.read_examples(TASKS[name])
    splits = {split: list(embedded.read_embedded_rows(name, split)) for split in ("train", "test")}
    assert (len(made.train), len(made.evaluation)) == tuple(map(len, splits.values()))
    if name == "pos":  # no document is in both
        documents = [{row["doc"] for row in rows} for rows in splits.values()]
        assert documents[0].isdisjoint(documents[1])
    else:
        assert made.labels == ("neg", "pos")


ROWS = [{"text": "NA", "label": "yes"}, {"text": 'a "b', "label": "no"}, {"text": "", "label": 1}]


def written(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
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
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    """NA is a text, a lone quotation mark too, and an empty cell."""
    file = written(tmp_path, suffix, ROWS)
    (tmp_path / "mine.yaml").write_text(
        f"kind: classification\ntrain: {file.name}\nevaluation: {file.name}\n"
    )
    made = examples.read_examples(load_task(str(tmp_path / "mine.yaml")))
    assert made.train == tuple(TextExample(r["text"], None, str(r["label"])) for r in ROWS)


def test_folder_that_datasets_saved_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = [{"sentence": "a b", "label": 1}, {"sentence": "c", "label": 0}]
    saved = DatasetDict({s: Dataset.from_list(rows) for s in ("train", "validation")})
    saved.save_to_disk(tmp_path / "cola")
    made = examples.read_examples(load_task("cola", tmp_path))
    assert made.train == (TextExample("a b", None, "1"), TextExample("c", None, "0"))


def test_glue_in_a_local_folder_is_found_by_its_splits(tmp_path: Path) -> None:
    (tmp_path / "mnli").mkdir()
    for split in ("train", "validation_matched"):
        (tmp_path / "mnli" / f"{split}.tsv").write_text("premise\thypothesis\tlabel\na\tb\t2\n")
    form = load_task("mnli", tmp_path).form
    assert isinstance(form.evaluation, FileRows)
    assert form.evaluation.path == str(tmp_path / "mnli" / "validation_matched.tsv")
    with pytest.raises(UserError, match="has no train"):
        load_task("rte", tmp_path)


def test_squads_own_files_are_read(tmp_path: Path) -> None:
    asked = {"question": "Who?", "id": "1", "answers": [{"text": "Bo", "answer_start": 3}]}
    nobody = {"question": "Why?", "id": "2", "answers": [], "is_impossible": True}
    article = {"title": "t", "paragraphs": [{"context": "Ah Bo", "qas": [asked, nobody]}]}
    (tmp_path / "squad.json").write_text(json.dumps({"version": "v2.0", "data": [article]}))
    (tmp_path / "squad.yaml").write_text(
        "kind: question_answering\ntrain: squad.json\nevaluation: squad.json\n"
    )
    made = examples.read_examples(load_task(str(tmp_path / "squad.yaml")))
    assert made.train == (
        QuestionExample("Who?", "Ah Bo", ["Bo"], [3]),
        QuestionExample("Why?", "Ah Bo", [], []),
    )


Own = Callable[..., Task]


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Return a function that makes a task of YAML and rows, the same to learn and to score."""

    def own(yaml: str, *rows: dict[str, Any]) -> Task:
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        (tmp_path / "own.yaml").write_text(f"train: rows.jsonl\nevaluation: rows.jsonl\n{yaml}")
        return load_task(str(tmp_path / "own.yaml"))

    return own


def test_words_are_a_list_or_parted_by_blanks(own: Own) -> None:
    rows = {"words": ["a", "b"], "tags": ["x", 1]}, {"words": "a  b", "tags": "x y"}
    made = examples.read_examples(own("kind: tagging", *rows))
    assert made.train == (TagExample(["a", "b"], ["x", "1"]), TagExample(["a", "b"], ["x", "y"]))


def test_prepared_examples_are_the_same_when_opened(own: Own, tmp_path: Path) -> None:
    row = {"text": "a", "label": 1, "words": "a", "tags": "x", "question": "q", "context": "a b"}
    for kind in ("classification", "regression", "tagging", "question_answering"):
        other = row | {"label": 2, "tags": "y"}
        task = own(f"kind: {kind}", row | {"answers": ANSWERS}, other | {"answers": ANSWERS})
        file = examples.prepare_examples(task, tmp_path / "cache")
        assert examples.open_examples(file) == examples.read_examples(task)
        assert examples.prepare_examples(task, tmp_path / "cache") == file


def test_fingerprint_is_of_what_is_learned_and_scored_alone(own: Own) -> None:
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


def test_labels_that_nobody_can_learn_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nu,x\nv,y\n")
    (tmp_path / "b.csv").write_text("text,label\nu,x\nv,z\nw,z\n")
    (tmp_path / "own.yaml").write_text("kind: classification\ntrain: a.csv\nevaluation: b.csv\n")
    made = examples.read_examples(load_task(str(tmp_path / "own.yaml")))
    assert (made.labels, made.unseen) == (("x", "y"), ("z",))


SPLITS = "train: a.csv\nevaluation: b.csv\n"
BAD_YAML = {
    "no kind": (
        SPLITS,
        "kind: required, and missing; one of classification, pairs, question_answering",
    ),
    "unknown kind": (SPLITS + "kind: ner", "kind: must be one of classification, pairs,"),
    "no evaluation": ("kind: tagging\ntrain: a.csv", "evaluation: required, and missing"),
    "unknown key": (SPLITS + "kind: tagging\npair: b", "pair: unknown key; allowed: kind, train,"),
    "unknown metric": (
        SPLITS + "kind: regression\nmetric: accuracy",
        "metric: must be one of spearman, pearson, not 'accuracy'",
    ),
    "no epochs": (SPLITS + "kind: pairs\nepochs: 0", "epochs: must be at least 1, not 0"),
    "rows of no kind": (
        "kind: pairs\nevaluation: b.csv\ntrain: {path: a.csv}",
        "train.kind: required, and missing; one of carried, file, hub, saved",
    ),
    "no split": (
        "kind: pairs\nevaluation: b.csv\ntrain: {kind: hub, name: x}",
        "train.split: required, and missing",
    ),
    "a list": ("[1, 2]", "a task is a mapping with kind, train and evaluation"),
    "not YAML": ("kind: [", "not YAML"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_yaml_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, says = BAD_YAML[case]
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_task(str(tmp_path / "own.yaml"))
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'own.yaml'}: ")
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["glue", "flops.yaml", "a b.yaml", "nowhere.yaml"])
def test_task_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
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
def test_bad_row_is_named(own: Own, tmp_path: Path, case: str) -> None:
    yaml, row, says = BAD_ROWS[case]
    good = {"text": "a", "label": 1, "words": "a", "tags": "x", "question": "q", "context": "a b"}
    with pytest.raises(UserError) as error:
        examples.read_examples(own(yaml, good | {"answers": ANSWERS}, row))
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'rows.jsonl'}:2: {says}")
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
def test_bad_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, says = BAD_FILES[name]
    (tmp_path / name).write_text(content)
    (tmp_path / "own.yaml").write_text(f"kind: classification\ntrain: {name}\nevaluation: {name}\n")
    with pytest.raises(UserError) as error:
        examples.read_examples(load_task(str(tmp_path / "own.yaml")))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_f1_of_more_than_two_labels_is_refused(own: Own) -> None:
    rows = [{"text": "a", "label": label} for label in "xyz"]
    with pytest.raises(UserError, match="use macro_f1"):
        examples.read_examples(own("kind: classification\nmetric: f1", *rows))
