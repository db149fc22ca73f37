"""Report of a sweep with constraints, a second objective and settings of an earlier sweep."""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.storages import InMemoryStorage
from simulated.search import METRIC, build_experiment, carry_out

from benchmarks.memory_tracking import tracking_in_memory
from lab.config.costs.constraints import Constraints
from lab.config.costs.encoder import encoder_parameters
from lab.config.experiment import Experiment, Job, SearchConfig
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial, content_hash
from lab.reporting import search_facts
from lab.reporting.page import write_report
from lab.reporting.pareto.front import compute_front
from lab.reporting.verification.recomputation import verify_with_own_files
from lab.reporting.verification.report_file import read_report_file
from lab.tracking import tags
from lab.tracking.frames import SweepFrames, load_frames
from lab.tracking.store import MlflowStore

LIMITS = Constraints(parameters=84_000, seconds=100)
UNITS = ("tokens", "flops", "paper_flops", "six_n")


def score(trial: Trial) -> float:
    rate = np.log10(trial.optim.lr) + 3
    noise = np.random.default_rng(trial.seeds.init).normal(0, 0.002)
    return float(0.55 + trial.encoder.ffn / 2_000 - 0.02 * rate**2 + noise)


def outcome_of(job: Job) -> Outcome:
    """Return an outcome with two evaluations; repeats of a large inner width take long."""
    if job.infeasible:
        return Outcome(state="infeasible", reason=job.infeasible, rows=(), started_at=1e9,
                       seconds=0.0, busy=0.0)  # fmt: skip
    seconds = 500.0 if job.role == "repeat" and job.trial.encoder.ffn > 64 else 50.0
    rows: tuple[MetricRow, ...] = tuple(
        {
            "spent/steps": 8.0 * n, "spent/seconds": seconds * n, METRIC: value,
            **{f"spent/{unit}": 1e11 * n for unit in UNITS},
        }
        for n, value in enumerate((0.5, score(job.trial)))
    )  # fmt: skip
    state: State = "finished"
    return Outcome(state=state, reason="", rows=rows, started_at=1e9, seconds=60.0, busy=50.0)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    search = SearchConfig(sampler="tpe", trials=12, seeds=3, seed=1, prior=("earlier",))
    return build_experiment("costs", search=search, constraints=LIMITS, cost="parameters")


@pytest.fixture(scope="module")
def jobs(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    storage, notes = InMemoryStorage(), tmp_path_factory.mktemp("notes")
    carry_out(build_experiment("earlier"), storage, notes, score)
    return carry_out(experiment, storage, notes, score)


@pytest.fixture(scope="module")
def frames(experiment: Experiment, jobs: list[Job]) -> Iterator[SweepFrames]:
    with tracking_in_memory() as uri:
        store = MlflowStore(uri, Path())
        store.begin(experiment, {}, {})
        for job in jobs:
            end = outcome_of(job)
            store.sync(job, f"{job.number:012x}", end.state, end.rows, end)
        store.close("finished", {})
        yield load_frames(uri, experiment.name)


@pytest.fixture(scope="module")
def folder(frames: SweepFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(frames, tmp_path_factory.mktemp("reports")).parent


def test_frames_have_costs_proposals_and_reasons(jobs: list[Job], frames: SweepFrames) -> None:
    trials = frames.trials.set_index("number")
    assert frames.cost == "parameters"
    assert frames.constraints == {"parameters": 84_000, "seconds": 100}
    assert frames.prior == ["earlier"]
    for job in jobs:
        trial = trials.loc[job.number]
        assert trial["cost"] == encoder_parameters(job.trial)
        assert trial[tags.PROPOSED_BY] == job.proposed_by
        assert (trial["state"], trial["reason"]) == (
            ("infeasible", job.infeasible) if job.infeasible else ("finished", "")
        )


def test_ledger_lists_infeasible_settings_with_the_reason(jobs: list[Job], folder: Path) -> None:
    ledger = (folder / "report.md").read_text().partition("## All trials")[2]
    infeasible = [job for job in jobs if job.infeasible]
    assert infeasible
    for job in infeasible:
        assert f"| {job.number} | infeasible | {job.infeasible} |" in ledger


def test_interactive_front_has_the_points_of_the_table(frames: SweepFrames, folder: Path) -> None:
    text = (folder / "report.html").read_text()
    (spec,) = re.findall(
        r'(?s) id="live-front".*?<script type="application/json">(.*?)</script>', text
    )
    line, *traces = json.loads(spec)["traces"]
    found = {
        (x, y): (trace["name"], text.partition("<br>")[0])
        for trace in traces
        for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True)
    }
    front = compute_front(frames)
    assert front is not None
    assert found == {
        (point.cost, point.score.mean): (point.status, html.escape(point.label))
        for point in front.points
    }
    cells = [cell for trace in traces for cell in trace["cells"]]  # by which points are hidden
    assert sorted(cells) == sorted(html.escape(point.cell) for point in front.points)
    members = front.with_status("on the front")
    assert line["x"] == [point.cost for point in members]
    assert line["y"] == [point.score.mean for point in members]


def test_share_of_infeasible_settings_is_flagged(jobs: list[Job], folder: Path) -> None:
    count = sum(bool(job.infeasible) for job in jobs)
    text = (folder / "report.md").read_text()
    assert f"- Warning: {count} of 12 settings of the search ({count / 12:.0%}) violate" in text


def test_slow_repeats_are_flagged(jobs: list[Job], frames: SweepFrames) -> None:
    repeats = [job for job in jobs if job.role == "repeat"]
    slow = sum(job.trial.encoder.ffn > 64 for job in repeats)
    flags = list(search_facts.flag_constraints(frames))
    assert slow
    assert f"{slow} of {len(repeats)} repeats trained for more than 100 seconds." in flags


def test_summary_has_the_limits_and_the_number_of_proposed_settings(
    jobs: list[Job], frames: SweepFrames
) -> None:
    facts = dict(search_facts.list_search_facts(frames))
    count = sum(bool(job.proposed_by) for job in jobs)
    assert 0 < count <= 6
    assert facts == {
        "constraints": "parameters at most 84,000; seconds at most 100",
        "prior": f"{count} of 12 settings of the search were proposed by sweep earlier; its scores "
        "were not used",
    }


def test_front_is_in_headline_table_figure_and_csv(jobs: list[Job], folder: Path) -> None:
    text, page = ((folder / f"report.{end}").read_text() for end in ("md", "html"))
    assert "**On the Pareto front of pairs/accuracy and parameters of the exported" in text
    assert "## Score against cost" in text
    assert "<h2>Score against cost</h2>" in page
    assert (folder / "figures" / "front.svg").exists()
    numbers = pd.read_csv(folder / "front.csv")
    repeated = {str(job.tuned) for job in jobs if job.role == "repeat"}
    assert len(numbers) == len(repeated) > 1
    assert set(numbers["n"]) == {3}


def test_report_is_verified_from_its_own_files(folder: Path) -> None:
    content = read_report_file(folder / "report.json")
    assert verify_with_own_files(folder, content) == []
    numbers = folder / "front.csv"
    written = numbers.read_text()
    numbers.write_text(written.replace("on the front", "dominated", 1))
    try:
        assert [each.file for each in verify_with_own_files(folder, content)] == ["front.csv"]
    finally:
        numbers.write_text(written)


def test_sweep_without_the_options_has_none_of_these_tags(jobs: list[Job]) -> None:
    plain = build_experiment("plain")
    with tracking_in_memory() as uri:
        store = MlflowStore(uri, Path())
        store.begin(plain, {}, {})
        job = replace(jobs[0], infeasible="", proposed_by="", cost=None)
        end = outcome_of(job)
        store.sync(job, "f0", end.state, end.rows, end)
        store.close("finished", {})
        frames = load_frames(uri, "plain")
    assert not {"cost", tags.PROPOSED_BY} & set(frames.trials)
    assert not {tags.COST, tags.CONSTRAINTS} & set(frames.sweep)
    settings = asdict(plain)  # as the versions without the options have it
    del settings["cost"], settings["constraints"], settings["search"]["prior"]
    assert frames.sweep[tags.SWEEP] == content_hash(settings)
    assert list(search_facts.list_search_facts(frames)) == []
    assert list(search_facts.flag_constraints(frames)) == []
