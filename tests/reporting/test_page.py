"""The report is complete, needs no network, states unknown values and is reproducible."""

import base64
import csv
import dataclasses
import gzip
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pages import contrast
from project import ROOT
from simulated.sweeps import BASE, LR, METRIC, WIDTH, build_experiment, outcome, populate

from lab import report
from lab.config.experiment import Job, Range
from lab.config.labels import label
from lab.config.results import State
from lab.display.loopback_server import LoopbackServer
from lab.loading.search_space import build_trial
from lab.reporting import conclusion, sentences, stats, tuned_parameters
from lab.reporting import page as page_module
from lab.reporting.figures import cell_colors, health_plots, plots, svg, tuning_plots
from lab.reporting.figures.figure import Figure
from lab.reporting.interactive import page as interactive
from lab.reporting.interactive.spec import LiveFigure
from lab.reporting.page import write_report
from lab.storage.checks import StorageError
from lab.tracking import client, frames, store, tags


@pytest.fixture(scope="module")
def uri(unsynced: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("store")
    uri = client.default_uri(folder)
    rates = {LR: Range(low=5e-4, high=5e-3, log=True)}
    widths = {WIDTH: (0.25, 0.5, 1.0)}
    populate(uri, folder, build_experiment("width", widths, rates, 3), {0.25: 0.03, 1.0: -0.02})
    populate(uri, folder, build_experiment("seeds", {"seeds.init": (0, 100)}, {}, 3), {})
    return uri


@pytest.fixture(scope="module")
def width(uri: str) -> frames.SweepFrames:
    return frames.load_frames(uri, "width")


@pytest.fixture(scope="module")
def page(width: frames.SweepFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(width, tmp_path_factory.mktemp("reports"))


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write reports without figures, for tests of the text."""
    none: dict[str, list[Figure]] = {
        "compute": [], "cells": [], "nuisances": [], "health": []
    }  # fmt: skip
    monkeypatch.setattr(page_module, "_figures", lambda *_: none)


def test_simulated_difference_is_recommended(page: Path) -> None:
    text = page.read_text()
    assert "Recommended setting: width 0.25 with lr 0.0015." in text
    assert "width 0.25 reaches the score of width 0.5 at 1 TFLOP with at most 0." in text
    assert "Recommended setting: width 0.25 with lr 0.0015." in page.with_suffix(".md").read_text()


@pytest.mark.usefixtures("without_figures")
def test_sweep_over_seeds_alone_has_no_best_setting(uri: str, tmp_path: Path) -> None:
    read = frames.load_frames(uri, "seeds")
    assert stats.compute_answer(read).separable is False
    text = write_report(read, tmp_path).read_text()
    assert " has the best mean score. Not separable from it: " in text
    assert "Recommended" not in text


def test_report_written_twice_has_the_same_bytes(uri: str, page: Path, tmp_path: Path) -> None:
    again = write_report(frames.load_frames(uri, "width"), tmp_path)
    names = sorted(p.relative_to(page.parent) for p in page.parent.rglob("*") if p.is_file())
    assert [str(n) for n in names if n.suffix != ".svg"] == [
        "compute.csv",
        "curves.csv",
        "report.html",
        "report.json",
        "report.md",
        "scores.csv",
        "settings.csv",
        "trials.csv",
    ]
    for name in names:
        assert (page.parent / name).read_bytes() == (again.parent / name).read_bytes(), name


def read_markup(page: Path) -> str:
    """Return the page without the texts of its scripts and the data of its interactive figures."""
    return re.sub(r"(?s)<script( type=.application/[^>]*)?>.*?</script>", "", page.read_text())


def read_specs(page: Path) -> dict[str, dict]:
    """Return the data of the interactive figures, by the ids of their elements."""
    found = re.findall(
        r'(?s)<figure class="live" id="([^"]+)".*?<script type="application/json">(.*?)</script>',
        page.read_text(),
    )
    return {name: json.loads(text) for name, text in found}


def read_library(text: str) -> str:
    """Return the script of Plotly, which the page's own script decompresses and runs."""
    packed = re.search(r'<script type="application/gzip" id="library">([^<]*)</script>', text)
    assert packed is not None
    return gzip.decompress(base64.b64decode(packed[1])).decode()


def test_page_needs_no_network(page: Path) -> None:
    text = read_markup(page)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", text)
    assert not re.search(r"@import|<script|<link|url\((?!#)", text)
    assert re.findall(r"""https?://[^"']*""", text) == [interactive.MLFLOW]  # of links


def test_policy_of_the_page_allows_its_own_scripts_and_no_connection(page: Path) -> None:
    text = page.read_text()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert set(allowed) == {
        "default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"
    }  # fmt: skip
    scripts = [read_library(text), *re.findall(r"(?s)<script>(.*?)</script>", text)]
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()) for each in scripts]
    assert allowed["script-src"].split() == [f"'sha256-{each.decode()}'" for each in digests]


def test_no_button_sends_a_figure_to_a_server() -> None:
    """Plotly's default is a button that uploads the data of the figure."""
    own = (ROOT / "lab" / "reporting" / "documents" / "templates" / "report.js").read_text()
    assert "showSendToCloud: false" in own
    assert 'plotlyServerURL: ""' in own
    assert not re.search(r"fetch\(|XMLHttpRequest|sendBeacon|WebSocket|import\(", own)


def test_interactive_curves_have_the_scores_of_the_frames(
    width: frames.SweepFrames, page: Path
) -> None:
    curves = width.curves.dropna(subset=[METRIC])
    traces = [t for t in read_specs(page)["live-scores"]["traces"] if "meta" in t]
    assert [t["meta"]["trial"] for t in traces] == list(curves["number"].unique())
    for trace in traces:
        own = curves[curves["number"] == trace["meta"]["trial"]]
        assert trace["columns"]["y"][METRIC] == pytest.approx(own[METRIC].tolist(), rel=1e-5)
        for axis in ("spent/flops", "spent/tokens", "spent/seconds"):
            assert trace["columns"]["x"][axis] == pytest.approx(own[axis].tolist(), rel=1e-5)


def test_interactive_losses_have_the_losses_of_the_frames(
    width: frames.SweepFrames, page: Path
) -> None:
    for trace in read_specs(page)["live-losses"]["traces"]:
        own = width.curves[width.curves["number"] == trace["meta"]["trial"]]
        for name in ("train/discriminator_loss", "train/generator_loss"):
            expected = own[name].dropna().tolist()
            assert trace["columns"]["y"][name] == pytest.approx(expected, rel=1e-5)


def test_interactive_cells_have_the_scores_and_intervals_of_the_answer(
    width: frames.SweepFrames, page: Path
) -> None:
    traces = read_specs(page)["live-cells"]["traces"]
    means = [trace for trace in traces if "error_y" in trace]
    cells = {cell.label: cell.score for cell in stats.compute_answer(width).cells}
    assert {t["name"]: (t["y"], t["error_y"]["array"]) for t in means} == {
        label: ([score.mean], [score.high - score.mean]) for label, score in cells.items()
    }
    drawn = [y for trace in traces if "customdata" in trace for y in trace["y"]]
    assert sorted(drawn) == sorted(stats.scored_trials(width)["score"])


def test_interactive_figures_of_tuned_parameters_have_the_search_trials(
    width: frames.SweepFrames, page: Path
) -> None:
    specs, trials = read_specs(page), width.trials[width.trials["role"] == "search"]
    dots = specs[f"live-slice-{LR}"]["traces"]
    drawn = {(x, y) for t in dots if t["showlegend"] for x, y in zip(t["x"], t["y"], strict=True)}
    scored = trials[trials["score"].notna()]
    assert drawn == set(zip(scored[LR], scored["score"], strict=True))
    crosses = [x for trace in dots if not trace["showlegend"] for x in trace["x"]]
    assert sorted(crosses) == sorted(trials.loc[trials["score"].isna(), LR])
    lines = [t["meta"]["trial"] for t in specs["live-parallel"]["traces"] if "meta" in t]
    assert lines == scored["number"].tolist()
    for file in (page, page.with_suffix(".md")):
        assert "this sweep tunes one" in file.read_text()


@pytest.fixture
def tuned(width: frames.SweepFrames) -> frames.SweepFrames:
    """Return a sweep that tunes a parameter that decides the score, and another one."""
    random = np.random.default_rng(0)
    rates = np.exp(random.uniform(np.log(5e-4), np.log(5e-3), 40))
    trials = width.trials.iloc[np.zeros(40, int)].assign(
        **{LR: rates, "optim.decay": random.uniform(0, 1, 40)},
        score=-(np.log(rates / 1.5e-3) ** 2), role="search", number=range(40),
    )  # fmt: skip
    tune = width.tune | {"optim.decay": dataclasses.asdict(Range(low=0, high=1))}
    return dataclasses.replace(
        width, trials=trials, sweep=width.sweep | {tags.TUNE: json.dumps(tune)}
    )


def test_importance_finds_the_parameter_that_decides(tuned: frames.SweepFrames) -> None:
    importance = tuned_parameters.rank_searched(tuned)
    assert list(importance) == [LR, "optim.decay"]
    assert sum(importance.values()) == pytest.approx(1)
    (axes,) = tuning_plots.plot_importance(importance).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    drawn = dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))
    assert drawn == importance
    few = dataclasses.replace(tuned, trials=tuned.trials.head(tuned_parameters.FEWEST - 1))
    assert tuned_parameters.rank_searched(few) == {}
    assert "needs 20 search trials" in tuned_parameters.describe_importance(few)


def test_parallel_coordinates_have_the_values_of_the_search_trials(
    tuned: frames.SweepFrames,
) -> None:
    (axes,) = tuning_plots.plot_parallel(tuned).axes
    first = axes.lines[0].get_ydata()
    heights = np.array(first).reshape(-1, 4)[:, :3]  # a gap follows each trial
    trials = tuned.trials
    logs = np.log(trials[LR])
    assert np.exp(logs.min() + heights[:, 0] * np.ptp(logs)) == pytest.approx(trials[LR])
    for column, name in ((1, "optim.decay"), (2, "score")):
        values = trials[name]
        assert values.min() + heights[:, column] * np.ptp(values) == pytest.approx(values)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr", "decay", METRIC]


def test_report_without_scripts_has_all_figures_of_tuned_parameters(
    tuned: frames.SweepFrames, tmp_path: Path
) -> None:
    page = write_report(tuned, tmp_path)
    text = page.with_suffix(".md").read_text()
    for name in ("parallel", "importance", f"tune-{LR}", "tune-optim.decay"):
        assert (page.parent / "figures" / f"{name}.svg").is_file()
        assert f"](figures/{name}.svg)" in text
    with (page.parent / "importance.csv").open() as lines:
        found = {row["parameter"]: float(row["importance"]) for row in csv.DictReader(lines)}
    assert found == pytest.approx(tuned_parameters.rank_searched(tuned))
    instead = re.search(r'id="live-importance" data-instead="([^"]+)"', page.read_text())
    assert instead is not None
    assert {"parallel", "importance"} <= set(instead[1].split())


def test_every_cell_can_be_hidden_in_all_interactive_figures(
    width: frames.SweepFrames, page: Path
) -> None:
    buttons = re.findall(
        r'<button type="button" aria-pressed="true" data-group="([^"]+)">', page.read_text()
    )
    assert sorted(buttons) == sorted(set(width.trials["cell"]))
    for name, content in read_specs(page).items():
        drawn = {trace["legendgroup"] for trace in content["traces"] if "legendgroup" in trace}
        assert drawn == set(buttons), name


def test_one_cell_and_more_than_thirty_have_no_list_to_hide_them(
    width: frames.SweepFrames,
) -> None:
    def count(cells: int) -> int:
        labels = [f"cell {number}" for number in range(cells)]
        trials = width.trials.iloc[np.zeros(cells, int)].assign(cell=labels)
        traces = [{"legendgroup": label} for label in labels]
        figure = LiveFigure(name="a", title="", caption="", traces=traces, layout={})
        read = dataclasses.replace(width, trials=trials)
        return len(interactive.list_groups(read, {"compute": [figure]}))

    assert [count(cells) for cells in (1, 2, 30, 31)] == [0, 2, 30, 0]


def test_trials_are_linked_with_their_mlflow_runs(width: frames.SweepFrames, page: Path) -> None:
    paths = [f"#/experiments/{width.experiment_id}/runs/{run}" for run in width.trials["run_id"]]
    assert re.findall(r'<a data-run="([^"]+)"', page.read_text()) == paths
    traces = [t for t in read_specs(page)["live-scores"]["traces"] if "meta" in t]
    assert {trace["meta"]["run"] for trace in traces} <= set(paths)


def test_ids_are_unique_and_links_have_targets(page: Path) -> None:
    text = read_markup(page)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    described = re.findall(r'<div class="plot" tabindex="0" .* aria-describedby="([^"]+)"', text)
    assert described == [f"{name}-caption" for name in read_specs(page)]
    assert set(described) <= set(ids)


def test_every_trial_is_in_the_table_with_its_reason(width: frames.SweepFrames, page: Path) -> None:
    rows = re.findall(r'<tr id="trial-(\d+)" class="(\w+)">(.*)\n', page.read_text())
    trials = width.trials
    assert [(int(n), state) for n, state, _ in rows] == list(
        zip(trials["number"], trials["state"], strict=True)
    )
    reasons = {state: row for _, state, row in rows}
    assert "loss is nan at step 251" in reasons["diverged"]
    assert "out of memory" in reasons["failed"]


def test_question_is_escaped_in_html(page: Path) -> None:
    assert "a &lt;smaller&gt; generator" in page.read_text()


HOSTILE = (
    "=1+1 <script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) `b` "
    "$\\frac{$ | \x1b[2J\x00 &amp;\n# c"
)
COLUMN = "data.source.column"


def make_hostile(width: frames.SweepFrames) -> frames.SweepFrames:
    """Return frames with hostile texts where a user, a file or a forged database can put them."""
    labels = dict(zip(("width 0.25", "width 0.5", "width 1"), (HOSTILE, "b", "c"), strict=True))
    compare = {COLUMN: list(labels.values())}
    trials = width.trials.assign(
        cell=[label({COLUMN: labels[cell]}, compare) for cell in width.trials["cell"]],
        reason=HOSTILE,
        device=HOSTILE,
        **{COLUMN: HOSTILE},
    )
    sweep = width.sweep | {
        tags.QUESTION: HOSTILE, tags.COMPARE: json.dumps(compare), tags.COMMAND: HOSTILE,
        tags.REFERENCE: json.dumps({COLUMN: HOSTILE}), "text": HOSTILE,
    }  # fmt: skip
    texts = {tags.SPACE_FILE: f"````\n`````\n{HOSTILE}", HOSTILE: HOSTILE}
    return dataclasses.replace(width, sweep=sweep, trials=trials, texts=texts)


@pytest.fixture(scope="module")
def hostile(width: frames.SweepFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report with hostile texts."""
    return write_report(make_hostile(width), tmp_path_factory.mktemp("hostile")).parent


@pytest.mark.reported
def test_html_shows_hostile_texts_and_runs_none(hostile: Path) -> None:
    page = read_markup(hostile / "report.html")
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"<(script|img)\b", page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", page)
    assert r"\x1b[2J\x00" in page


@pytest.mark.reported
def test_interactive_figures_show_hostile_labels_and_run_none(hostile: Path) -> None:
    """Plotly interprets tags and entities in texts: none may come from a label."""
    specs = read_specs(hostile / "report.html")
    assert set(specs) == {
        "live-scores", "live-cells", "live-parallel", f"live-slice-{LR}", "live-losses"
    }  # fmt: skip
    options = [o for each in specs.values() for c in each["choices"] for o in c["options"]]
    captions = [option.pop("caption") for option in options if "caption" in option]
    assert any("<script>" in caption for caption in captions)  # a text of the page, not of Plotly
    script = ROOT / "lab" / "reporting" / "documents" / "templates" / "report.js"
    assert "textContent = option.caption" in script.read_text()
    text = json.dumps(specs, ensure_ascii=False)
    assert "&lt;script&gt;alert(1)" in text
    assert set(re.findall("<[^>]*>", text)) == {"<br>", "<extra>", "</extra>"}
    assert not re.search("[\x00-\x1f\x7f]", text)
    raw = re.findall(r"(?s)application/json.>(.*?)</script>", (hostile / "report.html").read_text())
    assert not any(set(each) & set("<>&") for each in raw)


@pytest.mark.reported
def test_markdown_shows_hostile_texts_and_runs_none(hostile: Path) -> None:
    text = (hostile / "report.md").read_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", text)
    outside = re.sub(r"^(`{4,})$.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert outside.count("&lt;script&gt;alert(1)") > 3
    outside = re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)  # code in a line
    assert not re.search(r"<(script|img|/script)", outside)
    assert "](javascript" not in outside
    assert not re.search("^# c", outside, flags=re.MULTILINE)


def test_figures_with_hostile_labels_are_plain_svg(hostile: Path) -> None:
    figures = sorted((hostile / "figures").glob("*.svg"))
    assert len(figures) == 6
    for file in figures:
        elements = {each.tag.rpartition("}")[2] for each in ElementTree.parse(file).iter()}  # noqa: S314
        assert not elements & {"script", "img", "image", "foreignObject"}


@pytest.mark.reported
@pytest.mark.parametrize("name", ["trials.csv", "curves.csv"])
def test_no_cell_of_a_table_is_a_formula(hostile: Path, name: str) -> None:
    """A spreadsheet computes a text that begins with one of these characters."""
    with (hostile / name).open(newline="") as lines:
        rows = list(csv.reader(lines))
    for cell in (cell for row in rows for cell in row if cell.startswith(tuple("=+-@\t\r"))):
        float(cell)  # a number
    if name == "trials.csv":
        assert {row[rows[0].index("reason")] for row in rows[1:]} == {
            "'" + HOSTILE.replace("\x1b", r"\x1b").replace("\x00", r"\x00")
        }


def test_every_figure_has_a_caption(page: Path) -> None:
    captions = re.findall(r"<figcaption><strong>.*</strong> (.*)</figcaption>", page.read_text())
    assert len(list((page.parent / "figures").glob("*.svg"))) == 6
    assert len(captions) == 6 + len(read_specs(page)) == 11
    assert all(len(caption) > 20 for caption in captions)
    assert not re.search(r"\bnan\b", read_markup(page).replace("loss is nan at step", ""))


@pytest.mark.usefixtures("without_figures")
@pytest.mark.reported
def test_older_report_is_replaced_and_files_of_the_user_are_kept(uri: str, tmp_path: Path) -> None:
    read = frames.load_frames(uri, "seeds")
    write_report(read, tmp_path)
    folder = tmp_path / "seeds"
    (folder / "figures" / "stale.svg").write_text("old")
    tables = ("front", "forecasts", "back_tests", "end_points", "best_rates")  # of some reports
    for name in tables:
        (folder / f"{name}.csv").write_text("old")
    (folder / "notes.md").write_text("mine")
    (folder / "data").mkdir()
    (folder / "data" / "table.csv").write_text("mine too")
    (folder / "link").symlink_to("missing")
    write_report(read, tmp_path)
    assert not (folder / "figures" / "stale.svg").exists()
    for name in tables:
        file = folder / f"{name}.csv"
        assert not file.exists() or file.read_text() != "old"
    assert (folder / "notes.md").read_text() == "mine"
    assert (folder / "data" / "table.csv").read_text() == "mine too"
    assert (folder / "link").readlink() == Path("missing")


@pytest.mark.reported
def test_folders_that_hold_no_report_are_refused_and_not_changed(uri: str, tmp_path: Path) -> None:
    read = frames.load_frames(uri, "seeds")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "report.html").write_text("of another program")
    with pytest.raises(StorageError, match="it was not changed"):
        write_report(read, tmp_path)
    assert (tmp_path / "seeds" / "report.html").read_text() == "of another program"
    shutil.rmtree(tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="it was not changed"):
        write_report(read, tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["seeds", "thesis.txt"]


@pytest.mark.parametrize("end", [None, "failed"])
def test_sweep_without_a_score_has_a_report(uri: str, tmp_path: Path, end: State | None) -> None:
    name = f"empty-{end}"
    experiment = build_experiment(name, {WIDTH: (0.25, 0.5)}, {LR: Range(low=5e-4, high=5e-3)}, 1)
    writer = store.MlflowStore(uri, tmp_path / "artifacts")
    writer.begin(experiment, {}, {})
    if end:
        cell, tuned = {WIDTH: 0.25}, {LR: 1e-3}
        trial = build_trial(BASE, cell | tuned)
        job = Job(number=0, role="search", cell=cell, tuned=tuned, repeat=0, trial=trial)
        writer.sync(job, "a", end, (), outcome((), end, "no space"))
    text = write_report(frames.load_frames(uri, name), tmp_path).read_text()
    assert "No answer: no trial has finished." in text


def test_two_numeric_paths_unusual_values_and_no_comparison_give_figures(
    uri: str, tmp_path: Path
) -> None:
    for name, compare in (
        ("two", {WIDTH: (0.25, 0.5), "objective.mask_prob": (0.15, 0.3)}),
        ("odd", {"encoder": ({"size": "tiny"}, {"size": "mini"})}),
        ("none", {}),
    ):
        populate(uri, tmp_path, build_experiment(name, compare, {}, 2), {0.25: 0.05})
        assert (
            "<svg" in write_report(frames.load_frames(uri, name), tmp_path / "reports").read_text()
        )


def test_command_writes_the_report_and_loads_no_heavy_packages_at_its_start(
    uri: str, tmp_path: Path
) -> None:
    code = """
import sys
from lab import report
print(sorted({"torch", "ray", "optuna", "mlflow"} & set(sys.modules)))
sys.exit(report.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "seeds", "--tracking-uri", uri]
    command += ["--reports", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    heavy, page = process.stdout.splitlines()
    assert heavy == "[]"
    assert Path(page).is_file()


@pytest.mark.usefixtures("without_figures")
def test_live_page_is_the_report_and_nothing_is_written(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C arrives after one request."""
    served: list[tuple[str | None, bytes]] = []

    def serve_once(server: LoopbackServer) -> None:
        threading.Thread(target=serve_forever, args=(server, 0.01)).start()
        with urllib.request.urlopen(server.address) as response:  # noqa: S310 - an http address
            served.append((response.headers["Refresh"], response.read()))
        server.shutdown()
        raise KeyboardInterrupt

    serve_forever = LoopbackServer.serve_forever
    monkeypatch.setattr(LoopbackServer, "serve_forever", serve_once)
    arguments = ["seeds", "--live", "--tracking-uri", uri, "--reports", str(tmp_path / "reports")]
    assert report.main(arguments) == 130
    assert not (tmp_path / "reports").exists()
    written = write_report(frames.load_frames(uri, "seeds"), tmp_path)
    assert served == [(None, written.read_bytes())]
    output, error = capsys.readouterr()
    ended, address = output.splitlines()
    assert ended.startswith("seeds has ended (finished)")
    assert re.match(r"http://127\.0\.0\.1:\d+/ ", address)
    assert error == "interrupted; an earlier report is left as it was\n"


@pytest.mark.parametrize("wrong", ["name", "database"])
def test_error_of_the_command_is_one_line(
    wrong: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, used_uri = ("typo", uri) if wrong == "name" else ("seeds", client.default_uri(tmp_path))
    assert report.main([name, "--tracking-uri", used_uri, "--reports", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lab.report: error: ")
    assert error.count("\n") == 1


def replace_parameters(table: frames.SweepFrames, **columns: object) -> frames.SweepFrames:
    """Return the sweep with other values of parameters in the trials of one cell."""
    trials = table.trials.copy()
    for name, value in columns.items():
        trials.loc[trials["cell"] == "width 0.25", name.replace("__", ".")] = value
    return dataclasses.replace(table, trials=trials)


@pytest.mark.usefixtures("without_figures")
def test_report_begins_with_what_the_ranking_metric_is_confounded_with(
    width: frames.SweepFrames, tmp_path: Path
) -> None:
    probed = dataclasses.replace(width, sweep=width.sweep | {tags.METRIC: "probe/pos/accuracy"})
    report_file = write_report(replace_parameters(probed, encoder__hidden=64), tmp_path)
    for file in (report_file, report_file.with_suffix(".md")):
        head = file.read_text().partition("Score against compute")[0]
        assert "probe/pos/accuracy is confounded with encoder.hidden, in which trials" in head


def test_settings_have_their_masked_tokens(page: Path) -> None:
    head, *rows = [
        line.split(" | ")
        for line in page.with_suffix(".md").read_text().partition("## Settings")[2].splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    column = head.index("masked tokens of a full window")
    assert [row[column] for row in rows[:3]] == ["4 of 14 tokens (28.6 %)"] * 3


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("path", ["init_from__kind", "objective__generator__init_from__kind"])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("trial", "Only new compute is counted: trials of width 0.25 start from weights that were"),
        ("mlm", "Stand-alone compute is equal: trials of width 0.25 start from mlm runs that the"),
    ],
)
def test_report_states_the_compute_of_weights_that_trials_start_from(
    width: frames.SweepFrames, page: Path, tmp_path: Path, path: str, kind: str, text: str
) -> None:
    assert "compute is" not in page.with_suffix(".md").read_text()
    report_file = write_report(replace_parameters(width, **{path: kind}), tmp_path)
    content = report_file.with_suffix(".md").read_text()
    assert text in content
    mentions_untrained = "'untrained' is the score of these weights" in content
    assert mentions_untrained is (path == "init_from__kind")


@pytest.mark.usefixtures("without_figures")
def test_marginal_and_stand_alone_compute_have_columns_if_they_differ(
    width: frames.SweepFrames, tmp_path: Path
) -> None:
    amounts = {"spent/marginal_flops": 1e12, "spent/standalone_flops": 1e12}
    equal = dataclasses.replace(width, trials=width.trials.assign(**amounts))
    assert "marginal FLOP" not in write_report(equal, tmp_path).with_suffix(".md").read_text()
    different = replace_parameters(equal, **{"spent/marginal_flops": 7e11})
    text = write_report(different, tmp_path).with_suffix(".md").read_text()
    (head, _, *rows) = re.findall(r"^\|.*\|$", text[text.index("| setting | trials |") :], re.M)
    column = [cell.strip() for cell in head.split("|")].index("marginal FLOP")
    values = {row.split("|")[1].strip(): row.split("|")[column].strip() for row in rows[:3]}
    assert values == {"width 0.25": "700 G", "width 0.5": "1 T", "width 1": "1 T"}


@pytest.mark.usefixtures("without_figures")
def test_unknown_compute_is_a_dash(width: frames.SweepFrames, tmp_path: Path) -> None:
    trials = width.trials.assign(**{"spent/marginal_flops": 1e12})
    unknown = dataclasses.replace(width, trials=trials)
    text = write_report(unknown, tmp_path).with_suffix(".md").read_text()
    assert "| marginal FLOP | stand-alone FLOP |" in text
    assert "| 1 T | – |" in text


def test_cost_counts_each_preparatory_run_once(width: frames.SweepFrames) -> None:
    trials = width.trials.assign(**{"spent/marginal_flops": 1e12})
    measures = {"preparatory_runs": 2.0, "preparatory_flops": 5e11}
    sweep = dataclasses.replace(width, trials=trials, measures=measures)
    total = len(trials) + 0.5
    assert sentences.describe_compute(sweep) == (
        f"{total:.3g} TFLOP of training, including 500 GFLOP in 2 preparatory mlm runs"
    )


def plot_scores(read: frames.SweepFrames) -> plots.Figure:
    """Return the figure of the scores over FLOPs."""
    return plots.plot_curves(read, stats.scored_trials(read), "spent/flops")


def test_figures_have_as_many_lines_for_more_trials(uri: str) -> None:
    read = frames.load_frames(uri, "width")
    first = read.trials.groupby("cell").head(1)
    few = dataclasses.replace(
        read, trials=first, curves=read.curves[read.curves["number"].isin(first["number"])]
    )
    for plot in (plot_scores, health_plots.plot_health):
        counts = [[len(axes.lines) for axes in plot(each).axes] for each in (few, read)]
        assert counts[0] == counts[1]


def test_curves_of_a_cell_are_one_line_with_a_gap_after_each_trial(uri: str) -> None:
    read = frames.load_frames(uri, "width")
    axes = plot_scores(read).axes[0]
    drawn = [line.get_ydata() for line in axes.lines[: read.trials["cell"].nunique()]]
    finite = np.concatenate([values[np.isfinite(values)] for values in drawn])
    assert sorted(finite) == sorted(read.curves[METRIC].dropna())
    with_curve = read.curves.dropna(subset=[METRIC])["number"].nunique()
    assert sum(int(np.isnan(values).sum()) for values in drawn) == with_curve


def test_curve_of_one_point_is_a_dot(width: frames.SweepFrames) -> None:
    loss = "train/discriminator_loss"
    last = width.curves.dropna(subset=[loss]).groupby("number").tail(1)
    read = dataclasses.replace(width, curves=last)
    (axes,) = (
        a for a in health_plots.plot_health(read).axes if "discriminator" in a.get_title("left")
    )
    lines = [line for line in axes.lines if line.get_solid_capstyle() == "round"]
    drawn = [value for line in lines for value in line.get_ydata()[::3]]  # two ends and a gap
    assert sorted(drawn) == sorted([*last[loss], *last["health/majority_loss"]])


@pytest.mark.reported
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_reports_do_not_depend_on_the_backend_of_matplotlib(backend: str) -> None:
    variables = os.environ | {"MPLBACKEND": backend}
    command = [sys.executable, "-c", "import lab.reporting.page"]
    subprocess.run(command, env=variables, check=True)


def test_figures_of_many_settings_with_long_names_have_room_for_them(
    uri: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Labels that overlap, or a legend over the axes, would hide the scores."""
    compare = {
        WIDTH: (0.25, 0.5, 1.0),
        "objective.disc_weight": (5.0, 50.0),
        "optim.clip_scope": ("joint", "per_network"),
    }
    populate(uri, tmp_path, build_experiment("many", compare, {}, 2), {0.25: 0.05})
    read = frames.load_frames(uri, "many")
    result = stats.compute_answer(read)
    assert result is not None
    assert len(result.cells) == 12
    cells = plots.plot_cells(read, result, stats.scored_trials(read))
    (axes,) = cells.axes
    cells.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(one.x1 <= other.x0 for one, other in pairwise(boxes))
    curves = plot_scores(read)
    curves.draw_without_rendering()
    (legend,) = curves.legends
    assert legend.get_window_extent().y1 < curves.axes[0].get_window_extent().y0
    svg.render_svg(cells)
    svg.render_svg(curves)
    assert not [each for each in recwarn if "constrained_layout" in str(each.message)]


def test_means_of_the_settings_are_a_file_which_the_report_names(
    width: frames.SweepFrames, page: Path
) -> None:
    with (page.parent / "settings.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    result = stats.compute_answer(width)
    assert result is not None
    assert [row["setting"] for row in rows] == [cell.label for cell in result.cells]
    for row, cell in zip(rows, result.cells, strict=True):
        assert float(row["mean"]) == pytest.approx(cell.score.mean)
        assert row["separable"] == str(not cell.tied)
        assert (row["difference"] == "") is (cell.difference is None)
    text = page.with_suffix(".md").read_text()
    for name in ("trials.csv", "curves.csv", "settings.csv"):
        assert f"- `{name}`: " in text
    assert "front.csv" not in text


def test_each_figure_and_table_names_csv_files_which_exist(page: Path) -> None:
    text, markup = page.with_suffix(".md").read_text(), read_markup(page)
    figures = re.findall(r"!\[.*\]\(figures/.*\)\n\nNumbers: (.*)\n", text)
    assert len(figures) == len(list((page.parent / "figures").iterdir()))
    tables = re.findall(r"\|\n\nNumbers: (.*)\n", text)
    assert tables == [f"`{name}.csv`" for name in ("settings", "compute", "scores", "trials")]
    named = set(re.findall(r"`(.*?)`", " ".join((*figures, *tables))))
    assert named == {file.name for file in page.parent.glob("*.csv")}
    assert set(re.findall(r"^- `(.*)`: \w", text, re.MULTILINE)) == named
    lines = re.findall(r'<p class="numbers">Numbers: (.*)</p>', markup)
    assert len(lines) == len(figures) + len(tables) + len(read_specs(page))
    assert set(re.findall("<code>(.*?)</code>", " ".join(lines))) == named


def test_files_of_tables_have_the_numbers_of_the_frames(
    width: frames.SweepFrames, page: Path
) -> None:
    runs = stats.scored_trials(width)
    with (page.parent / "compute.csv").open() as lines:
        for row in csv.DictReader(lines):
            spent = runs.loc[runs["cell"] == row["setting"], "spent/flops"].mean()
            assert float(row["FLOP"]) == pytest.approx(spent, rel=6e-3)
    with (page.parent / "scores.csv").open() as lines:
        ranked = next(row for row in csv.DictReader(lines) if row["score"].split()[0] == METRIC)
    for cell, scores in runs.groupby("cell")["score"]:
        assert float(ranked[cell]) == pytest.approx(scores.mean(), abs=1e-4)
        assert float(ranked[f"{cell} sd"]) == pytest.approx(scores.std(), abs=1e-4)
        assert float(ranked[f"{cell} n"]) == len(scores)


def test_colors_of_settings_contrast_with_both_backgrounds_of_the_page() -> None:
    colors = (*cell_colors.PALETTE, *cell_colors.ordered_colors(25))
    assert contrast.faint_marks((color, 1.0) for color in colors) == []
    assert contrast.faint_marks([("#C58700", 0.65)]) != []


def test_marks_of_figures_contrast_with_both_backgrounds_as_they_are_drawn(
    page: Path, tuned: frames.SweepFrames
) -> None:
    texts = [file.read_text() for file in (page.parent / "figures").glob("*.svg")]
    texts.append(svg.render_svg(tuning_plots.plot_parallel(tuned)))
    for text in texts:
        marks = list(contrast.svg_marks(text))
        assert marks
        assert contrast.faint_marks(marks) == []
    for name, content in read_specs(page).items():
        assert contrast.faint_marks(contrast.trace_marks(content["traces"])) == [], name


def test_settings_whose_best_value_is_at_the_edge_are_one_warning_and_a_doubt(uri: str) -> None:
    read = frames.load_frames(uri, "width")
    assert read.tune
    result, runs = stats.compute_answer(read), stats.scored_trials(read)
    assert result is not None
    low = json.loads(read.sweep[tags.TUNE])[LR]["low"]
    cells = [dataclasses.replace(cell, settings=cell.settings | {LR: low}) for cell in result.cells]
    cells[-1] = dataclasses.replace(cells[-1], settings=cells[-1].settings | {LR: 2 * low})
    edge = dataclasses.replace(result, cells=tuple(cells))
    labels = [cell.label for cell in cells]
    (warning,) = (flag for flag in stats.flag_trials(read, edge) if "edge" in flag)
    assert warning == (
        f"The best value of {LR} is at the edge of its range for {'; '.join(labels[:-1])}: "
        f"widen the range."
    )
    doubts = conclusion.write_headline(read, edge, runs).doubts
    assert doubts[0] == (
        f"The best value is at an end of the tried range: {LR} in {len(cells) - 1} of "
        f"{len(cells)} settings."
    )
