"""Settings that earlier sweeps of a storage propose to a search (`SearchConfig.prior`)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lab.config.experiment import Experiment
from lab.config.trial import Path, Value
from lab.errors import UserError
from lab.loading.error_messages import SpaceError
from lab.loading.search_space import build_trial
from lab.search.distributions import from_optuna_values, to_optuna_distribution
from lab.search.feasibility import describe_infeasible


class Proposal(NamedTuple):
    """A setting that an earlier sweep proposes.

    Attributes:
        sweep: name of the earlier sweep.
        tuned: values of the nuisance parameters, by dotted path.
    """

    sweep: str
    tuned: dict[Path, Value]


def find_proposals(
    experiment: Experiment, cell: Mapping[Path, Value], storage: BaseStorage, study_name: str
) -> list[Proposal]:
    """Return the settings that the earlier sweeps propose to the search of a cell, without scores.

    The best setting of each earlier study comes first, then the second best of each, and so on, at
    most half of the search's settings. Left out are settings outside of the distributions, settings
    that violate a constraint, and those proposed before.

    Args:
        experiment: experiment of the search.
        cell: compared values of the cell.
        storage: Optuna storage with the studies of the earlier sweeps.
        study_name: name of the search's own study, which proposes nothing.

    Raises:
        UserError: the storage has no search of an earlier sweep over the same paths.
    """
    distributions = {path: to_optuna_distribution(d) for path, d in experiment.tune.items()}
    names = [name for name in optuna.get_all_study_names(storage) if name != study_name]
    ranked = []
    for sweep in experiment.search.prior:
        studies = _find_studies(sweep, names, storage, distributions)
        same = [study for study in studies if study.user_attrs.get("cell") == _as_json(cell)]
        ranked += [(sweep, _rank(study)) for study in same or studies]
    found: dict[str, Proposal] = {}
    for sweep, trial in _take_turns(ranked):
        for tuned in _fitting_values(experiment, cell, distributions, trial):
            found.setdefault(json.dumps(tuned, sort_keys=True), Proposal(sweep, tuned))
    return list(found.values())[: max(1, experiment.search.trials // 2)]


def _find_studies(
    sweep: str,
    names: Sequence[str],
    storage: BaseStorage,
    distributions: Mapping[Path, BaseDistribution],
) -> list[optuna.Study]:
    """Return the studies of a sweep that have trained settings of the same paths.

    Raises:
        UserError: there is none.
    """
    own = [name for name in names if _sweep_of(name) == sweep]
    if not own:
        known = ", ".join(sorted(set(map(_sweep_of, names)))) or "none"
        raise UserError(
            f"search.prior: the storage has no search of sweep {sweep}; its searches: {known}"
        )
    studies = [optuna.load_study(study_name=name, storage=storage) for name in own]
    fitting = [
        study
        for study in studies
        if any(trial.params.keys() == distributions.keys() for trial in _finished(study))
    ]
    if not fitting:
        raise UserError(
            f"search.prior: sweep {sweep} has no finished search trial of the paths under tune, "
            f"{', '.join(distributions)}; run it first, or tune the same paths"
        )
    return fitting


def _sweep_of(study_name: str) -> str:
    return study_name.rpartition(" ")[0]


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _rank(study: optuna.Study) -> list[FrozenTrial]:
    """Return the finished trials of a study, the best first; of two objectives its Pareto front."""
    trials = _finished(study) if len(study.directions) == 1 else study.best_trials
    maximize = study.directions[0] == StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: -trial.values[0] if maximize else trial.values[0])


def _take_turns(
    ranked: Sequence[tuple[str, Sequence[FrozenTrial]]],
) -> Iterator[tuple[str, FrozenTrial]]:
    """Yield the first trial of each study, then the second of each, with the name of its sweep."""
    for rank in range(max((len(trials) for _, trials in ranked), default=0)):
        yield from ((sweep, trials[rank]) for sweep, trials in ranked if rank < len(trials))


def _fitting_values(
    experiment: Experiment,
    cell: Mapping[Path, Value],
    distributions: Mapping[Path, BaseDistribution],
    trial: FrozenTrial,
) -> Iterator[dict[Path, Value]]:
    """Yield the tuned values of a trial if the search can have them and may train them."""
    with suppress(ValueError, SpaceError):  # outside of a distribution; no valid trial
        optuna.trial.create_trial(params=trial.params, distributions=dict(distributions), value=0.0)
        tuned = from_optuna_values(experiment.tune, trial.params)
        built = build_trial(experiment.base, {**cell, **tuned})
        if not describe_infeasible(experiment.constraints, built):
            yield tuned


def _as_json(value: object) -> object:
    return json.loads(json.dumps(value))
