"""The sweeps of a comparison with their own answers, and their trials in common tables.

A cell is named by its sweep and its label: `gen_ratio / width 0.25`. Names of sweeps have no slash,
so these names are unique.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from lab.reporting import stats
from lab.reporting.stats import Answer
from lab.tracking import tags
from lab.tracking.frames import SweepFrames

COMPARED = "sweep"  # compared path of joined frames


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A sweep with the comparison of its own cells.

    Attributes:
        frames: frames of the sweep.
        answer: comparison of its cells; None if no trial has finished.
        runs: trials by which its cells are compared (`stats.scored_trials`).
    """

    frames: SweepFrames
    answer: Answer | None
    runs: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.frames.name


def read_result(frames: SweepFrames) -> SweepResult:
    """Return a sweep with the comparison of its cells."""
    answer, runs = stats.compute_answer(frames), stats.scored_trials(frames)
    return SweepResult(frames=frames, answer=answer, runs=runs)


def name_cell(sweep: str, cell: str) -> str:
    """Return the name of a cell among the cells of several sweeps."""
    return f"{sweep} / {cell}"


def join_runs(sweeps: Sequence[SweepResult]) -> pd.DataFrame:
    """Return the compared trials of all sweeps, with the names of cells in the column `cell`."""
    return _join_trials([(sweep.frames, sweep.runs) for sweep in sweeps])


def join_trials(sweeps: Sequence[SweepResult]) -> pd.DataFrame:
    """Return all trials of all sweeps, with the names of cells and of the sweeps' trials."""
    return _join_trials([(sweep.frames, sweep.frames.trials) for sweep in sweeps])


def join_frames(sweeps: Sequence[SweepResult]) -> SweepFrames:
    """Return frames with the trials of all sweeps, whose cells have the names of `name_cell`.

    A trial's number is a text with the name of its sweep. The curves have no seconds, which are not
    comparable between sweeps that ran at other times or on other machines.

    Args:
        sweeps: sweeps with the same ranking metric.
    """
    names = [sweep.name for sweep in sweeps]
    curves = [
        sweep.frames.curves.assign(
            number=[_name_trial(number, sweep.name) for number in sweep.frames.curves["number"]]
        )
        for sweep in sweeps
    ]
    first = sweeps[0].frames
    return SweepFrames(
        name=" + ".join(names),
        sweep={
            tags.METRIC: first.metric.name,
            tags.COMPARE: json.dumps({COMPARED: names}),
            tags.REFERENCE: json.dumps({COMPARED: names[0]}),
            tags.TUNE: "{}",
        },
        measures={},
        texts={},
        trials=join_trials(sweeps),
        curves=_concatenate(curves).drop(columns="spent/seconds", errors="ignore"),
        blocks={
            (_name_trial(number, sweep.name), metric): values
            for sweep in sweeps
            for (number, metric), values in sweep.frames.blocks.items()
        },
    )


def group_by_sweep(frames: SweepFrames) -> SweepFrames:
    """Return joined frames in which each sweep is one cell, for figures with a color a sweep.

    The label of a trial's cell stands before its nuisance parameters.
    """
    parts = [str(cell).split(" / ", 1) for cell in frames.trials["cell"]]
    tuned = [
        ", ".join(filter(None, (cell, text)))
        for (_, cell), text in zip(parts, frames.trials["tuned"], strict=True)
    ]
    trials = frames.trials.assign(cell=[sweep for sweep, _ in parts], tuned=tuned)
    return replace(frames, trials=trials)


def _join_trials(tables: Iterable[tuple[SweepFrames, pd.DataFrame]]) -> pd.DataFrame:
    """Return trials in one table; each knows the MLflow experiment of its sweep."""
    return _concatenate(
        [
            trials.assign(
                number=[_name_trial(number, frames.name) for number in trials["number"]],
                cell=[name_cell(frames.name, str(cell)) for cell in trials["cell"]],
                experiment_id=frames.experiment_id,
            )
            for frames, trials in tables
        ]
    )


def _concatenate(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all tables; an empty one would change the types of the columns."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables[:1], ignore_index=True)


def _name_trial(number: int | str, sweep: str) -> str:
    return f"{number} of {sweep}"
