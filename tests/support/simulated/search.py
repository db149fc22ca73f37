"""Searches whose trials are not trained: each has the score that a function returns."""

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from lab.config.experiment import Choices, Experiment, Job, Range, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import Outcome, State
from lab.config.trial import Trial
from lab.search.search import Search

METRIC = "pairs/accuracy"
FFN = Choices(choices=(32, 64, 128, 256))
RATE = Range(low=1e-4, high=1e-2, log=True)


def build_experiment(name: str = "searched", **changes: object) -> Experiment:
    """Return an experiment over the inner width and the learning rate of a small encoder."""
    fields: dict[str, object] = {
        "name": name,
        "question": "Does it?",
        "metric": METRICS[METRIC],
        "base": {
            "encoder": {"size": "nano32"},
            "objective": {"kind": "mlm"},
            "budget": {"kind": "flops", "amount": 1e11},
        },
        "compare": {},
        "tune": {"encoder.ffn": FFN, "optim.lr": RATE},
        "search": SearchConfig(sampler="qmc", trials=8, seeds=2),
        "resources": Resources(),
    }
    return Experiment(**(fields | changes))  # type: ignore[arg-type]


def outcome_of(job: Job, score: float | None, seconds: float = 1.0) -> Outcome:
    """Return the outcome of a job: infeasible if it must not be trained, diverged without score."""
    state: State = "diverged" if score is None else "finished"
    row = {"spent/steps": 8.0, "spent/seconds": seconds, METRIC: score or 0.0}
    if job.infeasible:
        return Outcome(state="infeasible", reason=job.infeasible, rows=(), started_at=0.0,
                       seconds=0.0, busy=0.0)  # fmt: skip
    return Outcome(state=state, reason="", rows=(row,), started_at=0.0, seconds=1.0, busy=1.0)


def carry_out(
    experiment: Experiment,
    storage: BaseStorage,
    notes: Path,
    score: Callable[[Trial], float | None],
    *,
    seconds: Callable[[Trial], float] = lambda _: 1.0,
    most: int = 1_000,
) -> list[Job]:
    """Run a search, one trial at a time, and return its jobs in order.

    Args:
        experiment: experiment of the search.
        storage: Optuna storage.
        notes: folder of the notes.
        score: function that returns the score of a trial; None where it diverges.
        seconds: function that returns the training time of a trial.
        most: number of jobs after which the search is abandoned, as if it was killed.
    """
    search, jobs = Search(experiment, storage, notes), []
    while len(jobs) < most and (job := search.ask()) is not None:
        jobs.append(job)
        search.tell(job, outcome_of(job, score(job.trial), seconds(job.trial)))
    assert search.done or len(jobs) == most
    return jobs


def only_study(storage: BaseStorage, sweep: str = "searched") -> optuna.Study:
    """Return the study of a sweep with one cell."""
    names = optuna.get_all_study_names(storage)
    (name,) = (name for name in names if name.startswith(f"{sweep} "))
    return optuna.load_study(study_name=name, storage=storage)


def trials_of(storage: BaseStorage, sweep: str = "searched") -> list[FrozenTrial]:
    """Return the trials of the study of a sweep with one cell."""
    return only_study(storage, sweep).get_trials()


def with_role(jobs: list[Job], role: str) -> list[Job]:
    """Return the jobs of a role."""
    return [job for job in jobs if job.role == role]
