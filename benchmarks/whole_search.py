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
search has tried it. The table is reports/simulations/whole_search.csv. It is written after every
`_CHUNK` draws of a row, and draws that it has are not simulated again, so an interrupted command
continues, and more draws can be added. Rows of a Gaussian process have a tenth of the draws, since
each takes about twenty times as long. `--again` discards the rows that are simulated.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
_CHUNK = 50
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
    table = _Table(options.into, discarded=chosen if options.again else ())
    left = sorted(
        (first, number)
        for number, scenario in enumerate(chosen)
        for first in range(table.draws(scenario), _most(scenario, options.draws), _CHUNK)
    )
    with ProcessPoolExecutor(options.processes) as pool:
        chunks = {
            pool.submit(
                simulate,
                chosen[number],
                first,
                min(first + _CHUNK, _most(chosen[number], options.draws)),
            ): number
            for first, number in left
        }
        for count, done in enumerate(as_completed(chunks), 1):
            scenario = chosen[chunks[done]]
            table.add(scenario, done.result())
            print(f"{count} of {len(chunks)}: {scenario.key}", file=sys.stderr, flush=True)
    print(table.rows.to_string(index=False, float_format="{:.3f}".format))
    return 0


def _most(scenario: Scenario, draws: int) -> int:
    """Return the number of draws of a scenario: a tenth with a Gaussian process, which is slow."""
    search = scenario.search
    return draws // 10 if search is not None and search.sampler == "gp" else draws


def simulate(scenario: Scenario, first: int, end: int) -> pd.DataFrame:
    """Return the statements on the simulated sweeps with numbers from `first` to `end` - 1."""
    return pd.DataFrame(measure_draw(scenario, draw) for draw in range(first, end))


class _Table:
    """The table of results, kept equal to a file.

    Args:
        file: file of the table; need not exist.
        discarded: scenarios with rows that are deleted.
    """

    def __init__(self, file: File, discarded: Sequence[Scenario]) -> None:
        self._file = file
        self.rows = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=[*_KEY, "draws"])
        for scenario in discarded:
            self.rows = self.rows[~self._is_row_of(scenario)]

    def draws(self, scenario: Scenario) -> int:
        """Return the number of draws of a scenario that the table has."""
        return int(self.rows.loc[self._is_row_of(scenario), "draws"].sum())

    def add(self, scenario: Scenario, results: pd.DataFrame) -> None:
        """Add the results of more draws to the means of a row, and write the table."""
        own = self._is_row_of(scenario)
        before, more = self.draws(scenario), len(results)
        means = results.mean()
        if before:
            means = (before * self.rows[own].iloc[0][means.index] + more * means) / (before + more)
        key = dict(zip(_KEY, _key_values(scenario), strict=True))
        row = key | {"draws": before + more} | means.astype(float).to_dict()
        rows = pd.concat([self.rows[~own], pd.DataFrame([row])])
        order = {_key_values(each): number for number, each in enumerate(SCENARIOS)}
        keys = list(rows[_KEY].itertuples(index=False, name=None))
        by_order = sorted(range(len(rows)), key=lambda i: order.get(keys[i], len(order)))
        self.rows = rows.iloc[by_order].reset_index(drop=True)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.rows.round(6).to_csv(self._file, index=False)

    def _is_row_of(self, scenario: Scenario) -> "pd.Series[bool]":
        key = zip(_KEY, _key_values(scenario), strict=True)
        return pd.concat([self.rows[name] == value for name, value in key], axis=1).all(axis=1)


def _key_values(scenario: Scenario) -> tuple[object, ...]:
    return scenario.name, scenario.design, scenario.cells, scenario.seeds


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
            outcome = run_job(scenario, job, draw)
            ended[job.number] = job, search.judge(job, outcome)
            search.tell(job, outcome)
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
    headline = conclusion.write_headline(frames, result, stats.scored_trials(frames))
    return result, headline.answer


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


if __name__ == "__main__":
    raise SystemExit(main())
