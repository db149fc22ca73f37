"""The simulation of search and report: true to MLflow, and few false conclusions in few draws."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import whole_search
from benchmarks.scenarios import SCENARIOS
from benchmarks.synthetic_trials import METRIC, PATH, Scenario
from lab.config.experiment import Job
from lab.config.results import Outcome
from lab.reporting import conclusion, stats
from lab.tracking.client import default_uri
from lab.tracking.frames import SweepFrames, load_frames
from lab.tracking.store import MlflowStore

pytestmark = pytest.mark.usefixtures("unsynced")


def scenario(name: str, design: str) -> Scenario:
    return next(s for s in SCENARIOS if (s.name, s.cells, s.seeds) == (name, 3, 4)
                and s.design.endswith(design))  # fmt: skip


def test_frames_from_memory_equal_those_that_mlflow_returns(tmp_path: Path) -> None:
    simulated = scenario("rate searched, 15 % missing, 15 % diverged", "best_setting")
    experiment = simulated.experiment()
    ended = whole_search.run_search(simulated, experiment, 0)
    in_memory = whole_search.read_frames(experiment, ended.values())
    store = MlflowStore(default_uri(tmp_path), tmp_path)
    whole_search.write_trials(store, experiment, ended.values())
    stored = load_frames(default_uri(tmp_path), experiment.name)
    assert set(stored.trials["state"]) == {"finished", "failed", "diverged"}
    assert set(stored.trials["role"]) == {"search", "repeat"}
    pd.testing.assert_frame_equal(
        in_memory.trials.drop(columns="run_id"), stored.trials.drop(columns="run_id")
    )
    pd.testing.assert_frame_equal(in_memory.curves, stored.curves)
    times = {"opened"}
    assert {k: v for k, v in in_memory.sweep.items() if k not in times} == {
        k: v for k, v in stored.sweep.items() if k not in times
    }


@pytest.mark.parametrize(
    ("name", "design"),
    [
        ("equal cells", "untuned"),
        ("one cell eight times noisier", "untuned"),
        ("rate searched", "halving"),
        ("rate searched, 15 % missing, 15 % diverged", "every_setting"),
    ],
)
def test_equal_cells_are_rarely_told_apart(name: str, design: str) -> None:
    """The short version of `python -m benchmarks.whole_search`."""
    results = whole_search.simulate(scenario(name, design), 0, 8)
    assert results["false_worse"].sum() <= 2  # exceeded with probability 0.6 % at a level of 5 %
    assert results["false_take"].sum() <= 1
    assert results["wrong"].sum() <= 1


def test_better_cell_is_recommended() -> None:
    results = whole_search.simulate(scenario("equal cells", "untuned"), 0, 8)
    assert results["take"].sum() >= 6


def sweep(scores: list[list[float | None]]) -> SweepFrames:
    """Return the frames of a search in which cell i has `scores[i]`, None where a trial failed."""
    simulated = Scenario(name="given", cells=len(scores), seeds=len(scores[0]))
    experiment = simulated.experiment()
    ended: list[tuple[Job, Outcome]] = []
    for job, outcome in whole_search.run_search(simulated, experiment, 0).values():
        cell = experiment.compare[PATH].index(job.cell[PATH])
        score = scores[cell][job.repeat - 1]
        rows = tuple(row | {METRIC.name: score or math.nan} for row in outcome.rows[1:])
        state = "finished" if score is not None else "failed"
        ended.append((job, replace(outcome, state=state, rows=(*outcome.rows[:1], *rows))))
    return whole_search.read_frames(experiment, ended)


def test_cell_without_its_run_of_an_unlucky_seed_is_not_recommended() -> None:
    """The plain means over the finished repeats would favor the second cell."""
    frames = sweep([[0.71, 0.73, 0.72, 0.64], [0.70, 0.7195, 0.7105, None]])
    result = stats.compute_answer(frames)
    assert result is not None
    text = conclusion.write_headline(frames, result, stats.scored_trials(frames)).answer
    first, second = (str(label) for label in frames.trials["cell"].unique())
    assert result.cells[0].label == first
    assert not text.startswith(f"Recommended setting: {second}")
