"""Simulate the whole of search and report: `python -m benchmarks.whole_search`.

Only the training is replaced, by a drawn score (`benchmarks.synthetic_trials`), and MLflow, by a
store in memory (`benchmarks.memory_tracking`). The search with its Optuna studies, the writer and
the reader of the tracking store, the statistics and the headline of the report are those of the
lab. Each row of the table is one scenario with one design of the search:

- trials: number of trials of a sweep;
- draws: number of simulated sweeps;
- false_worse: share of sweeps over cells that are equally good in which a cell is called worse;
- false_take: share of these sweeps in which a cell is recommended;
- coverage: share of these sweeps in which the intervals of all differences contain the true ones;
- power: share of the cells that are called worse where one cell is better by `EFFECT` standard
  deviations between seeds than all others;
- take: share of these sweeps in which that cell is recommended;
- wrong: share of these sweeps in which another cell is recommended, or that cell is called worse.

The true score of a cell is that of its best learning rate within the range, whether or not the
search has tried it. The table is reports/simulations/whole_search.csv. Rows with as many draws as
asked for are kept, so an interrupted run continues.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path as File
from tempfile import TemporaryDirectory

import pandas as pd
from optuna.storages import InMemoryStorage

from benchmarks.memory_tracking import tracking_in_memory
from benchmarks.scenarios import SCENARIOS
from benchmarks.synthetic_trials import METRIC, UNIT, Scenario, run_job, true_scores
from lab.config.experiment import Experiment, Job
from lab.config.results import Outcome
from lab.reporting import conclusion, stats
from lab.reporting.stats import Answer
from lab.search.search import Search
from lab.tracking import tags
from lab.tracking.frames import SweepFrames, load_frames
from lab.tracking.store import MlflowStore

EFFECT = 5.0  # standard deviations between seeds
_TABLE = File("reports/simulations/whole_search.csv")
_KEY = ["scenario", "search", "cells", "seeds"]
Ended = dict[int, tuple[Job, Outcome]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate the rows that are missing, and write the table after each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_search")
    parser.add_argument("rows", nargs="*", help="words that a row must contain (default: all rows)")
    parser.add_argument("--draws", type=int, default=1_000, help="sweeps a row (default: 1,000)")
    parser.add_argument("--processes", type=int, default=1, help="rows at a time (default: 1)")
    parser.add_argument("--into", type=File, default=_TABLE, help=f"table (default: {_TABLE})")
    parser.add_argument("--again", action="store_true", help="simulate rows of the table again")
    options = parser.parse_args(arguments)
    chosen = [s for s in SCENARIOS if all(word in s.key for word in options.rows)]
    done = set() if options.again else _finished_rows(options.into, options.draws)
    left = [scenario for scenario in chosen if scenario.key not in done]
    with ProcessPoolExecutor(options.processes) as pool:
        for row in pool.map(simulate, left, [options.draws] * len(left)):
            _write(options.into, row)
    print(pd.read_csv(options.into).to_string(index=False, float_format="{:.3f}".format))
    return 0


def simulate(scenario: Scenario, draws: int) -> dict[str, object]:
    """Return a row of the table."""
    results = pd.DataFrame(_draws(scenario, draws))
    means = {str(name): round(float(mean), 4) for name, mean in results.mean().items()}
    return {
        "scenario": scenario.name,
        "search": scenario.design,
        "cells": scenario.cells,
        "seeds": scenario.seeds,
        "trials": round(means.pop("trials")),
        "draws": draws,
    } | means


def _draws(scenario: Scenario, draws: int) -> Iterable[dict[str, float]]:
    for draw in range(draws):
        if draw and draw % 100 == 0:
            print(f"{scenario.key}: {draw} of {draws} draws", file=sys.stderr, flush=True)
        yield measure_draw(scenario, draw)


def measure_draw(scenario: Scenario, draw: int) -> dict[str, float]:
    """Return the statements of the report on one simulated sweep, as numbers by column."""
    experiment = scenario.experiment()
    ended = run_search(scenario, experiment, draw)
    frames = _trim(read_frames(experiment, ended.values()))
    truth = dict(zip(frames.trials["cell"].unique(), true_scores(scenario), strict=True))
    result, text = _conclude(frames)
    better = next(iter(truth))
    shifted, shifted_text = _conclude(_shift(frames, better))
    rest = [cell for cell in shifted.cells if cell.label != better]
    recommended = shifted_text.startswith(f"Recommended setting: {better}")
    worse = [not cell.tied for cell in rest]
    top_is_tied = next((cell.tied for cell in shifted.cells if cell.label == better), True)
    return {
        "trials": len(ended),
        "false_worse": any(not cell.tied for cell in result.cells),
        "false_take": text.startswith("Recommended"),
        "coverage": _covers(result, truth),
        "power": sum(worse) / max(1, len(worse)),
        "take": recommended,
        "wrong": not top_is_tied or (shifted_text.startswith("Recommended") and not recommended),
    }


def run_search(scenario: Scenario, experiment: Experiment, draw: int) -> Ended:
    """Carry out a search with synthetic trials; return jobs with outcomes by number of the job."""
    ended: Ended = {}
    with TemporaryDirectory() as notes:
        search = Search(
            replace(experiment, search=replace(experiment.search, seed=draw)),
            InMemoryStorage(),
            File(notes),
        )
        while (job := search.ask()) is not None:
            ended[job.number] = job, run_job(scenario, job, draw)
            search.tell(*ended[job.number])
        if not search.done:
            raise RuntimeError(f"{scenario.key}: the search waits although no job is running")
    return ended


def read_frames(experiment: Experiment, ended: Iterable[tuple[Job, Outcome]]) -> SweepFrames:
    """Return the frames of a sweep, written to and read from a tracking store in memory."""
    with tracking_in_memory() as uri:
        store = MlflowStore(uri, File())
        write_trials(store, experiment, ended)
        return load_frames(uri, experiment.name)


def write_trials(
    store: MlflowStore, experiment: Experiment, ended: Iterable[tuple[Job, Outcome]]
) -> None:
    """Write a sweep with all its trials to a tracking store."""
    store.begin(experiment, {}, {})
    for job, outcome in ended:
        store.sync(job, f"trial-{job.number}", outcome.state, outcome.rows, outcome)
    store.close("finished", {})


def _trim(frames: SweepFrames) -> SweepFrames:
    """Return the frames without the columns that the headline does not depend on, for speed."""
    names = ["number", "state", "role", "repeat", "cell", "tuned", "score", "untrained"]
    names += [*frames.compare, *frames.tune, METRIC.name]
    return replace(frames, trials=frames.trials[names])


def _conclude(frames: SweepFrames) -> tuple[Answer, str]:
    """Return the comparison and the headline of a report.

    The frames are given another reference setting, which has no score. So no compute multiplier
    is computed, whose bootstrap would take most of the time.
    """
    reference = json.dumps(dict.fromkeys(frames.compare, 0))
    frames = replace(frames, sweep=frames.sweep | {tags.REFERENCE: reference})
    result = stats.compute_answer(frames)
    if result is None:
        raise RuntimeError("no simulated trial has finished")
    return result, conclusion.write_headline(frames, result, stats.scored_trials(frames))


def _shift(frames: SweepFrames, better: str) -> SweepFrames:
    """Return the frames of the same sweep if one cell were better by `EFFECT`.

    The search is the same: it compares the scores of a cell with each other only.
    """
    trials = frames.trials.copy()
    trials.loc[trials["cell"] == better, ["score", METRIC.name]] += EFFECT * UNIT
    return replace(frames, trials=trials)


def _covers(result: Answer, truth: dict[str, float]) -> bool:
    best = truth[result.cells[0].label]
    gaps = {c.label: c.difference for c in result.cells if c.difference is not None}
    return not any(
        truth[label] - best < gap.low or truth[label] - best > gap.high
        for label, gap in gaps.items()
    )


def _finished_rows(table: File, draws: int) -> set[str]:
    if not table.exists():
        return set()
    rows = pd.read_csv(table)
    return {
        f"{row.scenario}; {row.search}; {row.cells} cells; {row.seeds} seeds"
        for row in rows[rows["draws"] >= draws].itertuples()
    }


def _write(table: File, row: dict[str, object]) -> None:
    """Add a row to a table, in the order of the scenarios, in place of an earlier one."""
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame()
    rows = pd.concat([rows, pd.DataFrame([row])]).drop_duplicates(_KEY, keep="last")
    order = {scenario.key: number for number, scenario in enumerate(SCENARIOS)}
    keys = [
        f"{each.scenario}; {each.search}; {each.cells} cells; {each.seeds} seeds"
        for each in rows.itertuples()
    ]
    rows = rows.iloc[sorted(range(len(rows)), key=lambda i: order.get(keys[i], len(order)))]
    table.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(table, index=False)


if __name__ == "__main__":
    raise SystemExit(main())
