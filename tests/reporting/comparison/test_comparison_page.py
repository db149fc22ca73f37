"""The report of several sweeps is complete, links theirs, needs no network and is verified."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from frames.compared_sweeps import FIRST, SECOND, sweep
from simulated.sweeps import LR, METRIC, WIDTH, build_experiment, populate

from lab import report, verify
from lab.config.experiment import Range
from lab.reporting.comparison import page as page_module
from lab.reporting.comparison.page import write_comparison
from lab.storage.checks import StorageError
from lab.tracking import client, frames
from lab.tracking.frames import SweepFrames


@pytest.fixture(scope="module")
def uri(unsynced: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a store with two sweeps, one of which tunes the rate, and a third text."""
    folder = tmp_path_factory.mktemp("store")
    uri = client.default_uri(folder)
    rates = {LR: Range(low=5e-4, high=5e-3, log=True)}
    populate(uri, folder, build_experiment("tuned", {WIDTH: (0.25, 0.5)}, rates, 3), {0.25: 0.04})
    wide = build_experiment("wide <b>", {WIDTH: (1.0, 0.75)}, {}, 3)
    populate(uri, folder, wide, {1.0: -0.02, 0.75: -0.03})
    other = build_experiment("other", {}, {}, 2)
    populate(uri, folder, other, {}, data="text-ffff held-out-ffff.npz")
    return uri


@pytest.fixture(scope="module")
def sweeps(uri: str) -> list[SweepFrames]:
    return [frames.load_frames(uri, name) for name in ("tuned", "wide <b>")]


@pytest.fixture(scope="module")
def written(sweeps: list[SweepFrames], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the report of two sweeps."""
    return write_comparison(sweeps, tmp_path_factory.mktemp("reports")).parent


def test_report_of_two_sweeps_has_the_files_of_a_report(written: Path) -> None:
    assert written.name == "tuned+wide <b>"
    assert sorted(str(f.relative_to(written)) for f in written.rglob("*") if f.is_file()) == [
        "comparison.json", "figures/health.svg", "figures/score-flop.svg",
        "figures/score-tokens.svg", "report.html", "report.md",
        *(f"sweeps/{name}/{file}" for name in ("tuned", "wide <b>")
          for file in ("curves.csv", "report.json", "trials.csv")),
    ]  # fmt: skip


def test_conclusion_and_all_cells_are_in_both_documents(written: Path) -> None:
    pages = [html.unescape((written / name).read_text()) for name in ("report.html", "report.md")]
    for text in pages:
        assert "Recommended setting: tuned / width 0.25 with lr 0.0015." in text
        assert "detect/bigram/auroc is not neutral between trials that differ in" in text
    for cell in ("width 0.25", "width 0.5", "width 1", "width 0.75"):
        assert f"<td>{cell}</td>" in pages[0]
        assert re.search(rf"^\| (tuned|wide <b>) \| {cell} \|", pages[1], re.MULTILINE)
    assert pages[1].count("| 1 (reference) |") == 2


def test_page_links_the_own_reports_and_requests_nothing(written: Path) -> None:
    text = (written / "report.html").read_text()
    markup = re.sub(r"(?s)<script( type=.application/[^>]*)?>.*?</script>", "", text)
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']*)""", markup)
    assert links == ["../tuned/report.html", "../wide%20%3Cb%3E/report.html"]
    assert "<b>" not in markup
    assert "default-src 'none'" in html.unescape(markup)
    assert "](../tuned/report.md)" in (written / "report.md").read_text()
    ids = re.findall(r'\bid="([^"]+)"', markup)
    assert len(ids) == len(set(ids))


def test_figures_have_a_color_for_each_sweep_and_link_the_runs_of_both(
    sweeps: list[SweepFrames], written: Path
) -> None:
    text = (written / "report.html").read_text()
    found = re.findall(
        r'(?s)<figure class="live" id="([^"]+)".*?<script type="application/json">(.*?)</script>',
        text,
    )
    specs = {name: json.loads(spec) for name, spec in found}
    assert set(specs) == {"live-scores", "live-losses"}
    traces = [t for t in specs["live-scores"]["traces"] if "meta" in t]
    colors = {t["name"]: t["line"]["color"] for t in traces}
    assert set(colors) == {"tuned", "wide &lt;b&gt;"}
    groups = re.findall(r'data-group="([^"]+)"', text)
    assert {html.unescape(group) for group in groups} == set(colors)
    assert len(set(colors.values())) == 2
    assert "their colors are the 2 sweeps" in text
    assert {t["meta"]["run"] for t in traces} == {
        f"#/experiments/{each.experiment_id}/runs/{run}"
        for each in sweeps
        for run in each.trials.loc[each.trials["number"].isin(each.curves["number"]), "run_id"]
    }
    for each in sweeps:
        own = each.curves.dropna(subset=[METRIC])
        drawn = [t for t in traces if t["meta"]["trial"].endswith(f" of {each.name}")]
        assert len(drawn) == own["number"].nunique()
        values = [y for t in drawn for y in t["columns"]["y"][METRIC]]
        assert sorted(values) == pytest.approx(sorted(own[METRIC]), rel=1e-5)
    legend = (written / "figures" / "score-flop.svg").read_text()
    assert ">tuned<" in legend
    assert ">wide &lt;b&gt;<" in legend


def test_every_trial_is_in_the_table_with_its_run(sweeps: list[SweepFrames], written: Path) -> None:
    text = (written / "report.html").read_text()
    rows = re.findall(r'<tr id="trial-\S+" class="\w+"><td><a data-run="(\S+)"[^>]*>([^<]*)<', text)
    assert [html.unescape(number) for _, number in rows] == [
        f"{number} of {each.name}" for each in sweeps for number in each.trials["number"]
    ]
    runs = [run for each in sweeps for run in each.trials["run_id"]]
    assert [path.rpartition("/")[2] for path, _ in rows] == runs


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_scores", "draw_health"):
        monkeypatch.setattr(page_module.captioned, name, lambda *_: [])


def check(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    status = verify.main([str(folder), "--storage", str(folder.parent / "none"), *options])
    output, error = capsys.readouterr()
    return status, (output + error).replace(f"{folder}/", "").splitlines()


def test_report_of_two_sweeps_is_verified_with_the_store_and_without(
    uri: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = check(written, capsys, "--tracking-uri", uri)
    assert lines == [
        f"{written}: recomputed from the tracking store", f"{written}: no difference"
    ]  # fmt: skip
    assert status == 0
    changed = Path(shutil.copytree(written, tmp_path / written.name))
    text = (changed / "report.md").read_text()
    (changed / "report.md").write_text(text.replace("Recommended setting: tuned", "Take tuned"))
    status, lines = check(changed, capsys)
    assert "recomputed from its own tables" in lines[0]
    assert lines[1].startswith("report.md, line 3: '**Take")
    assert (status, lines[-1]) == (1, f"{changed}: 1 difference")


def test_changed_table_of_a_sweep_is_named(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(written, tmp_path / written.name))
    file = changed / "sweeps" / "tuned" / "trials.csv"
    file.write_text(file.read_text().replace(",finished,", ",failed,", 1))
    status, lines = check(changed, capsys)
    assert status == 1
    assert lines[1].startswith("sweeps/tuned/trials.csv, line ")
    assert lines[2].startswith("report.md: was not recomputed")


@pytest.mark.parametrize(
    "content", ["", '{"sweeps": ["tuned"]}', '{"sweeps": ["..", "tuned"], "across_code": false}']
)
def test_changed_list_of_sweeps_is_refused_in_one_line(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    changed = Path(shutil.copytree(written, tmp_path / written.name))
    (changed / "comparison.json").write_text(content)
    status, lines = check(changed, capsys)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("comparison.json: ")


@pytest.mark.reported
def test_a_sweep_that_is_listed_twice_or_has_another_name_is_refused_in_one_line(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(written, tmp_path / written.name))
    names = json.loads((changed / "comparison.json").read_text())["sweeps"]
    (changed / "sweeps" / names[0] / "report.json").write_bytes(
        (changed / "sweeps" / names[1] / "report.json").read_bytes()
    )
    status, lines = check(changed, capsys)
    assert (status, len(lines)) == (1, 1)
    assert f"sweeps/{names[0]}/report.json: name: must be {names[0]}, not {names[1]}" in lines[0]
    content = {"sweeps": [names[0]] * 2, "across_code": False}
    (changed / "comparison.json").write_text(json.dumps(content))
    status, lines = check(changed, capsys)
    assert (status, len(lines)) == (1, 1)
    assert "must have each sweep once" in lines[0]


@pytest.mark.usefixtures("without_figures")
def test_sweeps_that_are_not_comparable_have_a_table_and_no_ranking(
    uri: str, tmp_path: Path
) -> None:
    read_frames = [frames.load_frames(uri, name) for name in ("tuned", "other")]
    page = write_comparison(read_frames, tmp_path)
    text = page.with_suffix(".md").read_text()
    assert "**No ranking: the sweeps have different text (text-d41d8cd98f00 in tuned; " in text
    assert "| other | base |" in text
    assert "not ranked" in text
    assert "not comparable" not in text
    assert "| best |" not in text
    assert 'class="live"' not in page.read_text()


@pytest.mark.usefixtures("without_figures")
def test_command_writes_the_report_of_several_sweeps(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--tracking-uri", uri, "--reports", str(tmp_path)]
    assert report.main(["tuned", "wide <b>", "other", *arguments]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "tuned+wide <b>+other" / "report.html"
    assert (
        "Which setting of the sweeps tuned, wide &lt;b&gt; and other is best?" in page.read_text()
    )


@pytest.mark.usefixtures("without_figures")
def test_files_of_the_user_in_the_folder_of_a_report_are_kept(tmp_path: Path) -> None:
    page = write_comparison([sweep("one", FIRST), sweep("two", SECOND)], tmp_path)
    (page.parent / "notes.txt").write_text("mine")
    (page.parent / "sweeps" / "stale.txt").write_text("old")
    write_comparison([sweep("one", FIRST), sweep("two", SECOND)], tmp_path)
    assert (page.parent / "notes.txt").read_text() == "mine"
    assert not (page.parent / "sweeps" / "stale.txt").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tuned", "tuned"], "tuned: is named twice; must be names of different sweeps"),
        (["tuned", "other", "--live"], "--live: got 2 names; must have the name of one sweep"),
        (["tuned", "absent"], "absent: the tracking store has no sweep of this name; its sweeps: "),
    ],
)
def test_wrong_names_are_refused_in_one_line(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], message: str
) -> None:
    arguments = ["--tracking-uri", uri, "--reports", str(tmp_path)]
    assert report.main([*names, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lab.report: error: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_figures")
def test_report_of_a_sweep_with_the_same_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "one+two").mkdir()
    for name in ("report.html", "report.md"):
        (tmp_path / "one+two" / name).write_text("of a sweep that is called one+two")
    with pytest.raises(StorageError, match="holds the report of one sweep"):
        write_comparison([sweep("one", FIRST), sweep("two", SECOND)], tmp_path)
