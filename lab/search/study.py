"""Optuna's study of a cell: each point of the cell's search is a trial of it.

States of the study's trials:

- COMPLETE: finished, with a score.
- PRUNED: diverged, infeasible, or not trained with the full budget (`halving`). Samplers are given
  the worst score of the study for it (`sampling`), so that they avoid such settings.
- FAIL: failed. Samplers ignore it, since a failure may have been caused by the machine.

Trials that an earlier process has left RUNNING are set to FAIL when a study is opened.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from lab.config.results import Outcome
from lab.search import dashboard_artifacts, dashboard_notes
from lab.search.in_memory import Direction
from lab.storage import regular_files

_STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "infeasible": TrialState.PRUNED,
}
_INDEX = "index"  # user attribute of a trial: the number of its point in the cell's search
_PROPOSED_BY = "proposed_by"  # user attribute: the earlier sweep that proposed the point


class Point(NamedTuple):
    """Setting of a point as the study has it.

    Attributes:
        params: values of the tuned parameters.
        proposed_by: name of the earlier sweep that proposed it; empty without one.
    """

    params: dict[str, Any]
    proposed_by: str = ""


class Study:
    """Optuna's study of a cell. Its trials are named by the numbers of their points.

    Args:
        storage: Optuna storage.
        name: name of the study.
        directions: direction of each objective; the first one is that of the score.
        distributions: distributions of the tuned parameters.
        cell: compared values of the cell, stored with the study.
        fresh: whether to delete the study of earlier runs.

    Attributes:
        optuna_study: the study, for samplers.
        points: points that an earlier run has stored, by number.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        directions: Sequence[Direction],
        distributions: Mapping[str, BaseDistribution],
        *,
        cell: Mapping[str, Any],
        fresh: bool,
    ) -> None:
        if fresh and name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        self.optuna_study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(directions),
            sampler=RandomSampler(),  # never used: all points are enqueued
            pruner=NopPruner(),
            load_if_exists=True,
        )
        self.optuna_study.set_user_attr("cell", dict(cell))
        self._distributions = dict(distributions)
        self._storage, self._id = storage, storage.get_study_id_from_name(name)
        attributes = storage.get_study_system_attrs(self._id)
        self._noted = dashboard_notes.list_noted(attributes)
        self._attached = dashboard_artifacts.list_attached(attributes)
        self.points: dict[int, Point] = {}
        self._running: dict[int, optuna.Trial] = {}
        self._ended: set[int] = set()  # points that ended in an earlier run
        self._reported: dict[int, int] = {}  # number of scores that the study has of a point
        self._numbers: dict[int, int] = {}  # numbers of the study's trials, by that of the point
        self._added = 0  # number of the study's trials
        self._read()

    def _read(self) -> None:
        """Read the stored trials, and set those that a killed driver left running to FAIL."""
        for trial in self.optuna_study.get_trials(deepcopy=False):
            index = trial.user_attrs.get(_INDEX)
            if trial.state == TrialState.WAITING:  # the driver was killed before `ask`
                self.optuna_study.ask()  # Optuna can end only a running trial
            if not trial.state.is_finished():
                self.optuna_study.tell(trial.number, state=TrialState.FAIL)
            elif index is not None and "state" in trial.user_attrs:
                self._ended.add(index)
            if index is not None:
                first = self.points.get(index, Point(trial.params))
                proposed_by = trial.user_attrs.get(_PROPOSED_BY, first.proposed_by)
                self.points[index] = Point(first.params, proposed_by)
                self._numbers[index] = trial.number
            self._added = trial.number + 1

    def has(self, index: int) -> bool:
        """Return whether a trial of the point runs, or ended in an earlier run."""
        return index in self._ended or index in self._running

    def is_running(self, index: int) -> bool:
        """Return whether a trial of the point runs."""
        return index in self._running

    def start(self, index: int, point: Point) -> None:
        """Create a running trial of a point."""
        self.optuna_study.enqueue_trial(point.params)
        trial = self.optuna_study.ask(self._distributions)
        for name, value in _attributes(index, point).items():
            trial.set_user_attr(name, value)
        self._running[index] = trial
        self._count(index)

    def add_ended(
        self,
        index: int,
        point: Point,
        outcome: Outcome,
        values: Sequence[float] | None,
        constraints: Mapping[str, float],
    ) -> None:
        """Add a point that was not started, as a trial that has ended.

        It takes one request of the database, where a trial that is started first takes four.
        """
        self.optuna_study.add_trial(
            optuna.trial.create_trial(
                state=_final_state(outcome, values),
                values=values,
                params=point.params,
                distributions=self._distributions,
                user_attrs=_attributes(index, point) | {"state": outcome.state},
                constraints=dict(constraints),
            )
        )
        self._count(index)

    def report(self, index: int, score: float) -> None:
        """Report the score of a running point at its next rung, or with the full budget."""
        self._reported[index] = self._reported.get(index, 0) + 1
        self._running[index].report(score, self._reported[index])

    def stop(self, index: int) -> None:
        """End a running point that does not continue past a rung."""
        trial = self._running.pop(index)
        trial.set_user_attr("state", "stopped")
        self.optuna_study.tell(trial, state=TrialState.PRUNED)

    def end(
        self,
        index: int,
        outcome: Outcome,
        values: Sequence[float] | None,
        constraints: Mapping[str, float],
    ) -> None:
        """End a running point.

        Args:
            index: number of the point.
            outcome: outcome of its trial.
            values: values of the objectives; None without a score.
            constraints: excess over each constraint that is known, positive where it is violated.
        """
        trial = self._running.pop(index)
        if outcome.state == "diverged" and index in self._reported:
            self._replace_diverged(trial, index)
            return
        trial.set_user_attr("state", outcome.state)
        for name, excess in constraints.items():
            trial.set_constraint(name, excess)
        self.optuna_study.tell(trial, values, state=_final_state(outcome, values))

    def _replace_diverged(self, trial: optuna.Trial, index: int) -> None:
        """Replace the trial of a diverged point by a pruned one without intermediate scores.

        Optuna would take the last intermediate score as the score of a pruned trial.
        """
        self.optuna_study.tell(trial, state=TrialState.FAIL)
        self.optuna_study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={_INDEX: index, "state": "diverged"},
            )
        )
        self._count(index)

    def _count(self, index: int) -> None:
        """Count a new trial of the study, which is that of a point from now on."""
        self._numbers[index] = self._added
        self._added += 1

    def annotate(self, index: int, text: str) -> None:
        """Write the note of a point's trial, unless it has one.

        Args:
            index: number of a point that is in the study.
            text: text in Markdown, which optuna-dashboard shows.
        """
        trial = self._stored_id(index)
        if trial not in self._noted:
            dashboard_notes.write_note(self._storage, self._id, trial, text)
            self._noted.add(trial)

    def attach(self, index: int, file: File) -> None:
        """Attach a file of a point's record to its trial, unless it has the content.

        Args:
            index: number of a point that is in the study.
            file: JSON Lines in the folder of a record, which optuna-dashboard shows as a table.

        Raises:
            OSError: the file is missing or cannot be read, or the copy cannot be written.
        """
        with regular_files.open_binary(file) as stream:
            content = stream.read()
        identity = dashboard_artifacts.identify(content)
        artifact = dashboard_artifacts.Artifact(self._stored_id(index), identity)
        if artifact in self._attached:
            return
        folder = file.parents[2] / dashboard_artifacts.FOLDER  # file is trials/NAME/curve.jsonl
        dashboard_artifacts.attach_content(
            self._storage, self._id, artifact, folder, content, file.name
        )
        self._attached.add(artifact)

    def _stored_id(self, index: int) -> int:
        number = self._numbers[index]
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def _attributes(index: int, point: Point) -> dict[str, Any]:
    """Return the user attributes of a point's trial."""
    proposed = {_PROPOSED_BY: point.proposed_by} if point.proposed_by else {}
    return {_INDEX: index, **proposed}


def _final_state(outcome: Outcome, values: Sequence[float] | None) -> TrialState:
    state = _STATES.get(outcome.state, TrialState.FAIL)
    if state == TrialState.COMPLETE and values is None:
        return TrialState.PRUNED  # the score is NaN or infinite
    return state
