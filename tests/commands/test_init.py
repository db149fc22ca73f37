"""`python -m lab.init`: its search spaces run and give reasons; bad input gives one line."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from languages import ENGLISH, FRENCH, RUSSIAN, chinese, sentences
from project import ROOT

from lab import init, sweep
from lab.config import tasks
from lab.config.budget import Budget
from lab.config.experiment import Experiment
from lab.data import batches, preparation
from lab.evaluation import corruption
from lab.execution import pace
from lab.loading import search_space, yaml_text
from lab.loading.task_table import load_task
from lab.storage import new_files
from lab.suggestion import task_draft
from lab.tasks import embedded
from lab.trials import run
from lab.trials.assignment import Assignment

MINUTES, WITH_TASK = "3", "60"
Write = Callable[[], str]  # writes a text to the current folder; returns the command's argument


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def english_paragraphs() -> str:
    lines = sentences(ENGLISH, 3_000)
    Path("novel.txt").write_text(
        "\n\n".join("\n".join(lines[n : n + 3]) for n in range(0, 3_000, 3))
    )
    return "novel.txt"


def cyrillic_jsonl() -> str:
    rows = [{"id": n, "body": text} for n, text in enumerate(sentences(RUSSIAN, 3_000))]
    Path("новости.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return "новости.jsonl"


def chinese_txt() -> str:
    Path("zh.txt").write_text("\n".join(chinese(3_000)), encoding="utf-8")
    return "zh.txt"


def latin_1() -> str:
    Path("vieux.txt").write_bytes("\n".join(sentences(FRENCH, 3_000)).encode("latin-1"))
    return "vieux.txt"


def csv() -> str:
    texts = sentences(ENGLISH, 3_000)
    address = [f"https://example.org/{n:0200d}" for n in range(len(texts))]
    pandas.DataFrame({"url": address, "title": [t[:20] for t in texts], "review": texts}).to_csv(
        "shop.csv", index=False
    )
    return "shop.csv"


def lines_packed() -> str:
    Path("lines.txt.gz").write_bytes(gzip.compress("\n".join(sentences(ENGLISH, 3_000)).encode()))
    return "lines.txt.gz"


def folder_of_files() -> str:
    Path("posts/deep").mkdir(parents=True)
    lines = sentences(ENGLISH, 3_000)
    for n in range(100):
        name = Path("posts", "deep" * (n % 2), f"{n}.txt")
        name.write_text("\n".join(lines[30 * n : 30 * n + 30]))
    return "posts"


def parquet() -> str:
    pandas.DataFrame({"n": range(3_000), "text": sentences(ENGLISH, 3_000)}).to_parquet("p.parquet")
    return "p.parquet"


def with_mark() -> str:
    Path("marked.txt").write_text("\n".join(sentences(RUSSIAN, 3_000)), encoding="utf-8-sig")
    return "marked.txt"


def utf_16() -> str:
    Path("wide.txt").write_text("\n".join(sentences(ENGLISH, 3_000)), encoding="utf-16")
    return "wide.txt"


def overlong_words() -> str:
    lines = (re.sub("[ .]", "", text) * 3 for text in sentences(RUSSIAN, 900))
    Path("thai.txt").write_text("\n".join(lines))
    return "thai.txt"


# Settings that are chosen for each text: of the source, and of the tokenizer.
TEXTS: dict[Write, tuple[dict[str, Any], dict[str, Any]]] = {
    english_paragraphs: ({"documents": "paragraph", "encoding": "utf-8"}, {"accents": "strip"}),
    cyrillic_jsonl: ({"column": "body"}, {"accents": "keep"}),
    chinese_txt: ({"documents": "line"}, {"ideographs": True}),
    latin_1: ({"documents": "line", "encoding": "latin-1"}, {"accents": "keep"}),
    csv: ({"column": "review"}, {"accents": "strip"}),
    lines_packed: ({"documents": "line"}, {"accents": "strip"}),
    folder_of_files: ({"documents": "file", "paths": ["posts/**/*.txt"]}, {}),
    parquet: ({"column": "text"}, {}),
    with_mark: ({"encoding": "utf-8"}, {"accents": "keep"}),
    utf_16: ({"encoding": "utf-16"}, {"accents": "strip"}),
    overlong_words: ({"documents": "line"}, {"kind": "byte_level"}),
}


def written(*arguments: str) -> dict[str, Any]:
    """Run the command; return the search space that it writes, as plain data."""
    minutes = WITH_TASK if "--task" in arguments else MINUTES
    assert init.main([*arguments, "--minutes", minutes]) == 0
    return yaml_text.read(written_space())


def written_space() -> Path:
    (file,) = (f for f in Path().glob("*.yaml") if not f.stem.endswith("_task"))
    return file


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command with bad input; return its error, and check that no file is written."""
    before = sorted(Path().rglob("*"))
    assert init.main(list(arguments)) == 2
    line = capsys.readouterr().err
    assert line.startswith("lab.init: error: ")
    assert line.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return line


def run_one_trial(experiment: Experiment, cache: Path) -> str:
    """Prepare the text and train the first cell for a few steps; return the trial's state."""
    (cell, *_) = search_space.expand_cells(experiment)
    trial = search_space.build_trial(experiment.base, cell)
    positions = 8 * trial.data.length * trial.batch
    trial = replace(trial, budget=Budget(kind="tokens", amount=positions), evaluations=1)
    text, *short = (preparation.prepare_text(settings, cache) for settings in trial.data_configs)
    held_out = corruption.prepare_held_out(batches.open_corpus(text), trial.data, cache)
    work = Assignment(
        trial=trial,
        folder=cache / "trial",
        text=text,
        held_out=held_out,
        pairs=None,
        short_text=short[0] if short else None,
        metric=experiment.metric,
    )
    return run.run_trial(work).state


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the measured speed, so that the search space does not depend on the machine's load."""
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 3e10)


@pytest.fixture
def quick(few_sentences: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a smaller frozen model, smaller probes and fewer task questions."""
    all_texts = embedded.evaluation_texts
    monkeypatch.setattr(embedded, "evaluation_texts", lambda task: all_texts(task)[:200])
    monkeypatch.setattr(corruption, "_FROZEN_TOKENS", 2_048)
    monkeypatch.setattr(corruption, "_TOKENS", 4_096)


TRAINED = (chinese_txt, folder_of_files, latin_1, parquet, overlong_words)


def check_plan(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Write a search space for a text, check its settings, and plan it."""
    document = written(write())
    source, tokenizer = TEXTS[write]
    assert source.items() <= document["base"]["data"]["source"].items()
    assert tokenizer.items() <= document["base"]["data"]["tokenizer"].items()
    assert sweep.main([str(written_space()), "--dry-run"]) == 0
    assert "cells: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "write",
    [write for write in TEXTS if write not in TRAINED],
    ids=lambda write: write.__name__,
)
def test_written_search_space_fits_the_text_and_can_be_planned(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    check_plan(write, capsys)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("write", TRAINED, ids=lambda write: write.__name__)
def test_written_search_space_fits_the_text_and_can_be_prepared_and_trained(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_plan(write, capsys)
    experiment = search_space.load_experiment(written_space())
    assert run_one_trial(experiment, tmp_path / "cache") == "finished"


def test_every_setting_has_a_comment_above_it() -> None:
    written(english_paragraphs())
    lines = written_space().read_text().splitlines()
    settings = [n for n, line in enumerate(lines) if line and not line.lstrip().startswith("#")]
    uncommented = [lines[n].partition(":")[0].strip() for n in settings if "#" not in lines[n - 1]]
    # The question needs no reason; base and data only contain other settings.
    assert uncommented == ["question", "base", "data"]


def test_comments_contain_measured_figures() -> None:
    written(cyrillic_jsonl())
    text = " ".join(written_space().read_text().replace("#", "").split())
    assert "3,000 documents" in text
    assert "CYRILLIC 100.0%" in text
    assert "The column of text with the longest mean" in text


def test_figures_of_a_long_text_are_estimated_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lab.suggestion import file_samples, source_guess, text_survey

    name = english_paragraphs()
    monkeypatch.setattr(file_samples, "_FILE_MAX", 2**16)
    samples = file_samples.read_samples((name,))
    survey = text_survey.survey_text(source_guess.guess_source((name,), samples), samples)
    assert survey.share < 0.5
    assert survey.documents == pytest.approx(1_000, rel=0.1)
    assert survey.characters == pytest.approx(Path(name).stat().st_size, rel=0.1)


def test_duplicates_are_counted() -> None:
    from lab.suggestion import file_samples, source_guess, text_survey

    Path("twice.txt").write_text("\n".join(sentences(ENGLISH, 1_000) * 2))
    samples = file_samples.read_samples(("twice.txt",))
    survey = text_survey.survey_text(source_guess.guess_source(("twice.txt",), samples), samples)
    assert survey.duplicates == pytest.approx(0.5, abs=0.01)


def windows_1251() -> str:
    Path("ru.txt").write_text("\n".join(sentences(RUSSIAN, 50)), encoding="cp1251")
    return "ru.txt"


def two_encodings() -> str:
    Path("a.txt").write_text("\n".join(sentences(RUSSIAN, 50)), encoding="utf-8")
    Path("b.txt").write_text("\n".join(sentences(FRENCH, 50)), encoding="latin-1")
    return "*.txt"


def too_small() -> str:
    Path("small.txt").write_text("\n".join(sentences(ENGLISH, 300)))
    return "small.txt"


def one_document() -> str:
    Path("one.jsonl").write_text(json.dumps({"text": " ".join(sentences(ENGLISH, 3_000))}) + "\n")
    return "one.jsonl"


def semicolons() -> str:
    Path("semi.csv").write_text("id;text\n" + "".join(f"{n};some text\n" for n in range(50)))
    return "semi.csv"


def without_header() -> str:
    Path("bare.csv").write_text("\n".join(sentences(ENGLISH, 50)).replace(",", ""))
    return "bare.csv"


def no_text_column() -> str:
    Path("numbers.jsonl").write_text('{"a": 1, "b": 2}\n' * 50)
    return "numbers.jsonl"


def empty() -> str:
    Path("empty.txt").touch()
    return "empty.txt"


def blank() -> str:
    Path("blank.txt").write_text("\n \n" * 50)
    return "blank.txt"


def no_such_file() -> str:
    return "missing/*.txt"


def no_such_plain_file() -> str:
    return "absent.txt"


def binary() -> str:
    Path("program.txt").write_bytes(bytes([0x7F, 0, 0, 0x90, 0x48, 0x8B, 0, 0xC3]) * 500)
    return "program.txt"


def folder_without_text() -> str:
    Path("pictures").mkdir()
    Path("pictures/a.png").touch()
    return "pictures"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (windows_1251, "not UTF-8, and"),
        (two_encodings, "b.txt: latin-1, and a.txt is UTF-8"),
        (too_small, "tokens without duplicates; below 20,000"),
        (one_document, "1 documents; the lab holds out whole documents"),
        (semicolons, "separated by ';'"),
        (without_header, "the first line is no header"),
        (no_text_column, "no column of text"),
        (empty, "empty file"),
        (blank, "no document in it"),
        (no_such_file, "no file matches"),
        (no_such_plain_file, "absent.txt: no such file or folder"),
        (binary, "it is not text, or text in an encoding such as UTF-32; convert it"),
        (folder_without_text, "no file in this folder ends with .txt"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unusable_text_gives_one_line(
    write: Write, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_line(capsys, write())


def test_existing_file_is_never_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    name = english_paragraphs()
    Path("novel.yaml").write_text("mine")
    assert "novel.yaml: already exists" in error_line(capsys, name)
    assert Path("novel.yaml").read_text() == "mine"
    assert "no folder 'deep'" in error_line(capsys, name, "--output", "deep/novel.yaml")
    assert "ends with .yaml" in error_line(capsys, name, "--output", "novel.txt")


def test_too_little_time_is_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--minutes 0.001: too few for 3 widths" in error_line(
        capsys, english_paragraphs(), "--minutes", "0.001"
    )


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_must_be_a_positive_number(
    minutes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        init.main(["a.txt", "--minutes", minutes])
    assert ended.value.code == 2
    assert "_minutes" not in capsys.readouterr().err


def test_invalid_bytes_are_skipped_and_counted() -> None:
    good = "\n".join(sentences(RUSSIAN, 3_000)).encode()
    Path("dirty.txt").write_bytes(good + b"\nbroken \xff\n")
    document = written("dirty.txt")
    assert document["base"]["data"]["bad_text"] == "skip"
    assert "1 wrong encoding" in written_space().read_text()


def test_module_imports_no_slow_library() -> None:
    heavy = "{'torch', 'tokenizers', 'numpy', 'pandas', 'transformers', 'ray'}"
    code = f"import sys, lab.init; print(sorted({heavy} & set(sys.modules)))"
    root = ROOT
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert ran.stdout == "[]\n", ran.stderr


# --- tasks


def labelled(rows: int = 600, seed: int = 1) -> pandas.DataFrame:
    texts = sentences(ENGLISH, rows, seed)
    chance = np.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "id": range(rows),
            "comment": texts,
            "title": [text[:12] for text in texts],
            "label": chance.choice(["neg", "pos"], rows),
        }
    )


@pytest.fixture
def task_file() -> str:
    labelled().to_csv("comments.csv", index=False)
    return "comments.csv"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_removes_the_files_of_the_task(
    number: signal.Signals,
    task_file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = english_paragraphs()
    before = sorted(Path().rglob("*"))
    written_then: list[str] = []

    def end_process(*_: object) -> None:
        written_then.extend(file.name for file in Path().glob("*_task*"))
        os.kill(os.getpid(), number)

    monkeypatch.setattr("lab.suggestion.file_samples.read_samples", end_process)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert init.main([text, "--task", task_file]) == 130
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "comments_task.yaml" in written_then
    assert sorted(Path().rglob("*")) == before
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_labelled_file_becomes_a_task_of_the_search_space(
    task_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = written(english_paragraphs(), "--task", task_file)
    assert document["metric"] == "finetune/comments_task"
    assert document["finetune"]["tasks"] == ["comments_task.yaml"]
    assert document["base"]["data"]["length"] >= 32  # shorter windows would cut the task's texts
    form = load_task("comments_task.yaml").config
    assert isinstance(form, tasks.ClassificationTask)
    assert (form.text, form.label) == ("comment", "label")
    assert sweep.main([str(written_space()), "--dry-run"]) == 0
    assert (
        run_one_trial(search_space.load_experiment(written_space()), tmp_path / "cache")
        == "finished"
    )


def write_draft(*files: str) -> None:
    """Write the files of a task without a search space."""
    with new_files.write_all(task_draft.draft_task(files, Path("novel.yaml")).contents):
        pass


def split_of(stem: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the training rows and the evaluation rows that were written."""
    train, evaluation = (
        [json.loads(line) for line in Path(f"{stem}_{part}.jsonl").read_text().splitlines()]
        for part in ("train", "evaluation")
    )
    return train, evaluation


def test_split_is_by_text_stratified_by_label_and_repeatable(task_file: str) -> None:
    table = labelled()
    pandas.concat([table, table[:50]]).to_csv(task_file, index=False)  # with duplicates
    write_draft(task_file)
    train, evaluation = split_of("comments")
    assert len(train) + len(evaluation) == 650
    assert not {row["comment"] for row in train} & {row["comment"] for row in evaluation}
    for label in ("neg", "pos"):
        share = sum(row["label"] == label for row in evaluation) / (table["label"] == label).sum()
        assert share == pytest.approx(0.2, abs=0.05)
    for file in Path().glob("comments_*"):
        file.unlink()
    table.sample(frac=1, random_state=0).to_csv(task_file, index=False)
    write_draft(task_file)
    repeated = split_of("comments")[1]
    assert {row["comment"] for row in repeated} == {row["comment"] for row in evaluation}


def test_column_called_split_defines_the_split(task_file: str) -> None:
    table = labelled()
    table["split"] = ["test" if n % 3 == 0 else "train" for n in range(len(table))]
    table.to_csv(task_file, index=False)
    write_draft(task_file)
    train, evaluation = split_of("comments")
    assert (len(train), len(evaluation)) == (400, 200)
    assert evaluation[1]["comment"] == table["comment"][3]


def test_two_labelled_files_are_used_in_place(task_file: str) -> None:
    Path("elsewhere").mkdir()
    labelled(200, seed=2).to_csv("elsewhere/more.csv", index=False)
    write_draft(task_file, "elsewhere/more.csv")
    form = load_task("comments_task.yaml").config
    assert Path(form.evaluation.path).resolve() == Path("elsewhere/more.csv").resolve()  # type: ignore[union-attr]
    assert not list(Path().glob("comments_*.jsonl"))


@pytest.mark.parametrize(
    ("columns", "kind", "metric"),
    [
        ({"label": lambda n: ["a", "b", "c"][n % 3]}, "classification", "accuracy"),
        ({"stars": lambda n: n % 5 + 1}, "classification", "accuracy"),
        ({"label": lambda n: int(n % 10 == 0)}, "classification", "macro_f1"),
        ({"score": lambda n: n / 7}, "regression", "spearman"),
        ({"verdict": lambda n: ["yes", "no"][n % 2]}, "classification", "accuracy"),
        (
            {"sentence2": lambda n: f"another sentence {n}", "label": lambda n: n % 2},
            "pairs",
            "accuracy",
        ),
        (
            {"sentence2": lambda n: f"another sentence {n}", "score": lambda n: n % 50},
            "regression",
            "spearman",
        ),
    ],
)
def test_kind_and_metric_of_a_task_follow_from_its_columns(
    columns: dict[str, Callable[[int], Any]], kind: str, metric: str
) -> None:
    from lab.tasks import examples

    rows = [
        {"sentence1": text} | {name: value(n) for name, value in columns.items()}
        for n, text in enumerate(sentences(ENGLISH, 200))
    ]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_draft("t.jsonl")
    task = load_task("t_task.yaml")
    assert (task.config.kind, task.config.metric) == (kind, metric)
    assert (
        len(examples.read_examples(task).train) + len(examples.read_examples(task).evaluation)
        == 200
    )


def test_task_of_the_table_is_used_without_new_files() -> None:
    document = written(english_paragraphs(), "--task", "sentiment")
    assert document["finetune"]["tasks"] == ["sentiment"]
    assert document["metric"] == "finetune/sentiment"
    assert len(list(Path().iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("comment,label\n" + "some text,pos\n" * 60, "no column looks like a label"),
        ("n,label\n" + "".join(f"{n % 3},{n % 2}\n" for n in range(60)), "no column of text"),
        (
            "comment,label\n" + "first text,a\nsecond text,b\n" * 5,
            "10 rows are too few to be split",
        ),
        ("comment,label\n" + "".join(f"text {n},\n" for n in range(60)), "no column looks like"),
        ("comment,label\n", "no rows"),
        (
            "comment,label\n" + "".join(f"text {n},{'ab '[n % 3]}\n" for n in range(60)),
            "20 of 60 rows have an empty cell in the label's column, label",
        ),
        ("comment;label\n" + "one, two;a\n" * 60, "separated by ';'"),
        (f"{'a sentence ' * 9},a\n" + "some text,b\n" * 60, "the first line is no header"),
    ],
)
def test_unusable_task_gives_one_line_and_leaves_no_file(
    content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = english_paragraphs()
    Path("t.csv").write_text(content)
    assert message in error_line(capsys, name, "--task", "t.csv")


def test_all_existing_files_of_a_task_are_named_at_once(
    task_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_draft(task_file)
    line = error_line(capsys, english_paragraphs(), "--task", task_file)
    assert all(str(file) in line for file in Path().glob("comments_*"))


def test_refused_text_leaves_no_files_of_the_task(
    task_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "below 20,000" in error_line(capsys, too_small(), "--task", task_file)
