"""`lab.verify` agrees with a report as it was written, and names the place of each change."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from experiments import METRIC, experiment, outcome, row
from project import ROOT

from benchmarks import rewrite_reports
from lab import verify
from lab.config.experiment import Job
from lab.loading.search_space import build_trial, expand_cells
from lab.reporting.page import write_report
from lab.reporting.verification import recomputation
from lab.reporting.verification.report_file import (
    TABLES,
    read_cells,
    read_report_file,
    restore_frames,
)
from lab.tracking import client, frames, store, tags

Verify = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def uri(unsynced: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a store with a sweep of two settings on three seeds, and a failed trial."""
    folder = tmp_path_factory.mktemp("store")
    uri = client.default_uri(folder)
    swept = experiment("width")
    writer = store.MlflowStore(uri, folder)
    writer.begin(swept, {"command": "python -m lab.sweep width.yaml"}, {tags.SPACE_FILE: "a: 1\n"})
    generator = np.random.default_rng(1)
    for number in range(6):
        cell = expand_cells(swept)[number // 3]
        trial = build_trial(swept.base, cell)
        trial = dataclasses.replace(trial, seeds=trial.seeds.repeat(number % 3))
        job = Job(number=number, role="repeat", cell=cell, tuned={}, repeat=number % 3, trial=trial)
        score = 0.6 + 0.1 * (number // 3) + generator.normal(0, 0.01)
        end = outcome(row(0, **{METRIC: 0.5}), row(10, **{METRIC: score}))
        blocks = {METRIC: generator.normal(0, 0.001, size=5).tolist()}
        writer.sync(job, f"{number:012x}", end.state, end.rows, end, blocks=blocks)
    failed = dataclasses.replace(job, number=6, repeat=9)
    writer.sync(failed, "f" * 12, "failed", (), outcome(state="failed", reason="=out of\tmemory"))
    writer.close("finished", {"slots": 2.0, "wall_seconds": 900.0})
    return uri


@pytest.fixture(scope="module")
def sweep(uri: str) -> frames.SweepFrames:
    return frames.load_frames(uri, "width")


@pytest.fixture(scope="module")
def written(sweep: frames.SweepFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(sweep, tmp_path_factory.mktemp("reports")).parent


@pytest.fixture
def report(written: Path, tmp_path: Path) -> Path:
    """Return a copy of the report, for a test to change."""
    return Path(shutil.copytree(written, tmp_path / "width"))


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Return a function that verifies a folder; it returns the status and the lines.

    The storage is empty unless the function is given other options.
    """

    def run(folder: Path, *options: str) -> tuple[int, list[str]]:
        status = verify.main([str(folder), "--storage", str(tmp_path / "none"), *options])
        output, error = capsys.readouterr()
        return status, (output + error).replace(f"{folder}/", "").splitlines()

    return run


def edit(file: Path, old: str, new: str) -> int:
    """Replace the first occurrence of a text in a file; return its line."""
    text = file.read_text()
    start = text.index(old)
    file.write_text(text[:start] + new + text[start + len(old) :])
    return text.count("\n", 0, start) + 1


def test_report_agrees_with_its_own_tables(check: Verify, report: Path, tmp_path: Path) -> None:
    status, lines = check(report)
    assert status == 0, lines
    assert "recomputed from its own tables" in lines[0]
    assert lines[-1] == f"{report}: no difference"
    assert [file.name for file in tmp_path.iterdir()] == ["width"]


def test_restored_frames_are_those_of_the_store(sweep: frames.SweepFrames, written: Path) -> None:
    """Mixed columns, formulas, missing values and the blocks of the compared trials included."""
    tables = {key: read_cells(written / name) for key, name in TABLES.items()}
    restored = restore_frames(read_report_file(written / "report.json"), tables)
    pd.testing.assert_frame_equal(restored.trials, sweep.trials, check_exact=True)
    pd.testing.assert_frame_equal(restored.curves, sweep.curves, check_exact=True)
    assert "=out of\tmemory" in set(restored.trials["reason"])
    assert restored.blocks == sweep.blocks
    assert len(restored.blocks) == 6
    for field in ("name", "sweep", "measures", "texts", "codes", "omitted_codes", "run_id"):
        assert getattr(restored, field) == getattr(sweep, field), field


def test_changes_of_text_and_figures_are_named_with_their_place(
    check: Verify, report: Path
) -> None:
    found = re.search(r"0\.7\d\d\d", (report / "report.md").read_text())
    assert found is not None
    changed = f"{found[0][:-1]}{(int(found[0][-1]) + 1) % 10}"
    line = edit(report / "report.md", found[0], changed)
    path_line = edit(report / "figures" / "cells.svg", "<path ", '<path opacity="0" ')
    (report / "figures" / "score-flop.svg").unlink()
    (report / "figures" / "more.svg").write_text("<svg/>")
    (report / "front.csv").write_text("1")
    (report / "mine.csv").write_text("1")  # a file of the user, which a new report keeps
    status, lines = check(report)
    assert status == 1
    (text,) = [each for each in lines if each.startswith("report.md")]
    assert text.startswith(f"report.md, line {line}: ")
    stands, recomputed = text.split(" stands there; recomputed: ")
    assert changed in stands
    assert found[0] in recomputed
    assert any(each.startswith(f"figures/cells.svg, line {path_line}: ") for each in lines)
    assert "figures/score-flop.svg: is missing" in lines
    assert "figures/more.svg: is not a figure of the recomputed report" in lines
    assert "front.csv: is not a table of the recomputed report" in lines
    assert lines[-1] == f"{report}: 5 differences"


def test_changed_numbers_of_the_page_are_named_with_their_place(
    check: Verify, report: Path
) -> None:
    page = report / "report.html"
    found = re.search(r"<td>(0\.\d{4})</td>", page.read_text())
    assert found is not None
    lines_of = [
        edit(page, found[0], "<td>0.1234</td>"),
        edit(page, "<path ", '<path opacity="0" '),
        edit(page, "[0.5,", "[0.25,"),  # the untrained score of a curve
    ]
    edit(page, '"use strict";', '"use strict"; ')  # code has no numbers of the report
    edit(page, "sha256-", "sha256-other")
    status, lines = check(report)
    assert status == 1
    row, value, drawing = (
        next(each for each in lines if each.startswith(f"report.html, line {line}"))
        for line in (lines_of[0], lines_of[2], lines_of[1])
    )
    assert "0.1234" in row.split(" stands there; recomputed: ")[0]
    assert found[1] in row.split(" stands there; recomputed: ")[1]
    assert ", /traces/0/" in value
    assert value.endswith("'0.25' stands there; recomputed: '0.5'")
    assert 'opacity="0"' in drawing
    assert lines[-1] == f"{report}: 3 differences"


@pytest.mark.parametrize("name", TABLES.values())
def test_changed_cell_of_a_table_is_named(check: Verify, report: Path, name: str) -> None:
    head, *rows = (report / name).read_text().splitlines()
    column = head.split(",").index(METRIC)
    cells = rows[3].split(",")
    edit(report / name, rows[3], ",".join([*cells[:column], "0.61", *cells[column + 1 :]]))
    status, lines = check(report)
    assert status == 1
    assert lines[1] == (
        f"{name}, line 5, column {METRIC}: '0.61' is not what the report was written with "
        "(other digest)"
    )
    assert lines[2].startswith("report.md: was not recomputed")


@pytest.mark.parametrize("name", TABLES.values())
def test_missing_table_row_and_heading_are_named(check: Verify, report: Path, name: str) -> None:
    lines = (report / name).read_text().splitlines(keepends=True)
    (report / name).write_text("".join([lines[0].replace("step", "pets"), *lines[1:]]))
    renamed = check(report)
    (report / name).write_text("".join(lines[:-1]))
    shorter = check(report)
    (report / name).unlink()
    absent = check(report)
    assert (renamed[0], shorter[0], absent[0]) == (1, 1, 1)
    assert f"{name}, line 1, column " in renamed[1][1]
    count = len(lines) - 1
    expected = f"{name}: has {count - 1} rows; the report was written with {count}"
    assert expected in shorter[1]
    assert f"{name}: is missing" in absent[1]


def test_report_is_compared_with_the_store_that_has_its_run(
    check: Verify, report: Path, uri: str
) -> None:
    edit(report / "trials.csv", "finished,,repeat", "finished,,search")
    edit(report / "report.json", '"slots": 2.0', '"slots": 3.0')
    status, lines = check(report, "--tracking-uri", uri)
    assert status == 1
    assert lines[0].endswith(": recomputed from the tracking store")
    place = "trials.csv, line 2, column role: "
    assert f"{place}'search' stands there; recomputed: 'repeat'" in lines
    assert any(each.startswith("report.json, line ") for each in lines)
    assert lines[-1] == f"{report}: 2 differences"


def test_another_run_of_the_same_name_is_not_compared(
    check: Verify, report: Path, uri: str
) -> None:
    content = json.loads((report / "report.json").read_text())
    run = content["run_id"]
    (report / "report.json").write_text(json.dumps(content | {"run_id": "0" * len(run)}))
    (report / "trials.csv").unlink()  # so that nothing is drawn
    status, lines = check(report, "--tracking-uri", uri)
    assert status == 1
    assert "(the tracking store has another run of width)" in lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "report.json: format: Input should be 1"),
        ({"name": "../elsewhere"}, "report.json: name: String should match pattern"),
        ({"tables": {}}, "report.json: tables: Extra inputs are not permitted"),
    ],
)
def test_unreadable_report_file_is_one_line(
    check: Verify, report: Path, change: dict[str, object], message: str
) -> None:
    file = report / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    status, lines = check(report)
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(message)


def drop_sweep(content: dict[str, Any]) -> None:
    content["sweep"].clear()


def change_metric(content: dict[str, Any]) -> None:
    content["sweep"]["metric"] = "luck"


def change_comparison(content: dict[str, Any]) -> None:
    content["sweep"]["compare"] = "[[{"


def change_reference(content: dict[str, Any]) -> None:
    content["sweep"]["reference"] = json.dumps({"batch": 12345})


def drop_state(content: dict[str, Any]) -> None:
    columns = content["trials"]["columns"]
    columns.remove(next(column for column in columns if column["name"] == "state"))
    columns.append(columns[-1])  # as many as the CSV file has


def change_to_training_loss(content: dict[str, Any]) -> None:
    content["sweep"]["metric"] = "train/loss"


def change_to_costs(content: dict[str, Any]) -> None:
    content["sweep"]["cost"] = "tokens"


def change_range(content: dict[str, Any]) -> None:
    content["sweep"]["tune"] = json.dumps({"optim.lr": {"low": 0, "high": 1, "log": True}})


@pytest.mark.reported
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_to_training_loss, "report.json: trials: no column 'train/loss'"),
        (change_to_costs, "report.json: trials: no column 'cost'"),
        (change_range, "report.json: sweep: tag lab.tune is "),
        (drop_sweep, "report.json: sweep: tag lab.question is missing"),
        (change_metric, "report.json: sweep: tag lab.metric is 'luck'"),
        (change_comparison, "report.json: sweep: tag lab.compare is '[[{'"),
        (change_reference, "report.json: sweep: tag lab.reference is no cell of the comparison"),
        (drop_state, "report.json: trials: no column 'state'"),
    ],
)
def test_changed_facts_of_a_report_are_one_line(
    check: Verify,
    report: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    # The tables are as the report was written, or their digests were changed as well.
    monkeypatch.setattr(recomputation, "_check_digests", lambda *_: iter(()))
    file = report / "report.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    status, lines = check(report)
    assert status == 1
    assert len(lines) == 2
    assert lines[1].startswith(message)


@pytest.mark.reported
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("trials.csv", lambda _: "a,b\n1,2\n", "trials.csv: has no column 'achieved'"),
        ("curves.csv", lambda _: "a,b\n1,2\n", "curves.csv: has no column 'number'"),
        ("trials.csv", lambda text: text.replace("0.", "x."), "column 'score' must hold numbers"),
    ],
)
def test_foreign_table_of_an_older_report_is_a_difference(
    check: Verify, report: Path, name: str, change: Callable[[str], str], message: str
) -> None:
    (report / "report.json").unlink()
    (report / name).write_text(change((report / name).read_text()))
    status, lines = check(report)
    assert status == 1
    assert any(message in line for line in lines)
    assert lines[-1].endswith(("difference", "differences"))


def test_older_report_is_checked_against_its_tables(check: Verify, report: Path) -> None:
    (report / "report.json").unlink()
    assert check(report)[0] == 0
    (score,) = re.findall(
        r"\| 3 \| finished \|.*?(0\.\d{4}) \|", (report / "report.md").read_text()
    )
    line = edit(report / "report.md", f"{score} | 1 TFLOP", "0.1234 | 1 TFLOP")
    _, *rows = (report / "curves.csv").read_text().splitlines()
    last = rows[1].rpartition(",")[0]
    edit(report / "curves.csv", rows[1], f"{last},12345")
    status, lines = check(report)
    assert status == 1
    assert "has no report.json" in lines[0]
    assert lines[1].startswith("trials.csv, line 2, column ")
    assert lines[1].endswith("recomputed: '12345.0'")
    assert lines[2] == (
        f"report.md, line {line}, column score: '0.1234' stands there; recomputed: '{score}'"
    )
    assert lines[3:] == [f"{report}: 2 differences"]


def test_reports_are_rewritten_from_their_own_tables_only_if_these_are_unchanged(
    check: Verify, report: Path
) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    (report / "report.md").write_text("changed", encoding="utf-8")
    assert rewrite_reports.main([str(report)]) == 0
    assert (report / "report.md").read_text(encoding="utf-8") == text
    assert check(report)[0] == 0
    (report / "trials.csv").unlink()
    assert rewrite_reports.main([str(report), str(report.parent)]) == 1
    assert (report / "report.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("kind", ["absent", "file", "other folder"])
def test_folder_that_is_no_report_is_bad_input(check: Verify, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "thesis"
    if kind == "file":
        folder.write_text("text")
    elif kind == "other folder":
        folder.mkdir()
        (folder / "thesis.txt").write_text("text")
    status, lines = check(folder)
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"lab.verify: error: {folder}: is not a report; must be")


REPORTS = ROOT / "reports"
COMMITTED = sorted(str(file.parent.relative_to(REPORTS)) for file in REPORTS.rglob("report.md"))


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_report_has_no_difference(check: Verify, name: str) -> None:
    status, lines = check(REPORTS / name)
    assert status == 0, lines
