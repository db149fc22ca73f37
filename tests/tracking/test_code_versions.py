"""Trials of several versions of the code in one sweep, with a real MLflow on SQLite."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
from experiments import BASE, METRIC, WIDTH, experiment, outcome, row

from lab import report
from lab.config.experiment import Job
from lab.loading.search_space import build_trial
from lab.reporting import stats
from lab.reporting.code_notes import describe_codes
from lab.reporting.documents.markdown import escape_cell
from lab.storage.provenance import Provenance
from lab.tracking import frames, tags
from lab.tracking.client import connect_client, default_uri
from lab.tracking.store import MlflowStore

pytestmark = pytest.mark.usefixtures("unsynced")
OLD, NEW = "0000aaaa1111", "2222bbbb3333"
WIDTHS = (0.25, 0.5)
REPEATS = (1, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store_folder = tmp_path_factory.mktemp("store")
    connect_client(default_uri(store_folder))  # one for all tests: the schema takes seconds
    return store_folder


@pytest.fixture
def uri(folder: Path) -> str:
    return default_uri(folder)


def entry(code: str, commit: str) -> Provenance:
    return Provenance(
        code=code, version="0.3.0", commit=commit, dirty=False, python="3.11", torch="2.9",
        machine="a machine", packages={"torch": "2.9"}, diff="",
    )  # fmt: skip


def build_job(number: int, width: float, repeat: int, **base: object) -> Job:
    trial = build_trial(BASE | base, {WIDTH: width})
    trial = dataclasses.replace(trial, seeds=trial.seeds.repeat(repeat))
    return Job(
        number=number, role="repeat", cell={WIDTH: width}, tuned={}, repeat=repeat, trial=trial,
        compared={WIDTH: WIDTHS},
    )  # fmt: skip


class Sweeps:
    """Writer of sweeps as several versions of the code would have run them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch

    def run(
        self, name: str, code: str, gain: float, *, widths: tuple[float, ...] = WIDTHS,
        **base: object,
    ) -> None:  # fmt: skip
        """Store a sweep with scores of .6 + gain + width / 10 + noise of the repeat."""
        for module in ("store", "run_tags"):
            self._monkeypatch.setattr(f"lab.tracking.{module}.code_digest", lambda _: code)
        store = MlflowStore(default_uri(self._folder), self._folder / "artifacts")
        store.begin(experiment(name), {}, {})
        jobs = [(width, repeat) for repeat in REPEATS for width in widths]
        for number, (width, repeat) in enumerate(jobs):
            score = 0.6 + gain + width / 10 + (0.02, -0.03, 0.01)[repeat - 1] + number / 10_000
            end = outcome(row(0), row(40) | {METRIC: score})
            job = build_job(number, width, repeat, **base)
            store.sync(
                job, f"{code}-{number}", "finished", end.rows, end, [entry(code, f"c{code}")]
            )
        store.close("finished", {})


@pytest.fixture
def sweeps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    return Sweeps(folder, monkeypatch)


def test_report_has_the_trials_of_the_last_command_and_counts_the_others(
    sweeps: Sweeps, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps.run("default", OLD, 0.0)
    assert describe_codes(frames.load_frames(uri, "default")) == []
    sweeps.run("default", NEW, 0.1)
    read = frames.load_frames(uri, "default")
    assert set(read.trials["code"]) == {NEW}
    assert list(read.trials["number"]) == [0, 1, 2, 3, 4, 5]
    assert set(read.trials["role"]) == {"repeat"}
    assert len(read.curves) == 2 * len(read.trials)
    note = (
        f"6 trials of other versions of the code are left out: 6 trials of code {OLD} (commit "
        f"c{OLD[:11]}); `python -m lab.report default --across-code` compares them too."
    )
    assert describe_codes(read) == [note]
    assert report.main(["default", "--tracking-uri", uri, "--reports", str(tmp_path)]) == 0
    assert note in capsys.readouterr().out.splitlines()
    text = (tmp_path / "default" / "report.md").read_text()
    assert escape_cell(note) in text.partition("## ")[0]
    assert list(pd.read_csv(tmp_path / "default" / "trials.csv")["code"]) == [NEW] * 6


def test_report_across_code_compares_the_versions_within_repeats(
    sweeps: Sweeps, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps.run("across", OLD, 0.0)
    sweeps.run("across", NEW, 0.1)
    read = frames.load_frames(uri, "across", across_code=True)
    assert list(read.trials["number"]) == list(range(12))
    assert list(read.trials["code"]) == [NEW] * 6 + [OLD] * 6
    answer = stats.compute_answer(read)
    assert answer is not None
    assert [cell.label for cell in answer.cells] == [
        f"width {width}, code {code}" for code in (NEW, OLD) for width in (0.5, 0.25)
    ]
    assert read.reference == f"width 0.5, code {NEW}"
    assert all(cell.score.n == 3 for cell in answer.cells)
    gap = answer.cells[2].difference
    assert gap is not None
    assert gap.mean == pytest.approx(-0.1)  # of equal repeats, so that their noise cancels
    assert gap.high < 0
    note = (
        f"The trials were computed by 2 versions of the code, which are compared like settings: 6 "
        f"trials of code {NEW} (commit c{NEW[:11]}), 6 trials of code {OLD} (commit c{OLD[:11]})."
    )
    assert describe_codes(read) == [note]
    options = ["--across-code", "--tracking-uri", uri, "--reports", str(tmp_path)]
    assert report.main(["across", *options]) == 0
    assert note in capsys.readouterr().out.splitlines()
    for name in ("report.md", "report.html"):
        assert note in (tmp_path / "across" / name).read_text()
    lines = (tmp_path / "across" / "report.md").read_text().splitlines()
    assert sum(f"| {OLD} | c{OLD} |" in line for line in lines) == 6


def test_option_changes_nothing_in_a_sweep_of_one_code(sweeps: Sweeps, uri: str) -> None:
    sweeps.run("one", NEW, 0.0)
    first, second = (frames.load_frames(uri, "one", across_code=flag) for flag in (False, True))
    pd.testing.assert_frame_equal(first.trials, second.trials)
    assert (first.sweep, first.codes) == (second.sweep, second.codes)


def test_code_that_was_changed_back_is_reported_again(sweeps: Sweeps, uri: str) -> None:
    for code in (OLD, NEW, OLD):
        sweeps.run("back", code, 0.0)
    read = frames.load_frames(uri, "back")
    assert list(read.trials["code"]) == [OLD] * 6
    assert set(read.trials["role"]) == {"repeat"}
    assert [(each.code, each.trials) for each in read.omitted_codes] == [(NEW, 6)]


def test_trials_of_other_code_with_other_settings_are_not_compared(
    sweeps: Sweeps, uri: str
) -> None:
    sweeps.run("defaults", OLD, 0.0, batch=96)
    sweeps.run("defaults", NEW, 0.1, widths=(0.5,))  # the default batch, and one cell only
    read = frames.load_frames(uri, "defaults", across_code=True)
    assert sorted(zip(read.trials["code"], read.trials[WIDTH], strict=True)) == [
        *[(OLD, 0.25)] * 3,  # no trial of the new code has this cell
        *[(NEW, 0.5)] * 3,
    ]
    assert describe_codes(read)[1:] == [
        f"3 trials of code {OLD} (commit c{OLD[:11]}) are left out, because they have other values "
        "of batch."
    ]


def test_superseded_trials_are_those_of_the_same_code(
    sweeps: Sweeps, uri: str, folder: Path
) -> None:
    sweeps.run("replaced", OLD, 0.0)
    sweeps.run("replaced", NEW, 0.1)
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment("replaced"), {}, {})
    store.sync(build_job(0, 0.25, 1), "another", "queued")
    read = frames.load_frames(uri, "replaced", across_code=True)
    superseded = read.trials[read.trials["role"] == tags.SUPERSEDED]
    assert list(superseded["fingerprint"]) == [f"{NEW}-0"]
    assert list(superseded["number"]) == [12]
    assert [each.trials for each in read.codes] == [6, 6]
    assert read.trials["number"].is_unique
    assert json.loads(read.sweep[tags.COMPARE])["code"] == [NEW, OLD]


def test_uncommitted_changes_are_named_with_the_commit(
    sweeps: Sweeps, uri: str, folder: Path
) -> None:
    sweeps.run("dirty", NEW, 0.0, widths=())
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment("dirty"), {}, {})
    changed = dataclasses.replace(entry(NEW, "0123456789abcdef"), dirty=True)
    store.sync(build_job(0, 0.5, 1), "f0", "running", [row(0)], provenance=[changed])
    (version,) = frames.load_frames(uri, "dirty").codes
    assert version.commits == ("0123456789ab with uncommitted changes",)


def test_several_provenances_of_trials_are_counted_in_the_report(
    sweeps: Sweeps, uri: str, folder: Path
) -> None:
    sweeps.run("several", NEW, 0.0)
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment("several"), {}, {})
    end = outcome(row(0), row(40))
    first, later = entry(NEW, "first"), dataclasses.replace(entry(NEW, "later"), diff="--- a\n")
    store.sync(build_job(6, 0.5, 4), "f6", "running", end.rows[:1], provenance=[first])
    store.sync(build_job(6, 0.5, 4), "f6", "finished", end.rows, end, [first, later])
    read = frames.load_frames(uri, "several")
    assert list(read.trials["commit"]) == [f"c{NEW}"] * 6 + ["first; later"]
    assert read.codes[0].commits == (f"c{NEW[:11]}", "first", "later")
    assert read.texts == {
        "installed packages": "torch==2.9\n",
        "uncommitted changes to later": "--- a\n",
    }
