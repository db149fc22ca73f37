"""The search, simulated: a made-up objective, slots that end in any order, and a real Optuna."""

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from lab.config import trial as spec
from lab.config.experiment import (
    Choices,
    Distribution,
    Experiment,
    HalvingConfig,
    Job,
    Range,
    Resources,
    SearchConfig,
)
from lab.config.metrics import METRICS
from lab.config.objective import ElectraConfig
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import content_hash
from lab.loading import search_space
from lab.search import designs
from lab.search.search import Search

pytestmark = pytest.mark.usefixtures("unsynced")
WIDTH = "objective.generator.width"
LR = Range(low=1e-4, high=1e-2, log=True)
JOINT: dict[str, Distribution] = {
    WIDTH: Range(low=0.25, high=1.0, step=0.25),
    "objective.generator.depth": Choices(choices=(0.5, 1.0)),
    "objective.mask_prob": Range(low=0.1, high=0.52, step=0.05),
    "objective.disc_weight": Range(low=1, high=100, log=True),
    "optim.lr": LR,
    "optim.generator_lr": Range(low=0.25, high=4, log=True),
    "batch": Range(low=16, high=64, step=16, integer=True),
}
SAMPLERS = ("grid", "random", "qmc", "tpe", "gp")
DESIGNED = ("grid", "random", "qmc")

Score = Callable[[spec.Trial], float | None]
Records = dict[str, Outcome]


def experiment(*, search: SearchConfig, **changes: object) -> Experiment:
    asked = Experiment(
        name="simulated",
        question="Does it?",
        metric=METRICS["detect/bigram/auroc"],
        base={
            "encoder": {"size": "tiny"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e12},
            "seeds": {"init": 5, "order": 6, "mask": 7},
        },
        compare={WIDTH: (0.25, 0.5)},
        tune={"optim.lr": LR},
        search=search,
        resources=Resources(),
    )
    return replace(asked, **changes)


def bowl(trial: spec.Trial) -> float:
    """Best at a rate that depends on the cell; seeds add a little."""
    assert isinstance(trial.objective, ElectraConfig)
    best = 2e-3 * trial.objective.generator.width
    return 0.9 - abs(math.log(trial.optim.lr / best)) / 20 + trial.seeds.init / 1_000


def outcome(metric: str, score: float | None) -> Outcome:
    state: State = "diverged" if score is None else "finished"
    row = {"spent/steps": 8.0, "spent/flops": 1e9, **({} if score is None else {metric: score})}
    return Outcome(state=state, reason="", rows=(row,), began=0.0, seconds=1.0, busy=1.0)


@pytest.fixture
def storage(tmp_path: Path, empty: Path) -> str:
    shutil.copy(empty, tmp_path / "optuna.db")
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Optuna's schema, which takes longer than a whole simulation."""
    file = tmp_path_factory.mktemp("search") / "optuna.db"
    optuna.storages.RDBStorage(f"sqlite:///{file}").engine.dispose()
    return file


def key(job: Job) -> str:
    return content_hash(asdict(job.trial))


class Killed(BaseException):
    """The driver is gone, as by a signal: nothing after this line of its runs."""


def drive(
    search: Search,
    metric: str,
    *,
    score: Score = bowl,
    records: Records | None = None,
    slots: int = 1,
    chance: int = 0,
    events: int = 100_000,
) -> list[Job]:
    """Do as the driver does: settled records are told at once, the rest runs and ends in any order.

    Args:
        search: what to run.
        metric: the ranking one's name.
        score: of a trial; None where it diverges.
        records: of earlier drivers, by content; added to.
        slots: how many run at once.
        chance: seeds the order of the ends.
        events: how many asks and ends until the driver is killed.
    """
    records = {} if records is None else records
    handed: list[Job] = []
    running: list[Job] = []
    draw = random.Random(chance)  # noqa: S311
    while not search.done:
        events -= 1
        if events < 0:
            raise Killed
        job = search.ask() if len(running) < slots else None
        if job is None:
            assert running, "nothing runs, nothing is asked for, and yet the search is not done"
            ended = running.pop(draw.randrange(len(running)))
            records[key(ended)] = outcome(metric, score(ended.trial))
            search.tell(ended, records[key(ended)])
            continue
        handed.append(job)
        if key(job) in records:
            search.tell(job, records[key(job)])
        else:
            running.append(job)
    return handed


def notes(storage: str) -> Path:
    return Path(storage.removeprefix("sqlite:///")).parent / "searches"


def simulate(asked: Experiment, storage: str, **how: object) -> list[Job]:
    return drive(Search(asked, storage, notes(storage)), asked.metric.name, **how)  # type: ignore[arg-type]


def studies(storage: str) -> list[list[FrozenTrial]]:
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage).get_trials() for name in names]


def by_cell(jobs: list[Job], role: str) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for job in jobs:
        if job.role == role:
            found.setdefault(str(job.cell), []).append(job)
    return found


def searched(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.role == "search"]


# What is asked for.


@pytest.mark.parametrize(
    ("sampler", "slots"),
    [("grid", 1), ("random", 16), ("qmc", 1), ("tpe", 16), ("gp", 1), ("gp", 16)],
)
def test_every_cell_gets_its_searches_and_then_its_repeats(
    storage: str, sampler: str, slots: int
) -> None:
    asked = experiment(search=SearchConfig(sampler=sampler, trials=6, seeds=2))
    search = Search(asked, storage, notes(storage))
    jobs = drive(search, asked.metric.name, slots=slots)
    assert search.done
    assert search.ask() is None
    for cell in ({WIDTH: 0.25}, {WIDTH: 0.5}):
        roles = [job.role for job in jobs if job.cell == cell]
        assert roles == ["search"] * 6 + ["repeat"] * 2
    assert len(jobs) == search.jobs
    assert sorted(job.number for job in jobs) == list(range(len(jobs)))
    states = [[trial.state for trial in trials] for trials in studies(storage)]
    assert states == [[TrialState.COMPLETE] * 6] * 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_point_that_diverged_is_recorded_as_pruned_without_a_number(
    storage: str, sampler: str
) -> None:
    def fragile(trial: spec.Trial) -> float | None:
        return None if trial.optim.lr > 1e-3 else bowl(trial)

    asked = experiment(search=SearchConfig(sampler=sampler, trials=7), compare={})
    jobs = searched(simulate(asked, storage, score=fragile))
    (trials,) = studies(storage)
    assert [trial.value for trial in trials] == [fragile(job.trial) for job in jobs]
    states = {True: TrialState.PRUNED, False: TrialState.COMPLETE}
    assert [trial.state for trial in trials] == [states[trial.value is None] for trial in trials]
    assert {trial.state for trial in trials} == set(states.values())


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_learning_sampler_survives_a_start_without_any_score(storage: str, sampler: str) -> None:
    asked = experiment(search=SearchConfig(sampler=sampler, trials=8, seeds=1), compare={})
    scores = count()
    jobs = simulate(
        asked, storage, score=lambda trial: None if next(scores) < 6 else bowl(trial), slots=5
    )
    assert len(jobs) == 9


def test_learning_sampler_learns_from_what_diverged(storage: str) -> None:
    asked = experiment(search=SearchConfig(sampler="tpe", trials=30), compare={WIDTH: (0.5,)})

    def cliff(trial: spec.Trial) -> float | None:
        return None if trial.optim.lr > 5e-4 else bowl(trial)

    tried = [job.trial for job in simulate(asked, storage, score=cliff) if job.role == "search"]
    lost = [cliff(trial) is None for trial in tried]
    assert sum(lost[15:]) < sum(lost[:15])


def test_learning_sampler_learns(storage: str) -> None:
    asked = experiment(search=SearchConfig(sampler="tpe", trials=20), compare={WIDTH: (0.5,)})
    found = [bowl(job.trial) for job in simulate(asked, storage) if job.role == "search"]
    assert sum(found[10:]) > sum(found[:10])


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_score_that_is_no_number_is_a_failure(storage: str, score: float) -> None:
    asked = experiment(search=SearchConfig(trials=3, seeds=1), compare={})
    jobs = simulate(asked, storage, score=lambda t: score if t.optim.lr > 1e-3 else bowl(t))
    (repeat,) = (job for job in jobs if job.role == "repeat")
    assert repeat.trial.optim.lr <= 1e-3
    states = {trial.state for trials in studies(storage) for trial in trials}
    assert states == {TrialState.PRUNED, TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("metric", "sign"), [("detect/bigram/auroc", 1), ("detect/bigram/loss", -1)]
)
def test_repeats_use_the_best_nuisances_in_the_metrics_direction(
    storage: str, metric: str, sign: int
) -> None:
    asked = experiment(
        search=SearchConfig(trials=6, seeds=3),
        metric=METRICS[metric],
        compare={"batch": (32, 64)},
    )
    jobs = simulate(asked, storage, slots=3)
    best = {
        cell: max(found, key=lambda job: sign * bowl(job.trial)).tuned
        for cell, found in by_cell(jobs, "search").items()
    }
    repeats = by_cell(jobs, "repeat")
    assert {cell: [job.tuned for job in jobs] for cell, jobs in repeats.items()} == {
        cell: [tuned] * 3 for cell, tuned in best.items()
    }


def test_repeats_run_on_seeds_that_the_search_never_used(storage: str) -> None:
    asked = experiment(search=SearchConfig(trials=4, seeds=3))
    jobs = simulate(asked, storage)
    searched = {job.trial.seeds for job in jobs if job.role == "search"}
    repeated = [job.trial.seeds for job in jobs if job.role == "repeat"]
    assert searched == {spec.Seeds(init=5, order=6, mask=7)}
    for part in ("init", "order", "mask"):
        used = {getattr(seeds, part) for seeds in searched}
        assert not used & {getattr(seeds, part) for seeds in repeated}


def test_the_same_repeat_has_the_same_seeds_in_all_cells(storage: str) -> None:
    """Common random numbers, so that differences can be taken within repeats."""
    asked = experiment(search=SearchConfig(trials=2, seeds=4), compare={WIDTH: (0.25, 0.5, 1.0)})
    jobs = [job for job in simulate(asked, storage, slots=4) if job.role == "repeat"]
    seeds = {job.repeat: set[spec.Seeds]() for job in jobs}
    for job in jobs:
        seeds[job.repeat].add(job.trial.seeds)
    assert sorted(seeds) == [1, 2, 3, 4]
    assert all(len(group) == 1 for group in seeds.values())
    assert len(set.union(*seeds.values())) == 4


def test_nothing_tuned_means_repeats_only_and_no_study(storage: str) -> None:
    asked = experiment(search=SearchConfig(seeds=3), tune={})
    jobs = simulate(asked, storage, slots=2)
    assert [job.role for job in jobs] == ["repeat"] * 6
    assert all(job.tuned == {} for job in jobs)
    assert studies(storage) == []


def test_nothing_compared_is_one_cell(storage: str) -> None:
    jobs = simulate(experiment(search=SearchConfig(trials=3, seeds=2), compare={}), storage)
    assert [job.role for job in jobs] == ["search"] * 3 + ["repeat"] * 2


def test_cell_where_all_failed_has_no_repeats_and_the_search_ends(storage: str) -> None:
    def doomed(trial: spec.Trial) -> float | None:
        assert isinstance(trial.objective, ElectraConfig)
        return None if trial.objective.generator.width == 0.25 else bowl(trial)

    asked = experiment(search=SearchConfig(trials=3, seeds=2))
    roles = Counter((job.cell[WIDTH], job.role) for job in simulate(asked, storage, score=doomed))
    assert roles == {(0.25, "search"): 3, (0.5, "search"): 3, (0.5, "repeat"): 2}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_values_of_a_joint_space_are_valid_trials(storage: str, sampler: str) -> None:
    asked = experiment(search=SearchConfig(sampler=sampler, trials=18), compare={}, tune=JOINT)
    jobs = simulate(asked, storage, slots=2)
    for job in jobs:
        again = search_space.build_trial(asked.base, job.cell | job.tuned)
        assert replace(again, seeds=job.trial.seeds) == job.trial
        assert set(job.tuned) == set(JOINT)
    stored = [trial.params for trials in studies(storage) for trial in trials]
    assert stored == [job.tuned for job in jobs if job.role == "search"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_choices_may_be_mappings(storage: str, sampler: str) -> None:
    choices = ({"width": 0.25, "depth": 1.0}, {"width": 0.5, "depth": 0.5})
    asked = experiment(
        search=SearchConfig(sampler=sampler, trials=6),
        compare={},
        tune={"objective.generator": Choices(choices=choices)},
    )
    jobs = simulate(asked, storage)
    assert all(job.tuned["objective.generator"] in choices for job in jobs)


# In whatever order.


@pytest.mark.parametrize("sampler", DESIGNED)
def test_designed_jobs_do_not_depend_on_the_order_of_ends(
    tmp_path: Path, empty: Path, sampler: str
) -> None:
    asked = experiment(search=SearchConfig(sampler=sampler, trials=5, seeds=2))
    runs = []
    for chance, slots in ((0, 1), (1, 2), (2, 5), (3, 40)):
        file = tmp_path / f"{chance}.db"
        shutil.copy(empty, file)
        jobs = simulate(asked, f"sqlite:///{file}", chance=chance, slots=slots)
        runs.append({job.number: job for job in jobs})
    assert all(run == runs[0] for run in runs)


# After a kill.


def finished(before: list[Outcome], asked: Experiment, storage: str, **how: object) -> None:
    """Drive to the end and check what any earlier kill must leave true."""
    search = Search(asked, storage, notes(storage))
    assert all(trial.state.is_finished() for trials in studies(storage) for trial in trials)
    jobs = drive(search, asked.metric.name, **how)  # type: ignore[arg-type]
    assert len(jobs) == search.jobs
    assert sorted(job.number for job in jobs) == list(range(len(jobs)))
    records = how["records"]
    assert isinstance(records, dict)
    assert all(records[key] is kept for key, kept in before)  # type: ignore[misc]
    assert len(records) == len(jobs), "a finished point was asked for again with other values"
    states = Counter(trial.state for trials in studies(storage) for trial in trials)
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert states[TrialState.COMPLETE] == asked.search.trials * len(
        search_space.expand_cells(asked)
    )


@pytest.mark.parametrize(
    ("sampler", "events"), [("grid", 4), ("random", 9), ("qmc", 13), ("tpe", 4), ("gp", 13)]
)
def test_killed_driver_is_continued(storage: str, sampler: str, events: int) -> None:
    asked = experiment(search=SearchConfig(sampler=sampler, trials=6, seeds=2))
    records: Records = {}
    for more in (events, events + 2):  # killed twice
        with pytest.raises(Killed):
            simulate(asked, storage, records=records, slots=3, chance=events, events=more)
    finished(list(records.items()), asked, storage, records=records, slots=2, chance=events)


WRITES = (
    "create_new_study",
    "create_new_trial",
    "set_study_user_attr",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_user_attr",
    "set_trial_system_attr",
)


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the n-th write to the studies, counted from now, be the driver's end."""
    left = [-1]

    def killing(write: Callable[..., object]) -> Callable[..., object]:
        def killed(*given: object, **named: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return write(*given, **named)

        return killed

    cached = optuna.storages._CachedStorage
    for name in WRITES:
        monkeypatch.setattr(cached, name, killing(getattr(cached, name)))

    def kill_at(write: int) -> None:
        left[0] = write

    yield kill_at
    left[0] = -1


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_driver_killed_at_any_write_is_continued(
    tmp_path: Path, empty: Path, sampler: str, kill_at: Callable[[int], None]
) -> None:
    asked = experiment(
        search=SearchConfig(sampler=sampler, trials=2 if sampler == "qmc" else 5), compare={}
    )
    for write in count(1, 1 if sampler == "qmc" else 5):
        file = tmp_path / f"{write}.db"
        shutil.copy(empty, file)
        records: Records = {}
        kill_at(write)
        try:
            simulate(asked, f"sqlite:///{file}", records=records)
        except Killed:
            kill_at(-1)
            finished(list(records.items()), asked, f"sqlite:///{file}", records=records)
        else:
            break
    assert write > 10


def test_sweep_that_is_over_asks_for_the_same_again(storage: str) -> None:
    asked = experiment(search=SearchConfig(sampler="tpe", trials=8, seeds=2))
    records: Records = {}
    first = simulate(asked, storage, records=records, slots=3)
    held = studies(storage)
    again = simulate(asked, storage, records=records, slots=3)
    assert sorted(again, key=lambda job: job.number) == sorted(first, key=lambda job: job.number)
    assert [len(trials) for trials in studies(storage)] == [len(trials) for trials in held]


def test_failed_point_may_run_again_with_the_same_values(storage: str) -> None:
    asked = experiment(search=SearchConfig(trials=3, seeds=1), compare={})
    first = simulate(asked, storage, score=lambda _: None)
    again = simulate(asked, storage, score=bowl)  # without records, as for `failed`
    assert [job.tuned for job in again[:3]] == [job.tuned for job in first]
    assert [job.role for job in again] == ["search"] * 3 + ["repeat"]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp"])
def test_more_trials_continue_the_study(storage: str, sampler: str) -> None:
    records: Records = {}
    jobs: list[list[Job]] = []
    for trials in (5, 9):
        asked = experiment(search=SearchConfig(sampler=sampler, trials=trials))
        jobs.append(searched(simulate(asked, storage, records=records)))
    fewer, more = ([(str(job.cell), str(job.tuned)) for job in found] for found in jobs)
    assert more[: len(fewer)] == fewer
    assert [len(trials) for trials in studies(storage)] == [9, 9]


def test_larger_grid_is_the_whole_larger_grid(storage: str) -> None:
    for trials in (3, 5):
        asked = experiment(search=SearchConfig(sampler="grid", trials=trials), compare={})
        points = [job.tuned for job in searched(simulate(asked, storage))]
        assert points == designs.grid_points(asked.tune, trials)


def test_other_questions_share_no_study(storage: str) -> None:
    """A study is known by what its scores depend on, and a name holds many."""
    first = experiment(search=SearchConfig(trials=2), compare={})
    changed = [
        first,
        replace(first, metric=METRICS["probe/pos/accuracy"]),
        replace(first, base=first.base | {"batch": 64}),
        replace(first, tune={"optim.lr": Range(low=1e-3, high=1e-2, log=True)}),
        replace(first, search=SearchConfig(trials=2, seed=1)),
    ]
    for asked in changed:
        simulate(asked, storage)
    assert [len(trials) for trials in studies(storage)] == [2] * len(changed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lost_study_is_rebuilt_from_the_notes(storage: str, empty: Path, sampler: str) -> None:
    asked = experiment(search=SearchConfig(sampler=sampler, trials=9, seeds=1), compare={})
    records: dict[object, Outcome] = {}
    simulate(asked, storage, records=records, slots=3)
    (before,) = studies(storage)
    shutil.copy(empty, storage.removeprefix("sqlite:///"))
    known = len(records)
    simulate(asked, storage, records=records, slots=2)
    (after,) = studies(storage)
    assert len(records) == known, "something was run that is on record"

    def points(trials: list[FrozenTrial]) -> list[object]:
        return sorted((t.user_attrs["index"], t.params, t.value, t.state) for t in trials)

    assert [str(point) for point in points(after)] == [str(point) for point in points(before)]


@pytest.mark.parametrize("stopping", [None, HalvingConfig(kind="halving")])
def test_fresh_search_forgets_its_study_and_its_notes_and_no_others(
    storage: str, stopping: HalvingConfig | None
) -> None:
    asked = experiment(search=SearchConfig(sampler="tpe", trials=6, stopping=stopping), compare={})
    other = replace(asked, metric=METRICS["probe/pos/accuracy"])
    for each in (asked, other):
        simulate(each, storage)
    kept = sorted(notes(storage).iterdir())
    Search(asked, storage, notes(storage), fresh=True)
    assert sorted(len(trials) for trials in studies(storage)) == [0, 6]
    assert len(sorted(notes(storage).iterdir())) == len(kept) - 1 == 1
    search = Search(asked, storage, notes(storage), fresh=True)
    jobs = drive(search, asked.metric.name, score=lambda trial: 1 - bowl(trial))
    assert len(jobs) == search.jobs
    assert sorted(len(trials) for trials in studies(storage)) == [6, 6]


@pytest.mark.parametrize("stopping", [None, HalvingConfig(kind="halving")])
def test_point_that_broke_is_recorded_as_failed(
    storage: str, stopping: HalvingConfig | None
) -> None:
    asked = experiment(search=SearchConfig(trials=2, stopping=stopping), compare={})
    search = Search(asked, storage, notes(storage))
    broke, works = search.ask(), search.ask()
    assert broke is not None
    assert works is not None
    search.tell(broke, replace(outcome("", None), state="failed"))
    search.tell(works, outcome(asked.metric.name, 0.7))
    (trials,) = studies(storage)
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_cell_is_repeated_once_a_point_that_broke_was_tried_again(storage: str) -> None:
    """Else it would be repeated with another setting than that of an undisturbed search."""
    asked = experiment(search=SearchConfig(trials=2, seeds=1), compare={})
    failed = replace(outcome("", None), state="failed")
    search = Search(asked, storage, notes(storage))
    broke, works = search.ask(), search.ask()
    assert broke is not None
    assert works is not None
    search.tell(broke, failed)
    search.tell(works, outcome(asked.metric.name, 0.7))
    assert search.ask() is None
    assert search.done
    again = Search(asked, storage, notes(storage))
    assert again.ask() == broke
    assert again.ask() == works
    again.tell(works, outcome(asked.metric.name, 0.7))
    again.tell(broke, replace(failed, tries=2))
    (repeat,) = (job for job in iter(again.ask, None))
    assert (repeat.role, repeat.tuned) == ("repeat", works.tuned)


# Halving.

POINTS = 8
Curve = Callable[[spec.Trial, int], float]


def halved(**changes: object) -> Experiment:
    search = SearchConfig(trials=16, seeds=2, stopping=HalvingConfig(kind="halving"))
    named = {"search": search, "compare": {}, "metric": METRICS["probe/pos/accuracy"]} | changes
    return experiment(**named)  # type: ignore[arg-type]


def grows(trial: spec.Trial, point: int) -> float:
    """Never crosses: who is ahead at one point is ahead at all."""
    return bowl(trial) - 0.5 / (1 + point)


def points(metric: str, trial: spec.Trial, curve: Curve, known: int) -> tuple[MetricRow, ...]:
    return tuple(
        {"spent/steps": 1.0 * n, "spent/flops": 1e9, metric: curve(trial, n)} for n in range(known)
    )


def race(
    search: Search,
    metric: str,
    *,
    curve: Curve = grows,
    slots: int = 4,
    chance: int = 0,
    records: Records | None = None,
    events: int = 100_000,
) -> dict[int, tuple[Job, Outcome]]:
    """Do as the driver does with a sweep whose trials are scored on their way, in any order.

    A record says for good how a trial ended, unless another search than this one has stopped it.
    """
    records = {} if records is None else records
    running: list[tuple[Job, int]] = []
    ended: dict[int, tuple[Job, Outcome]] = {}
    draw = random.Random(chance)  # noqa: S311

    def end(job: Job, how: Outcome) -> None:
        ended[job.number] = job, how
        records[key(job)] = how
        search.tell(job, how)

    while not search.done:
        events -= 1
        if events < 0:
            raise Killed
        job = search.ask() if len(running) < slots else None
        if job is not None and settled(search, job, records):
            end(job, records[key(job)])
        elif job is not None:
            running.append((job, 0))
        else:
            job, known = running.pop(draw.randrange(len(running)))
            rows = points(metric, job.trial, curve, known + 1)
            how = replace(outcome(metric, 0.0), rows=rows)
            if search.should_stop(job, rows):
                end(job, replace(how, state="stopped", reason="it lags"))
            elif known == POINTS:
                end(job, how)
            else:
                running.append((job, known + 1))
    return ended


def settled(search: Search, job: Job, records: Records) -> bool:
    known = records.get(key(job))
    return known is not None and (known.state != "stopped" or search.has_stopped(job))


@pytest.mark.parametrize("chance", range(2))
@pytest.mark.parametrize("slots", [1, 4])
def test_halving_stops_who_lags_and_never_the_best(storage: str, slots: int, chance: int) -> None:
    asked = halved()
    search = Search(asked, storage, notes(storage))
    ended = race(search, asked.metric.name, slots=slots, chance=chance)
    searched = [pair for pair in ended.values() if pair[0].role == "search"]
    repeated = [pair for pair in ended.values() if pair[0].role == "repeat"]
    best, how = max(searched, key=lambda pair: bowl(pair[0].trial))
    assert how.state == "finished"
    assert sum(how.state == "stopped" for _, how in searched) >= 4
    assert [(job.tuned, how.state) for job, how in repeated] == [(best.tuned, "finished")] * 2


@pytest.mark.parametrize("sign", [1, -1])
def test_halving_knows_which_way_is_better(storage: str, sign: int) -> None:
    metric = METRICS["detect/bigram/auroc" if sign > 0 else "detect/bigram/loss"]
    asked = halved(metric=metric)
    ended = race(
        Search(asked, storage, notes(storage)), metric.name, curve=lambda t, n: sign * grows(t, n)
    )
    best = max(ended.values(), key=lambda pair: (pair[0].role == "search", bowl(pair[0].trial)))
    assert best[1].state == "finished"
    assert any(how.state == "stopped" for _, how in ended.values())


def test_run_that_was_stopped_is_pruned_with_its_scores_on_the_way(storage: str) -> None:
    asked = halved()
    ended = race(Search(asked, storage, notes(storage)), asked.metric.name)
    (trials,) = studies(storage)
    states = {"stopped": TrialState.PRUNED, "finished": TrialState.COMPLETE}
    for trial in trials:
        _, how = ended[trial.user_attrs["index"]]
        scores = [row[asked.metric.name] for row in how.rows]
        assert trial.state == states[how.state]
        assert trial.user_attrs["state"] == how.state
        assert trial.intermediate_values == dict(enumerate(scores[1:], 1))  # 0 is untrained
        assert trial.value == scores[-1]
    assert {trial.state for trial in trials} == set(states.values())


def test_run_that_diverged_is_pruned_without_a_number_under_halving_too(storage: str) -> None:
    asked = halved()
    search = Search(asked, storage, notes(storage))
    job = search.ask()
    assert job is not None
    rows = points(asked.metric.name, job.trial, grows, 3)
    search.should_stop(job, rows)
    search.tell(job, replace(outcome("", None), rows=rows))
    (trials,) = studies(storage)
    told = [trial for trial in trials if "state" in trial.user_attrs]
    assert [(t.state, t.value) for t in told] == [(TrialState.PRUNED, None)]
    assert [t.user_attrs["state"] for t in told] == ["diverged"]


def test_repeats_are_never_stopped(storage: str) -> None:
    """Even the worst there ever was: cells are compared by their repeats alone."""
    asked = halved()

    def unlucky(trial: spec.Trial, point: int) -> float:
        return grows(trial, point) - (trial.seeds.init > 5)

    ended = race(Search(asked, storage, notes(storage)), asked.metric.name, curve=unlucky)
    assert [how.state for job, how in ended.values() if job.role == "repeat"] == ["finished"] * 2


def test_nothing_lags_without_halving(storage: str) -> None:
    asked = halved(search=SearchConfig(trials=8))
    ended = race(Search(asked, storage, notes(storage)), asked.metric.name)
    assert {how.state for _, how in ended.values()} == {"finished"}
    (trials,) = studies(storage)
    assert not any(trial.intermediate_values for trial in trials)


def test_cells_are_halved_each_among_its_own(storage: str) -> None:
    """A cell that is worse as a whole still has a winner."""
    asked = halved(compare={WIDTH: (0.25, 0.5)})

    def uneven(trial: spec.Trial, point: int) -> float:
        assert isinstance(trial.objective, ElectraConfig)
        return grows(trial, point) - (trial.objective.generator.width == 0.25)

    ended = race(Search(asked, storage, notes(storage)), asked.metric.name, curve=uneven)
    done = Counter(job.cell[WIDTH] for job, how in ended.values() if how.state == "finished")
    assert min(done[0.25], done[0.5]) >= 3


def test_point_that_is_told_twice_is_reported_once(storage: str) -> None:
    asked = halved()
    search = Search(asked, storage, notes(storage))
    job = search.ask()
    assert job is not None
    rows = points(asked.metric.name, job.trial, grows, 4)
    for _ in range(3):
        assert not search.should_stop(job, rows)
    ((trial, *_),) = studies(storage)
    assert sorted(trial.intermediate_values) == [1, 2, 3]


def test_lost_study_of_a_halving_is_rebuilt_from_the_notes(storage: str, empty: Path) -> None:
    asked, records = halved(), Records()
    race(Search(asked, storage, notes(storage)), asked.metric.name, records=records)
    (before,) = studies(storage)
    shutil.copy(empty, storage.removeprefix("sqlite:///"))
    known = dict(records)
    race(Search(asked, storage, notes(storage)), asked.metric.name, records=records)
    (after,) = studies(storage)
    assert_kept(known, records)
    assert len(records) == len(known), "something was run that is on record"

    def held(trials: list[FrozenTrial]) -> list[object]:
        return sorted(
            (t.user_attrs["index"], str((t.params, t.value, t.state, t.intermediate_values)))
            for t in trials
        )

    assert held(after) == held(before)


def assert_kept(known: Records, records: Records) -> None:
    assert {how.state for how in known.values()} == {"stopped", "finished"}
    assert all(records[name] is how for name, how in known.items()), "something was run again"


def lose_study(storage: str, empty: Path) -> None:
    shutil.copy(empty, storage.removeprefix("sqlite:///"))


def lose_ends(storage: str, empty: Path) -> None:
    """Leave of the notes what was asked for, as where a mirror has them from before the end."""
    for file in notes(storage).iterdir():
        lines = (json.loads(line)[:2] for line in file.read_text().splitlines() if line)
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def cut_line(storage: str, empty: Path) -> None:
    """Be killed while the next note is written."""
    lose_study(storage, empty)
    for file in notes(storage).iterdir():
        with file.open("a") as opened:
            opened.write('\n[3, {"optim.l')


@pytest.mark.parametrize(
    ("lose", "events"), [(lose_study, 45), (lose_study, 75), (lose_ends, 60), (cut_line, 75)]
)
def test_killed_halving_that_lost_its_study_or_its_notes_trains_nothing_again(
    storage: str, empty: Path, events: int, lose: Callable[[str, Path], None]
) -> None:
    asked, records = halved(), Records()
    with pytest.raises(Killed):
        race(
            Search(asked, storage, notes(storage)),
            asked.metric.name,
            records=records,
            events=events,
        )
    for _ in range(2):
        lose(storage, empty)
        known = dict(records)
        ended = race(Search(asked, storage, notes(storage)), asked.metric.name, records=records)
        assert_kept(known, records)
    repeats = [how.state for job, how in ended.values() if job.role == "repeat"]
    assert repeats == ["finished"] * 2
    assert len(records) == len(ended) == len(known) == 18


def test_run_is_trained_to_its_end_where_another_search_has_stopped_it(
    storage: str, empty: Path, tmp_path: Path
) -> None:
    asked, records = halved(), Records()
    race(Search(asked, storage, notes(storage)), asked.metric.name, records=records)
    stopped = {name for name, how in records.items() if how.state == "stopped"}
    other = tmp_path / "other" / "optuna.db"
    other.parent.mkdir()
    shutil.copy(empty, other)
    search = Search(asked, f"sqlite:///{other}", notes(f"sqlite:///{other}"))
    anew = Search(asked, storage, notes(storage), fresh=True)
    for each in (search, anew):
        asked_for = [each.ask() for _ in range(16)]
        assert stopped <= {key(job) for job in asked_for if job is not None}
        assert not any(each.has_stopped(job) for job in asked_for if job is not None)


def test_failed_run_that_goes_again_is_halved_or_left_alone(storage: str) -> None:
    asked = halved()
    first = Search(asked, storage, notes(storage))
    job = first.ask()
    assert job is not None
    first.tell(job, replace(outcome("", None), state="failed"))
    again = Search(asked, storage, notes(storage))
    job = again.ask()
    assert job is not None
    assert not again.should_stop(job, points(asked.metric.name, job.trial, grows, 2))
