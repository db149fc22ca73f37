"""The report: complete, offline, honest about what it does not know, and the same twice."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from project import ROOT

from lab import report
from lab.config.experiment import Experiment, Job, Range, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import MetricRow, Outcome, State
from lab.loading.search_space import build_trial, expand_cells
from lab.reporting import page as page_module
from lab.reporting import sentences, stats
from lab.reporting.page import Figure, write_report
from lab.storage.checks import StorageError
from lab.tracking import client, frames, store

METRIC = "detect/bigram/auroc"
WIDTH = "objective.generator.width"
LR = "optim.lr"
BASE = {
    "encoder": {"size": "tiny"},
    "objective": {"kind": "electra"},
    "budget": {"kind": "flops", "amount": 1e12},
}


def planned(name: str, compare: dict, tune: dict, repeats: int) -> Experiment:
    return Experiment(
        name=name,
        question="Does a <smaller> generator learn more per FLOP?",
        metric=METRICS[METRIC],
        base=BASE,
        compare=compare,
        tune=tune,
        search=SearchConfig(trials=6 if tune else 1, seeds=repeats),
        resources=Resources(),
    )


def curve(job: Job, end: float, chance: np.random.Generator) -> tuple[MetricRow, ...]:
    """A learning curve from .5 to `end` at 1e12 FLOPs."""
    rows = []
    for i in range(9):
        share = i / 8
        grown = 1 - np.exp(-4 * share)
        row = {
            f"spent/{k}": v * share
            for k, v in (
                ("tokens", 4e6),
                ("flops", 1e12),
                ("paper_flops", 1.4e12),
                ("six_n", 8e11),
                ("seconds", 120.0),
            )
        }
        row |= {
            "spent/steps": round(1_000 * share),
            METRIC: 0.5
            + (end - 0.5) * grown / (1 - np.exp(-4))
            + (chance.normal(0, 0.001) if i else 0),
            "detect/unigram/auroc": 0.5 + 0.3 * grown + chance.normal(0, 0.002),
            "probe/pos/accuracy": 0.6 + 0.2 * grown * end + chance.normal(0, 0.01),
        }
        if i:
            row |= {
                "train/discriminator_loss": 0.42 - 0.1 * grown + chance.normal(0, 0.004),
                "train/generator_loss": 6 - 2 * grown,
                "health/majority_loss": 0.41 - 0.02 * grown,
                "health/replacement_rate": 0.14 - 0.05 * grown,
                "health/recall_replaced": 0.4 * grown,
                "health/generator_accuracy": 0.25 * grown,
                "health/grad_norm_generator": 2 - grown,
                "health/grad_norm_discriminator": 1.5 - grown,
            }
        rows.append(row)
    return tuple(rows)


def outcome(rows: tuple[MetricRow, ...], state: State = "finished", reason: str = "") -> Outcome:
    return Outcome(state=state, reason=reason, rows=rows, began=1e9, seconds=140.0, busy=130.0)


def populate(uri: str, folder: Path, experiment: Experiment, effect: dict[float, float]) -> None:
    """Store the sweep that `experiment` asks for, scores 0.7 + effect of the width + noise."""
    writer = store.MlflowStore(uri, folder)
    texts = {
        "space.yaml": "question: resolved\nbase:\n  batch: 128\n",
        "environment.txt": "torch==2.13.0\n",
    }
    provenance = {
        "command": f"python -m lab.sweep {experiment.name}.yaml", "commit": "0123abc",
        "version": "0.1", "data": "d41d8cd98f00", "machine": "2 CPU cores",
    }  # fmt: skip
    writer.begin(experiment, provenance, texts)
    chance = np.random.default_rng(1)
    luck = chance.normal(0, 0.01, size=20)
    number = 0
    for cell in expand_cells(experiment):
        rates = (5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3) if experiment.tune else (None,)
        for role, repeat in [("search", 0)] * len(rates) + [
            ("repeat", i + 1) for i in range(experiment.search.seeds)
        ]:
            rate = rates[number % len(rates)] if role == "search" else 1.5e-3
            tuned = {LR: rate} if experiment.tune else {}
            built = build_trial(BASE, cell | tuned)
            built = dataclasses.replace(built, seeds=built.seeds.repeat(repeat))
            job = Job(number=number, role=role, cell=cell, tuned=tuned, repeat=repeat, trial=built)
            miss = 0 if rate is None else 0.05 * np.log(rate / 1.5e-3) ** 2
            width = cell.get(WIDTH, 0.0)
            rows = curve(
                job,
                0.7 + effect.get(width, 0.0) - miss + luck[repeat] + chance.normal(0, 0.002),
                chance,
            )
            done = outcome(rows)
            if rate == 5e-3:
                done = outcome(rows[:3], "diverged", "loss is nan at step 251")
            writer.sync(job, f"{number:012x}", done.state, done.rows, done)
            number += 1
    built = build_trial(BASE, {})
    lost = Job(
        number=number,
        role="repeat",
        cell=expand_cells(experiment)[0],
        tuned={},
        repeat=99,
        trial=built,
    )
    writer.sync(lost, "f" * 12, "failed", (), outcome((), "failed", "out of memory"))
    writer.close(
        "finished", {"slots": 2.0, "wall_seconds": 900.0, "setup_seconds": 30.0, "slot_share": 0.93}
    )


@pytest.fixture(scope="module")
def uri(unsynced: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("store")
    uri = client.default_uri(folder)
    rates = {LR: Range(low=5e-4, high=5e-3, log=True)}
    widths = {WIDTH: (0.25, 0.5, 1.0)}
    populate(uri, folder, planned("width", widths, rates, 3), {0.25: 0.03, 1.0: -0.02})
    populate(uri, folder, planned("seeds", {"seeds.init": (0, 100)}, {}, 3), {})
    return uri


@pytest.fixture(scope="module")
def width(uri: str) -> frames.SweepFrames:
    return frames.load_frames(uri, "width")


@pytest.fixture(scope="module")
def page(width: frames.SweepFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(width, tmp_path_factory.mktemp("reports"))


@pytest.fixture
def words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write reports without figures: the tests read their text only."""
    none: dict[str, list[Figure]] = {
        "compute": [], "cells": [], "nuisances": [], "health": []
    }  # fmt: skip
    monkeypatch.setattr(page_module, "_figures", lambda *_: none)


def test_planted_difference_is_recommended(page: Path) -> None:
    text = page.read_text()
    assert "Take width 0.25 with lr 0.0015." in text
    assert "reaches the end score of width 0.5 with 0." in text
    assert "Take width 0.25 with lr 0.0015." in page.with_suffix(".md").read_text()


@pytest.mark.usefixtures("words_alone")
def test_sweep_over_nothing_but_seeds_is_not_separable(uri: str, tmp_path: Path) -> None:
    read = frames.load_frames(uri, "seeds")
    assert stats.compute_answer(read).separable is False
    text = write_report(read, tmp_path).read_text()
    assert "Not separable: " in text
    assert "Take init" not in text


def test_report_made_twice_is_the_same_bytes(uri: str, page: Path, tmp_path: Path) -> None:
    again = write_report(frames.load_frames(uri, "width"), tmp_path)
    names = sorted(p.relative_to(page.parent) for p in page.parent.rglob("*") if p.is_file())
    assert [str(n) for n in names if n.suffix != ".svg"] == [
        "curves.csv",
        "report.html",
        "report.md",
        "trials.csv",
    ]
    for name in names:
        assert (page.parent / name).read_bytes() == (again.parent / name).read_bytes(), name


def test_page_needs_no_network(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", text)
    assert not re.search(r"https?://|@import|<script|<link|url\((?!#)", text)


def test_ids_are_unique_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_every_trial_is_in_the_ledger_with_its_reason(
    width: frames.SweepFrames, page: Path
) -> None:
    rows = re.findall(r'<tr id="trial-(\d+)" class="(\w+)">(.*)\n', page.read_text())
    trials = width.trials
    assert [(int(n), state) for n, state, _ in rows] == list(
        zip(trials["number"], trials["state"], strict=True)
    )
    reasons = {state: row for _, state, row in rows}
    assert "loss is nan at step 251" in reasons["diverged"]
    assert "out of memory" in reasons["failed"]


def test_question_is_text_and_never_markup(page: Path) -> None:
    assert "a &lt;smaller&gt; generator" in page.read_text()


def test_every_figure_says_what_it_shows(page: Path) -> None:
    captions = re.findall(r"<figcaption><strong>.*</strong> (.*)</figcaption>", page.read_text())
    assert len(captions) == len(list((page.parent / "figures").glob("*.svg"))) == 6
    assert all(len(caption) > 20 for caption in captions)
    assert not re.search(r"\bnan\b", page.read_text().replace("loss is nan at step", ""))


@pytest.mark.usefixtures("words_alone")
def test_older_report_is_replaced_and_anything_else_is_left_alone(uri: str, tmp_path: Path) -> None:
    read = frames.load_frames(uri, "seeds")
    write_report(read, tmp_path)
    (tmp_path / "seeds" / "stale.txt").write_text("old")
    write_report(read, tmp_path)
    assert not (tmp_path / "seeds" / "stale.txt").exists()
    shutil.rmtree(tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="left alone"):
        write_report(read, tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["seeds", "thesis.txt"]


@pytest.mark.parametrize("end", [None, "failed"])
def test_sweep_without_a_score_has_a_report_too(
    uri: str, tmp_path: Path, end: State | None
) -> None:
    name = f"empty-{end}"
    asked = planned(name, {WIDTH: (0.25, 0.5)}, {LR: Range(low=5e-4, high=5e-3)}, 1)
    writer = store.MlflowStore(uri, tmp_path / "artifacts")
    writer.begin(asked, {}, {})
    if end:
        built = build_trial(BASE, {})
        job = Job(
            number=0, role="search", cell={WIDTH: 0.25}, tuned={LR: 1e-3}, repeat=0, trial=built
        )
        writer.sync(job, "a", end, (), outcome((), end, "no space"))
    text = write_report(frames.load_frames(uri, name), tmp_path).read_text()
    assert "No answer: no trial has finished." in text


def test_two_numeric_paths_make_a_heat_map_and_odd_values_a_report(
    uri: str, tmp_path: Path
) -> None:
    for name, compare in (
        ("two", {WIDTH: (0.25, 0.5), "objective.mask_prob": (0.15, 0.3)}),
        ("odd", {"encoder": ({"size": "tiny"}, {"size": "mini"})}),
        ("none", {}),
    ):
        populate(uri, tmp_path, planned(name, compare, {}, 2), {0.25: 0.05})
        assert (
            "<svg" in write_report(frames.load_frames(uri, name), tmp_path / "reports").read_text()
        )


def test_command_line_writes_the_report(uri: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.report", "seeds", "--tracking-uri", uri]
    command += ["--reports", str(tmp_path)]
    root = ROOT
    made = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    assert Path(made.stdout.strip()).is_file()


@pytest.mark.parametrize("wrong", ["name", "database"])
def test_command_line_says_what_is_wrong_in_a_line(
    wrong: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, where = ("typo", uri) if wrong == "name" else ("seeds", client.default_uri(tmp_path))
    assert report.main([name, "--tracking-uri", where, "--reports", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lab.report: error: ")
    assert said.count("\n") == 1


def test_reading_rooms_import_neither_torch_nor_ray() -> None:
    heavy = "{'torch', 'ray', 'optuna', 'mlflow'}"
    code = f"import sys, lab.report; sys.exit(bool({heavy} & set(sys.modules)))"
    root = ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def begun(table: frames.SweepFrames, **columns: object) -> frames.SweepFrames:
    """Return the sweep with parameters of the trials of one cell replaced."""
    trials = table.trials.copy()
    for name, value in columns.items():
        trials.loc[trials["cell"] == "width 0.25", name.replace("__", ".")] = value
    return dataclasses.replace(table, trials=trials)


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize("path", ["init_from__kind", "objective__generator__init_from__kind"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("trial", "Only new compute is counted: runs of width 0.25 start from weights that were"),
        ("mlm", "Stand-alone compute is equal: runs of width 0.25 start from mlm runs that the"),
    ],
)
def test_report_says_which_compute_is_equal_where_runs_start_from_other_weights(
    width: frames.SweepFrames, page: Path, tmp_path: Path, path: str, kind: str, says: str
) -> None:
    assert "compute is" not in page.with_suffix(".md").read_text()
    text = write_report(begun(width, **{path: kind}), tmp_path).with_suffix(".md").read_text()
    assert says in text
    assert ("'untrained' is the score of these" in text) is (path == "init_from__kind")


@pytest.mark.usefixtures("words_alone")
def test_marginal_and_stand_alone_compute_stand_beside_each_other_where_they_differ(
    width: frames.SweepFrames, tmp_path: Path
) -> None:
    own = {"spent/marginal_flops": 1e12, "spent/standalone_flops": 1e12}
    alike = dataclasses.replace(width, trials=width.trials.assign(**own))
    assert "marginal FLOP" not in write_report(alike, tmp_path).with_suffix(".md").read_text()
    charged = begun(alike, **{"spent/marginal_flops": 7e11})
    text = write_report(charged, tmp_path).with_suffix(".md").read_text()
    (head, _, *rows) = re.findall(r"^\|.*\|$", text[text.index("| setting | runs |") :], re.M)
    place = [cell.strip() for cell in head.split("|")].index("marginal FLOP")
    shown = {row.split("|")[1].strip(): row.split("|")[place].strip() for row in rows[:3]}
    assert shown == {"width 0.25": "700 G", "width 0.5": "1 T", "width 1": "1 T"}


@pytest.mark.usefixtures("words_alone")
def test_compute_that_nobody_recorded_is_a_dash(width: frames.SweepFrames, tmp_path: Path) -> None:
    own = width.trials.assign(**{"spent/marginal_flops": 1e12})
    unknown = dataclasses.replace(width, trials=own)
    text = write_report(unknown, tmp_path).with_suffix(".md").read_text()
    assert "| marginal FLOP | stand-alone FLOP |" in text
    assert "| 1 T | – |" in text


def test_cost_of_a_sweep_counts_a_preparatory_run_once(width: frames.SweepFrames) -> None:
    alike = width.trials.assign(**{"spent/marginal_flops": 1e12})
    measures = {"preparatory_runs": 2.0, "preparatory_flops": 5e11}
    sweep = dataclasses.replace(width, trials=alike, measures=measures)
    whole = len(alike) + 0.5
    assert sentences.cost(sweep) == (
        f"{whole:.3g} TFLOP of training, 500 GFLOP of it in 2 preparatory mlm runs"
    )
