"""Simulated searches: an artificial score, trials that end in random order, and real Optuna."""

import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

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
from lab.config.objectives.electra import ElectraConfig
from lab.config.results import Outcome, State
from lab.config.trial import Seeds, Trial, content_hash
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
HALVING = HalvingConfig(kind="halving", first_rung=0.25)
SAMPLERS = ("grid", "random", "qmc", "tpe", "gp")
# A fixed design and an adaptive sampler store their points in a database, the others in memory.
STORED = pytest.mark.parametrize(
    ("sampler", "storage"),
    [(name, "database" if name in ("qmc", "tpe") else "memory") for name in SAMPLERS],
    indirect=["storage"],
)
FIXED_DESIGNS = ("grid", "random", "qmc")

Score = Callable[[Trial], float | None]
Records = dict[str, Outcome]


def build_experiment(*, search: SearchConfig, **changes: object) -> Experiment:
    experiment = Experiment(
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
    return replace(experiment, **changes)


def bowl(trial: Trial) -> float:
    """Return a score that is best at a learning rate of the cell, plus a small effect of seeds."""
    assert isinstance(trial.objective, ElectraConfig)
    best = 2e-3 * trial.objective.generator.width
    return 0.9 - abs(math.log(trial.optim.lr / best)) / 20 + trial.seeds.init / 1_000


def outcome(metric: str, score: float | None) -> Outcome:
    state: State = "diverged" if score is None else "finished"
    row = {"spent/steps": 8.0, "spent/flops": 1e9, **({} if score is None else {metric: score})}
    return Outcome(state=state, reason="", rows=(row,), started_at=0.0, seconds=1.0, busy=1.0)


class Memory(InMemoryStorage):
    """A storage in memory, with the folder of its notes. A database takes ten times as long."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder


Storage = str | Memory
IN_DATABASE = pytest.mark.parametrize("storage", ["database"], indirect=True)


@pytest.fixture
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> Storage:
    """Return a storage in memory, or the URL of an SQLite database where the test asks for it."""
    if getattr(request, "param", "memory") == "memory":
        return Memory(tmp_path)
    return copy_database(request.getfixturevalue("empty"), tmp_path)


def copy_database(empty: Path, folder: Path) -> str:
    shutil.copy(empty, folder / "optuna.db")
    return f"sqlite:///{folder}/optuna.db"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with Optuna's schema; to create it takes longer than a simulation."""
    file = tmp_path_factory.mktemp("search") / "optuna.db"
    optuna.storages.RDBStorage(f"sqlite:///{file}").engine.dispose()
    return file


def key(job: Job) -> str:
    return content_hash(asdict(job.trial))


class Killed(BaseException):
    """Raised to end a simulated driver at once, as SIGKILL ends a process."""


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
    """Simulate the driver, and return all jobs in the order in which they were asked for.

    Outcomes on record are passed to the search at once; other jobs run, and end in random order.

    Args:
        search: search to run.
        metric: name of the metric that ranks trials.
        score: function that returns the score of a trial; None where it diverges.
        records: outcomes of earlier drivers, by content; new outcomes are added.
        slots: number of trials that run at the same time.
        chance: seed of the order of ends.
        events: number of asks and ends after which the driver is killed.

    Raises:
        Killed: after `events` events.
    """
    records = {} if records is None else records
    jobs: list[Job] = []
    running: list[Job] = []
    draw = random.Random(chance)  # noqa: S311
    while not search.done:
        events -= 1
        if events < 0:
            raise Killed
        job = search.ask() if len(running) < slots else None
        if job is None:
            assert running, "no job is running, none is returned, but the search is not done"
            ended = running.pop(draw.randrange(len(running)))
            records[key(ended)] = outcome(metric, score(ended.trial))
            search.tell(ended, records[key(ended)])
            continue
        jobs.append(job)
        if key(job) in records:
            search.tell(job, records[key(job)])
        else:
            search.start(job)
            running.append(job)
    return jobs


def notes(storage: Storage) -> Path:
    if isinstance(storage, Memory):
        return storage.folder / "searches"
    return Path(storage.removeprefix("sqlite:///")).parent / "searches"


def simulate(experiment: Experiment, storage: Storage, **options: object) -> list[Job]:
    return drive(Search(experiment, storage, notes(storage)), experiment.metric.name, **options)  # type: ignore[arg-type]


def studies(storage: Storage) -> list[list[FrozenTrial]]:
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage).get_trials() for name in names]


def group_by_cell(jobs: list[Job], role: str) -> dict[str, list[Job]]:
    by_cell: dict[str, list[Job]] = {}
    for job in jobs:
        if job.role == role:
            by_cell.setdefault(str(job.cell), []).append(job)
    return by_cell


def search_jobs(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.role == "search"]


# Jobs of a search.


@pytest.mark.parametrize(
    ("sampler", "slots", "storage"),
    [("grid", 1, "memory"), ("random", 16, "memory"), ("qmc", 1, "database"),
     ("tpe", 16, "database"), ("gp", 1, "memory"), ("gp", 16, "memory")],
    indirect=["storage"],
)  # fmt: skip
def test_every_cell_has_its_search_trials_and_then_its_repeats(
    storage: Storage, sampler: str, slots: int
) -> None:
    experiment = build_experiment(search=SearchConfig(sampler=sampler, trials=6, seeds=2))
    search = Search(experiment, storage, notes(storage))
    jobs = drive(search, experiment.metric.name, slots=slots)
    assert search.done
    assert search.ask() is None
    for cell in ({WIDTH: 0.25}, {WIDTH: 0.5}):
        roles = [job.role for job in jobs if job.cell == cell]
        assert roles == ["search"] * 6 + ["repeat"] * 2
    assert len(jobs) == search.jobs
    assert sorted(job.number for job in jobs) == list(range(len(jobs)))
    states = [[trial.state for trial in trials] for trials in studies(storage)]
    assert states == [[TrialState.COMPLETE] * 6] * 2


@STORED
def test_diverged_point_is_recorded_as_pruned_without_a_value(
    storage: Storage, sampler: str
) -> None:
    def fragile(trial: Trial) -> float | None:
        return None if trial.optim.lr > 1e-3 else bowl(trial)

    experiment = build_experiment(search=SearchConfig(sampler=sampler, trials=7), compare={})
    jobs = search_jobs(simulate(experiment, storage, score=fragile))
    (trials,) = studies(storage)
    assert [trial.value for trial in trials] == [fragile(job.trial) for job in jobs]
    states = {True: TrialState.PRUNED, False: TrialState.COMPLETE}
    assert [trial.state for trial in trials] == [states[trial.value is None] for trial in trials]
    assert {trial.state for trial in trials} == set(states.values())


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_adaptive_sampler_continues_after_first_points_without_a_score(
    storage: Storage, sampler: str
) -> None:
    experiment = build_experiment(
        search=SearchConfig(sampler=sampler, trials=8, seeds=1), compare={}
    )
    scores = count()
    jobs = simulate(
        experiment, storage, score=lambda trial: None if next(scores) < 6 else bowl(trial), slots=5
    )
    assert len(jobs) == 9


@pytest.mark.parametrize(
    ("sampler", "trials", "highest"), [("tpe", 24, 2e-3), ("gp", 14, 2e-3), ("gp", 14, 5e-4)]
)
def test_adaptive_sampler_avoids_settings_that_diverge(
    storage: Storage, sampler: str, trials: int, highest: float
) -> None:
    """Also a Gaussian process, where the scores of finished trials rise up to the limit."""
    experiment = build_experiment(
        search=SearchConfig(sampler=sampler, trials=trials), compare={WIDTH: (0.5,)}
    )

    def cliff(trial: Trial) -> float | None:
        """Return scores that are best at a rate of 1e-3; trials with high rates diverge."""
        return None if trial.optim.lr > highest else bowl(trial)

    tried = search_jobs(simulate(experiment, storage, score=cliff))
    later = [cliff(job.trial) is None for job in tried[trials // 2 :]]
    assert sum(later) < len(later) / 2


def test_adaptive_sampler_improves_its_scores(storage: Storage) -> None:
    experiment = build_experiment(
        search=SearchConfig(sampler="tpe", trials=20), compare={WIDTH: (0.5,)}
    )
    scores = [bowl(job.trial) for job in simulate(experiment, storage) if job.role == "search"]
    assert sum(scores[10:]) > sum(scores[:10])


@pytest.mark.parametrize("score", [math.nan, math.inf])
@IN_DATABASE
def test_point_with_a_non_finite_score_is_pruned_and_never_the_best(
    storage: Storage, score: float
) -> None:
    experiment = build_experiment(search=SearchConfig(trials=3, seeds=1), compare={})
    jobs = simulate(experiment, storage, score=lambda t: score if t.optim.lr > 1e-3 else bowl(t))
    (repeat,) = (job for job in jobs if job.role == "repeat")
    assert repeat.trial.optim.lr <= 1e-3
    states = {trial.state for trials in studies(storage) for trial in trials}
    assert states == {TrialState.PRUNED, TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("metric", "sign"), [("detect/bigram/auroc", 1), ("detect/bigram/calibrated_loss", -1)]
)
def test_repeats_use_the_best_nuisance_parameters_in_the_direction_of_the_metric(
    storage: Storage, metric: str, sign: int
) -> None:
    experiment = build_experiment(
        search=SearchConfig(trials=6, seeds=3),
        metric=METRICS[metric],
        compare={"batch": (32, 64)},
    )
    jobs = simulate(experiment, storage, slots=3)
    best = {
        cell: max(cell_jobs, key=lambda job: sign * bowl(job.trial)).tuned
        for cell, cell_jobs in group_by_cell(jobs, "search").items()
    }
    repeats = group_by_cell(jobs, "repeat")
    assert {cell: [job.tuned for job in jobs] for cell, jobs in repeats.items()} == {
        cell: [tuned] * 3 for cell, tuned in best.items()
    }


def test_repeats_use_other_seeds_than_the_search(storage: Storage) -> None:
    experiment = build_experiment(search=SearchConfig(trials=4, seeds=3))
    jobs = simulate(experiment, storage)
    search_seeds = {job.trial.seeds for job in jobs if job.role == "search"}
    repeat_seeds = [job.trial.seeds for job in jobs if job.role == "repeat"]
    assert search_seeds == {Seeds(init=5, order=6, mask=7)}
    for part in ("init", "order", "mask"):
        used = {getattr(seeds, part) for seeds in search_seeds}
        assert not used & {getattr(seeds, part) for seeds in repeat_seeds}


def test_repeat_has_the_same_seeds_in_all_cells(storage: Storage) -> None:
    """Common random numbers: differences between cells are computed within repeats."""
    experiment = build_experiment(
        search=SearchConfig(trials=2, seeds=4), compare={WIDTH: (0.25, 0.5, 1.0)}
    )
    jobs = [job for job in simulate(experiment, storage, slots=4) if job.role == "repeat"]
    seeds = {job.repeat: set[Seeds]() for job in jobs}
    for job in jobs:
        seeds[job.repeat].add(job.trial.seeds)
    assert sorted(seeds) == [1, 2, 3, 4]
    assert all(len(group) == 1 for group in seeds.values())
    assert len(set.union(*seeds.values())) == 4


@pytest.mark.parametrize("sampler", FIXED_DESIGNS)
@pytest.mark.parametrize("slots", [1, 5])
def test_every_setting_is_trained_on_every_seed(storage: Storage, sampler: str, slots: int) -> None:
    experiment = build_experiment(
        search=SearchConfig(sampler=sampler, trials=3, seeds=4, repeated="every_setting")
    )
    search = Search(experiment, storage, notes(storage))
    jobs = drive(search, experiment.metric.name, slots=slots)
    assert search.done
    assert {job.role for job in jobs} == {"search"}
    assert sorted(job.number for job in jobs) == list(range(search.jobs)) == list(range(24))
    for cell_jobs in group_by_cell(jobs, "search").values():
        seeds = {job.repeat: job.trial.seeds for job in cell_jobs}
        assert sorted(seeds) == [1, 2, 3, 4]
        assert len(set(seeds.values())) == 4
        assert all(job.trial.seeds == seeds[job.repeat] for job in cell_jobs)
        rates = {job.tuned["optim.lr"] for job in cell_jobs}
        assert len(rates) == 3
        pairs = Counter((job.tuned["optim.lr"], job.repeat) for job in cell_jobs)
        assert pairs == dict.fromkeys(((rate, repeat) for rate in rates for repeat in seeds), 1)


def test_all_settings_of_one_seed_come_before_the_next_seed(storage: Storage) -> None:
    """An interrupted sweep has compared all settings by the same seeds."""
    experiment = build_experiment(
        search=SearchConfig(sampler="grid", trials=3, seeds=3, repeated="every_setting")
    )
    repeats = [job.repeat for job in simulate(experiment, storage)]
    assert repeats == [1] * 6 + [2] * 6 + [3] * 6


def test_more_seeds_continue_a_search_that_repeats_every_setting(storage: Storage) -> None:
    records: Records = {}
    few, more = (
        build_experiment(
            search=SearchConfig(sampler="qmc", trials=3, seeds=seeds, repeated="every_setting")
        )
        for seeds in (2, 4)
    )
    first = simulate(few, storage, records=records)
    before = set(records)
    second = simulate(more, storage, records=records)
    assert {key(job) for job in first} == before
    assert before < {key(job) for job in second}
    assert len(records) == 24


def test_search_without_tuned_settings_has_repeats_only_and_no_study(storage: Storage) -> None:
    experiment = build_experiment(search=SearchConfig(seeds=3), tune={})
    jobs = simulate(experiment, storage, slots=2)
    assert [job.role for job in jobs] == ["repeat"] * 6
    assert all(job.tuned == {} for job in jobs)
    assert studies(storage) == []


def test_search_without_compared_settings_has_one_cell(storage: Storage) -> None:
    jobs = simulate(build_experiment(search=SearchConfig(trials=3, seeds=2), compare={}), storage)
    assert [job.role for job in jobs] == ["search"] * 3 + ["repeat"] * 2


def test_search_ends_without_repeats_of_a_cell_with_diverged_points_only(storage: Storage) -> None:
    def doomed(trial: Trial) -> float | None:
        assert isinstance(trial.objective, ElectraConfig)
        return None if trial.objective.generator.width == 0.25 else bowl(trial)

    experiment = build_experiment(search=SearchConfig(trials=3, seeds=2))
    roles = Counter(
        (job.cell[WIDTH], job.role) for job in simulate(experiment, storage, score=doomed)
    )
    assert roles == {(0.25, "search"): 3, (0.5, "search"): 3, (0.5, "repeat"): 2}


@STORED
def test_points_of_a_joint_space_are_valid_trials(storage: Storage, sampler: str) -> None:
    experiment = build_experiment(
        search=SearchConfig(sampler=sampler, trials=13), compare={}, tune=JOINT
    )
    jobs = simulate(experiment, storage, slots=2)
    for job in jobs:
        again = search_space.build_trial(experiment.base, job.cell | job.tuned)
        assert replace(again, seeds=job.trial.seeds) == job.trial
        assert set(job.tuned) == set(JOINT)
    stored = [trial.params for trials in studies(storage) for trial in trials]
    assert stored == [job.tuned for job in jobs if job.role == "search"]


@STORED
def test_choices_may_be_mappings(storage: Storage, sampler: str) -> None:
    choices = ({"width": 0.25, "depth": 1.0}, {"width": 0.5, "depth": 0.5})
    experiment = build_experiment(
        search=SearchConfig(sampler=sampler, trials=6),
        compare={},
        tune={"objective.generator": Choices(choices=choices)},
    )
    jobs = simulate(experiment, storage)
    assert all(job.tuned["objective.generator"] in choices for job in jobs)


# Order of ends.


@pytest.mark.parametrize("sampler", FIXED_DESIGNS)
def test_designed_jobs_do_not_depend_on_the_order_of_ends(tmp_path: Path, sampler: str) -> None:
    experiment = build_experiment(search=SearchConfig(sampler=sampler, trials=5, seeds=2))
    runs = []
    for chance, slots in ((0, 1), (1, 2), (2, 5), (3, 40)):
        storage = Memory(tmp_path / str(chance))
        jobs = simulate(experiment, storage, chance=chance, slots=slots)
        runs.append({job.number: job for job in jobs})
    assert all(run == runs[0] for run in runs)


# Killed drivers.


def run_to_end(
    before: list[Outcome], experiment: Experiment, storage: Storage, **options: object
) -> None:
    """Run a search to its end, and check that earlier kills have not changed its results."""
    search = Search(experiment, storage, notes(storage))
    assert all(trial.state.is_finished() for trials in studies(storage) for trial in trials)
    jobs = drive(search, experiment.metric.name, **options)  # type: ignore[arg-type]
    assert len(jobs) == search.jobs
    assert sorted(job.number for job in jobs) == list(range(len(jobs)))
    records = options["records"]
    assert isinstance(records, dict)
    assert all(records[key] is outcome for key, outcome in before)  # type: ignore[misc]
    assert len(records) == len(jobs), "a finished point has changed its values"
    states = Counter(trial.state for trials in studies(storage) for trial in trials)
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert states[TrialState.COMPLETE] == experiment.search.trials * len(
        search_space.expand_cells(experiment)
    )


@pytest.mark.parametrize(
    ("sampler", "events", "storage"),
    [("grid", 4, "memory"), ("random", 9, "memory"), ("qmc", 13, "database"),
     ("tpe", 4, "database"), ("gp", 13, "memory")],
    indirect=["storage"],
)  # fmt: skip
def test_search_continues_after_its_driver_was_killed_twice(
    storage: Storage, sampler: str, events: int
) -> None:
    experiment = build_experiment(search=SearchConfig(sampler=sampler, trials=6, seeds=2))
    records: Records = {}
    for limit in (events, events + 2):
        with pytest.raises(Killed):
            simulate(experiment, storage, records=records, slots=3, chance=events, events=limit)
    run_to_end(list(records.items()), experiment, storage, records=records, slots=2, chance=events)


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
    """Return a function that kills the driver at the n-th write to the studies from now on."""
    left = [-1]

    def killing(write: Callable[..., object]) -> Callable[..., object]:
        def killed(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return write(*args, **kwargs)

        return killed

    for kind in (optuna.storages._CachedStorage, InMemoryStorage):
        for name in WRITES:
            monkeypatch.setattr(kind, name, killing(getattr(kind, name)))

    def kill_at(write: int) -> None:
        left[0] = write

    yield kill_at
    left[0] = -1


@pytest.mark.parametrize(
    ("sampler", "trials", "stride", "kind"), [("qmc", 2, 1, "memory"), ("tpe", 5, 5, "database")]
)
def test_search_continues_after_its_driver_was_killed_at_any_write(
    tmp_path: Path,
    empty: Path,
    sampler: str,
    trials: int,
    stride: int,
    kind: str,
    kill_at: Callable[[int], None],
) -> None:
    search = SearchConfig(sampler=sampler, trials=trials)
    experiment = build_experiment(search=search, compare={})
    for write in count(1, stride):
        folder = tmp_path / str(write)
        folder.mkdir()
        storage = Memory(folder) if kind == "memory" else copy_database(empty, folder)
        records: Records = {}
        kill_at(write)
        try:
            simulate(experiment, storage, records=records)
        except Killed:
            kill_at(-1)
            run_to_end(list(records.items()), experiment, storage, records=records)
        else:
            break
    assert write > 10


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_ended_point_is_added_to_a_lost_study_by_one_write(
    tmp_path: Path, empty: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = build_experiment(search=SearchConfig(sampler=sampler, trials=6), compare={})
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = (f"sqlite:///{shutil.copy(empty, tmp_path / name)}" for name in ("old", "new"))
    records: Records = {}
    simulate(experiment, old, records=records)
    shutil.copytree(notes(old), notes(new))
    writes: list[str] = []
    cached = optuna.storages._CachedStorage
    for name in WRITES:
        write = getattr(cached, name)

        def counted(*args: Any, _write: Any = write, _name: str = name, **more: Any) -> Any:
            writes.append(_name)
            return _write(*args, **more)

        monkeypatch.setattr(cached, name, counted)
    simulate(experiment, new, records=records)
    assert [name for name in writes if "study" not in name] == ["create_new_trial"] * 6
    (before,), (after,) = studies(old), studies(new)
    for one, other in zip(before, after, strict=True):
        assert (one.state, one.value, one.params) == (other.state, other.value, other.params)
        assert one.user_attrs == other.user_attrs


@IN_DATABASE
def test_finished_search_returns_the_same_jobs_again(storage: Storage) -> None:
    experiment = build_experiment(search=SearchConfig(sampler="tpe", trials=4, seeds=2))
    records: Records = {}
    first = simulate(experiment, storage, records=records, slots=3)
    before = studies(storage)
    again = simulate(experiment, storage, records=records, slots=3)
    assert sorted(again, key=lambda job: job.number) == sorted(first, key=lambda job: job.number)
    assert [len(trials) for trials in studies(storage)] == [len(trials) for trials in before]


def test_point_without_a_record_runs_again_with_the_same_values(storage: Storage) -> None:
    experiment = build_experiment(search=SearchConfig(trials=3, seeds=1), compare={})
    first = simulate(experiment, storage, score=lambda _: None)
    again = simulate(experiment, storage, score=bowl)  # without records, as after a failure
    assert [job.tuned for job in again[:3]] == [job.tuned for job in first]
    assert [job.role for job in again] == ["search"] * 3 + ["repeat"]


@pytest.mark.parametrize(
    ("sampler", "storage"),
    [("random", "memory"), ("qmc", "database"), ("tpe", "database"), ("gp", "memory")],
    indirect=["storage"],
)
def test_more_trials_continue_the_study(storage: Storage, sampler: str) -> None:
    records: Records = {}
    jobs: list[list[Job]] = []
    for trials in (5, 9):
        experiment = build_experiment(search=SearchConfig(sampler=sampler, trials=trials))
        jobs.append(search_jobs(simulate(experiment, storage, records=records)))
    fewer, more = ([(str(job.cell), str(job.tuned)) for job in each] for each in jobs)
    assert more[: len(fewer)] == fewer
    assert [len(trials) for trials in studies(storage)] == [9, 9]


@IN_DATABASE
def test_grid_with_more_trials_is_the_complete_larger_grid(storage: Storage) -> None:
    for trials in (3, 5):
        experiment = build_experiment(
            search=SearchConfig(sampler="grid", trials=trials), compare={}
        )
        points = [job.tuned for job in search_jobs(simulate(experiment, storage))]
        assert points == designs.grid_points(experiment.tune, trials)


@IN_DATABASE
def test_experiments_with_other_scores_have_other_studies(storage: Storage) -> None:
    """Studies are identified by the settings that their scores depend on, not by name alone."""
    first = build_experiment(search=SearchConfig(trials=2), compare={})
    changed = [
        first,
        replace(first, metric=METRICS["probe/pos/accuracy"]),
        replace(first, base=first.base | {"batch": 64}),
        replace(first, tune={"optim.lr": Range(low=1e-3, high=1e-2, log=True)}),
        replace(first, search=SearchConfig(trials=2, seed=1)),
    ]
    for experiment in changed:
        simulate(experiment, storage)
    assert [len(trials) for trials in studies(storage)] == [2] * len(changed)


def test_changed_code_has_its_own_study(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adaptive sampler must not learn from scores that other code has computed."""
    experiment = build_experiment(search=SearchConfig(trials=2), compare={})
    jobs = simulate(experiment, storage)
    monkeypatch.setattr("lab.search.cell_search.code_digest", lambda _: "edited")
    edited = simulate(experiment, storage)
    assert [len(trials) for trials in studies(storage)] == [2, 2]
    assert [job.tuned for job in search_jobs(edited)] == [job.tuned for job in search_jobs(jobs)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lost_study_is_rebuilt_from_the_notes(storage: Storage, sampler: str) -> None:
    experiment = build_experiment(
        search=SearchConfig(sampler=sampler, trials=9, seeds=1), compare={}
    )
    records: dict[object, Outcome] = {}
    simulate(experiment, storage, records=records, slots=3)
    (before,) = studies(storage)
    storage = lose_study(storage)
    before_loss = len(records)
    simulate(experiment, storage, records=records, slots=2)
    (after,) = studies(storage)
    assert len(records) == before_loss, "a trial on record was run again"

    def points(trials: list[FrozenTrial]) -> list[object]:
        return sorted((t.user_attrs["index"], t.params, t.value, t.state) for t in trials)

    assert [str(point) for point in points(after)] == [str(point) for point in points(before)]


@IN_DATABASE
def test_fresh_search_deletes_its_own_study_and_notes_only(storage: Storage) -> None:
    experiment = build_experiment(search=SearchConfig(sampler="tpe", trials=3), compare={})
    other = replace(experiment, metric=METRICS["probe/pos/accuracy"])
    for each in (experiment, other):
        simulate(each, storage)
    before = sorted(notes(storage).iterdir())
    Search(experiment, storage, notes(storage), fresh=True)
    assert sorted(len(trials) for trials in studies(storage)) == [0, 3]
    assert len(sorted(notes(storage).iterdir())) == len(before) - 1 == 1
    search = Search(experiment, storage, notes(storage), fresh=True)
    jobs = drive(search, experiment.metric.name, score=lambda trial: 1 - bowl(trial))
    assert len(jobs) == search.jobs
    assert sorted(len(trials) for trials in studies(storage)) == [3, 3]


@IN_DATABASE
def test_failed_point_is_recorded_as_failed(storage: Storage) -> None:
    experiment = build_experiment(search=SearchConfig(trials=2), compare={})
    search = Search(experiment, storage, notes(storage))
    failed_job, working_job = search.ask(), search.ask()
    assert failed_job is not None
    assert working_job is not None
    search.tell(failed_job, replace(outcome("", None), state="failed"))
    search.tell(working_job, outcome(experiment.metric.name, 0.7))
    (trials,) = studies(storage)
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_repeats_of_a_cell_wait_until_a_failed_point_was_retried(storage: Storage) -> None:
    """Else the repeats could have another setting than those of a search without a failure."""
    experiment = build_experiment(search=SearchConfig(trials=2, seeds=1), compare={})
    failed = replace(outcome("", None), state="failed")
    search = Search(experiment, storage, notes(storage))
    failed_job, working_job = search.ask(), search.ask()
    assert failed_job is not None
    assert working_job is not None
    search.tell(failed_job, failed)
    search.tell(working_job, outcome(experiment.metric.name, 0.7))
    assert search.ask() is None
    assert search.done
    again = Search(experiment, storage, notes(storage))
    assert again.ask() == failed_job
    assert again.ask() == working_job
    again.tell(working_job, outcome(experiment.metric.name, 0.7))
    again.tell(failed_job, replace(failed, attempts=2))
    (repeat,) = (job for job in iter(again.ask, None))
    assert (repeat.role, repeat.tuned) == ("repeat", working_job.tuned)


# Halving.

AMOUNT = 1e12  # FLOPs of the full budget
SCHEDULES = {
    "trunk": {"kind": "trunk", "warmup": 1e10},
    "constant": {"kind": "constant", "warmup": 0},
}


def halving_experiment(schedule: str = "trunk", **changes: object) -> Experiment:
    search = SearchConfig(trials=8, seeds=2, stopping=HALVING)
    named = {"search": search, "compare": {}, "metric": METRICS["probe/pos/accuracy"]} | changes
    experiment = build_experiment(**named)  # type: ignore[arg-type]
    return replace(experiment, base=experiment.base | {"schedule": SCHEDULES[schedule]})


def growing_score(trial: Trial) -> float:
    """Return a score that grows with the budget and orders settings alike at all budgets."""
    return bowl(trial) + trial.budget.amount / (10 * AMOUNT)


def shuffled_score(trial: Trial) -> float:
    """Return a score that orders settings anew at each budget."""
    draw = random.Random(f"{trial.budget.amount} {trial.optim.lr} {trial.seeds}")  # noqa: S311
    return growing_score(trial) if trial.seeds.init > 5 else draw.random()


def simulate_halving(
    experiment: Experiment, storage: Storage, **options: Any
) -> list[tuple[Job, Outcome]]:
    """Run a search to its end; return its jobs with their outcomes in the sweep, in order."""
    search = Search(experiment, storage, notes(storage))
    options = {"score": growing_score, "records": Records()} | options
    jobs = drive(search, experiment.metric.name, **options)
    assert len(jobs) == len({job.number for job in jobs})
    repeats = sum(job.role == "repeat" for job in jobs)
    assert search.jobs == len(jobs) or not repeats, "the planned number of repeats is kept"
    return [(job, search.judge(job, options["records"][key(job)])) for job in jobs]


def group_by_budget(ended: list[tuple[Job, Outcome]]) -> dict[float, dict[float, float | None]]:
    """Return the score of each learning rate of the search, by share of the full budget."""
    groups: dict[float, dict[float, float | None]] = {}
    for job, outcome in ended:
        if job.role == "search":
            (score,) = (row.get("probe/pos/accuracy") for row in outcome.rows)
            rates = groups.setdefault(job.trial.budget.amount / AMOUNT, {})
            rates[job.trial.optim.lr] = score
    return groups


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("slots", "chance"), [(1, 0), (3, 1), (16, 2)])
def test_settings_with_the_best_scores_of_a_budget_continue_with_the_next_one(
    storage: Storage, schedule: str, slots: int, chance: int
) -> None:
    """Also where the order of the settings differs between budgets."""
    experiment = halving_experiment(schedule)
    ended = simulate_halving(experiment, storage, score=shuffled_score, slots=slots, chance=chance)
    groups = group_by_budget(ended)
    assert {share: len(scores) for share, scores in groups.items()} == {0.25: 8, 0.5: 4, 1.0: 2}
    for share, continued in ((0.25, 4), (0.5, 2)):
        scores = groups[share]
        best = sorted(scores, key=lambda rate: -(scores[rate] or 0))[:continued]
        assert set(best) == set(groups[2 * share])
    best = max(groups[1.0], key=lambda rate: groups[1.0][rate] or 0)
    repeats = [job.trial for job, _ in ended if job.role == "repeat"]
    assert [(trial.optim.lr, trial.budget.amount) for trial in repeats] == [(best, AMOUNT)] * 2


def test_trials_of_a_setting_differ_in_their_budget_only(storage: Storage) -> None:
    """So that they share a trunk, also where the learning rate is a trend of the tokens."""
    experiment = halving_experiment(tune={"optim.hidden_lr": Range(low=1, high=8)})
    rate = {"rate": 1e-3, "tokens": {"at": 1e6, "exponent": -0.5}}
    optim = {"kind": "muon", "lr": rate}
    experiment = replace(experiment, base=experiment.base | {"optim": optim})
    ended = simulate_halving(experiment, storage)
    trials: dict[str, list[Trial]] = {}
    for job, _ in ended:
        if job.role == "search":
            trials.setdefault(str(job.tuned), []).append(job.trial)
    for of_setting in trials.values():
        assert len({trial.lineage("text") for trial in of_setting}) == 1
    assert sorted(map(len, trials.values())) == [1] * 4 + [2] * 2 + [3] * 2


def test_trials_at_rungs_have_no_score_in_the_sweep(storage: Storage) -> None:
    ended = simulate_halving(halving_experiment(), storage)
    for job, outcome in ended:
        at_rung = job.trial.budget.amount < AMOUNT
        assert (job.rung is not None) is at_rung
        assert outcome.state == ("stopped" if at_rung else "finished")
    reasons = {outcome.reason for _, outcome in ended}
    assert reasons == {
        "",
        "ended at the rung of 0.25 of the budget",
        "ended at the rung of 0.5 of the budget",
    }


def test_repeats_are_not_judged_by_rungs(storage: Storage) -> None:
    """Not even with the worst score: cells are compared by their repeats alone."""

    def unlucky(trial: Trial) -> float:
        return growing_score(trial) - (trial.seeds.init > 5)

    ended = simulate_halving(halving_experiment(), storage, score=unlucky)
    repeats = [
        (outcome.state, job.trial.budget.amount) for job, outcome in ended if job.role == "repeat"
    ]
    assert repeats == [("finished", AMOUNT)] * 2


@pytest.mark.parametrize("sign", [1, -1])
def test_halving_follows_the_direction_of_the_metric(storage: Storage, sign: int) -> None:
    metric = METRICS["detect/bigram/auroc" if sign > 0 else "detect/bigram/calibrated_loss"]
    ended = simulate_halving(
        halving_experiment(metric=metric), storage, score=lambda t: sign * growing_score(t)
    )
    best = max((job for job, _ in ended if job.role == "search"), key=lambda j: bowl(j.trial))
    repeats = [job.tuned for job, _ in ended if job.role == "repeat"]
    assert repeats == [best.tuned] * 2


@IN_DATABASE
def test_point_of_the_study_has_the_scores_of_its_rungs(storage: Storage) -> None:
    """A point that has not passed all rungs is pruned; its value is not that of a full budget."""
    groups = group_by_budget(simulate_halving(halving_experiment(), storage))
    (trials,) = studies(storage)
    assert len(trials) == 8
    for trial in trials:
        rate = trial.params["optim.lr"]
        scores = [of_budget[rate] for of_budget in groups.values() if rate in of_budget]
        assert trial.intermediate_values == dict(enumerate(scores, 1))
        complete = rate in groups[1.0]
        assert trial.state == (TrialState.COMPLETE if complete else TrialState.PRUNED)
        assert trial.user_attrs["state"] == ("finished" if complete else "stopped")
        assert trial.value == scores[-1]


def test_diverged_trial_is_pruned_without_a_value_under_halving(storage: Storage) -> None:
    def fragile(trial: Trial) -> float | None:
        return None if trial.budget.amount > AMOUNT / 4 else growing_score(trial)

    ended = simulate_halving(halving_experiment(), storage, score=fragile)
    assert [job.rung for job, _ in ended] == [0.25] * 8 + [0.5] * 4
    (trials,) = studies(storage)
    lost = [trial for trial in trials if trial.user_attrs.get("state") == "diverged"]
    assert [(trial.state, trial.value) for trial in lost] == [(TrialState.PRUNED, None)] * 4


def test_no_trial_has_a_smaller_budget_without_halving(storage: Storage) -> None:
    experiment = halving_experiment(search=SearchConfig(trials=8, seeds=2))
    ended = simulate_halving(experiment, storage)
    assert {job.trial.budget.amount for job, _ in ended} == {AMOUNT}
    (trials,) = studies(storage)
    assert not any(trial.intermediate_values for trial in trials)


def test_halving_compares_trials_within_their_cell_only(storage: Storage) -> None:
    """Trials of a cell with worse scores continue too."""

    def uneven(trial: Trial) -> float:
        assert isinstance(trial.objective, ElectraConfig)
        return growing_score(trial) - (trial.objective.generator.width == 0.25)

    experiment = halving_experiment(compare={WIDTH: (0.25, 0.5)})
    ended = simulate_halving(experiment, storage, score=uneven)
    done = Counter((job.cell[WIDTH], job.rung) for job, _ in ended)
    of_cell = {0.25: 8, 0.5: 4, None: 2 + 2}  # with two repeats
    assert done == {(cell, rung): n for cell in (0.25, 0.5) for rung, n in of_cell.items()}


@pytest.mark.parametrize(("slots", "chance"), [(1, 1), (3, 2), (16, 3), (40, 4)])
def test_settings_that_continue_do_not_depend_on_the_order_of_ends(
    tmp_path: Path, slots: int, chance: int
) -> None:
    budgets = []
    for number, options in enumerate(({}, {"slots": slots, "chance": chance})):
        ended = simulate_halving(
            halving_experiment(), Memory(tmp_path / str(number)), score=shuffled_score, **options
        )
        budgets.append(group_by_budget(ended))
    assert budgets[0] == budgets[1]


def test_lost_study_with_halving_is_rebuilt_from_the_notes(storage: Storage) -> None:
    experiment, records = halving_experiment(), Records()
    simulate_halving(experiment, storage, records=records, score=shuffled_score)
    (before,) = studies(storage)
    storage = lose_study(storage)
    simulate_halving(experiment, storage, records=records, score=not_trained_again)
    (after,) = studies(storage)

    def points_of(trials: list[FrozenTrial]) -> list[object]:
        return sorted(
            (t.user_attrs["index"], str((t.params, t.value, t.state, t.intermediate_values)))
            for t in trials
        )

    assert points_of(after) == points_of(before)


def not_trained_again(trial: Trial) -> float:
    pytest.fail(f"a trial on record was run again: {trial}")


def lose_study(storage: Storage) -> Storage:
    """Return an empty storage with the same notes."""
    return Memory(notes(storage).parent)


def cut_line(storage: Storage) -> Storage:
    """Lose the study, and leave an incomplete line in the notes, as a killed process does."""
    for file in notes(storage).iterdir():
        with file.open("a") as opened:
            opened.write('\n[3, {"optim.l')
    return lose_study(storage)


def keep_study(storage: Storage) -> Storage:
    return storage


@pytest.mark.parametrize("lose", [keep_study, lose_study, cut_line])
@pytest.mark.parametrize("events", [10, 20, 27])
def test_killed_search_with_halving_continues_and_runs_no_trial_again(
    storage: Storage, tmp_path: Path, events: int, lose: Callable[[Storage], Storage]
) -> None:
    """Not even without its study or with incomplete notes."""
    experiment, records = halving_experiment(), Records()
    with pytest.raises(Killed):
        simulate_halving(
            experiment, storage, records=records, events=events, slots=3, score=shuffled_score
        )
    known = dict(records)
    storage = lose(storage)
    ended = simulate_halving(experiment, storage, records=records, score=shuffled_score)
    assert {name: records[name] for name in known} == known
    assert len(records) == len(ended) == 8 + 4 + 2 + 2
    whole = simulate_halving(experiment, Memory(tmp_path / "whole"), score=shuffled_score)
    assert group_by_budget(ended) == group_by_budget(whole)
    simulate_halving(experiment, lose(storage), records=records, score=not_trained_again)


def test_no_setting_continues_past_a_rung_until_a_failed_trial_was_retried(
    storage: Storage,
) -> None:
    experiment = halving_experiment()
    first = Search(experiment, storage, notes(storage))
    jobs = [job for job in iter(first.ask, None) if job is not None]
    assert len(jobs) == 8
    name = experiment.metric.name
    first.tell(jobs[3], replace(outcome("", None), state="failed"))
    for job in jobs[:3] + jobs[4:]:
        first.tell(job, outcome(name, growing_score(job.trial)))
    assert first.ask() is None
    assert first.done
    again = Search(experiment, storage, notes(storage))
    for job in iter(again.ask, None):
        assert job is not None
        if job.rung != 0.25:
            break
        again.tell(job, outcome(name, growing_score(job.trial)))
    assert job is not None
    assert job.rung == 0.5


def test_diverged_trials_do_not_continue_past_a_rung(storage: Storage) -> None:
    experiment = halving_experiment()
    search = Search(experiment, storage, notes(storage))
    jobs = [job for job in iter(search.ask, None) if job is not None]
    for job in jobs:
        lost = job.number % 4 > 0
        search.tell(job, outcome(experiment.metric.name, None if lost else 0.5))
    continued = [job.tuned for job in iter(search.ask, None) if job is not None]
    assert continued == [jobs[0].tuned, jobs[4].tuned]
