"""The search, simulated: a made-up objective, slots that end in any order, and a real Optuna."""

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

from lab import design, space, spec
from lab.metrics import METRICS
from lab.search import Search
from lab.spec import Choices, Job, Outcome, Range, content_hash

WIDTH = "objective.generator.width"
LR = Range(low=1e-4, high=1e-2, log=True)
JOINT: dict[str, spec.Distribution] = {
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


def experiment(*, search: spec.Search, **changes: object) -> spec.Experiment:
    asked = spec.Experiment(
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
        resources=spec.Resources(),
    )
    return replace(asked, **changes)


def bowl(trial: spec.Trial) -> float:
    """Best at a rate that depends on the cell; seeds add a little."""
    assert isinstance(trial.objective, spec.Electra)
    best = 2e-3 * trial.objective.generator.width
    return 0.9 - abs(math.log(trial.optim.lr / best)) / 20 + trial.seeds.init / 1_000


def outcome(metric: str, score: float | None) -> Outcome:
    state: spec.State = "diverged" if score is None else "finished"
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


def simulate(asked: spec.Experiment, storage: str, **how: object) -> list[Job]:
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


@pytest.mark.parametrize("slots", [1, 16])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_cell_gets_its_searches_and_then_its_repeats(
    storage: str, sampler: str, slots: int
) -> None:
    asked = experiment(search=spec.Search(sampler=sampler, trials=6, seeds=2))
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

    asked = experiment(search=spec.Search(sampler=sampler, trials=7), compare={})
    jobs = searched(simulate(asked, storage, score=fragile))
    (trials,) = studies(storage)
    assert [trial.value for trial in trials] == [fragile(job.trial) for job in jobs]
    states = {True: TrialState.PRUNED, False: TrialState.COMPLETE}
    assert [trial.state for trial in trials] == [states[trial.value is None] for trial in trials]
    assert {trial.state for trial in trials} == set(states.values())


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_learning_sampler_survives_a_start_without_any_score(storage: str, sampler: str) -> None:
    asked = experiment(search=spec.Search(sampler=sampler, trials=8), compare={})
    scores = count()
    jobs = simulate(
        asked, storage, score=lambda trial: None if next(scores) < 6 else bowl(trial), slots=5
    )
    assert len(jobs) == 9


def test_learning_sampler_learns_from_what_diverged(storage: str) -> None:
    asked = experiment(search=spec.Search(sampler="tpe", trials=30), compare={WIDTH: (0.5,)})

    def cliff(trial: spec.Trial) -> float | None:
        return None if trial.optim.lr > 5e-4 else bowl(trial)

    tried = [job.trial for job in simulate(asked, storage, score=cliff) if job.role == "search"]
    lost = [cliff(trial) is None for trial in tried]
    assert sum(lost[15:]) < sum(lost[:15])


def test_learning_sampler_learns(storage: str) -> None:
    asked = experiment(search=spec.Search(sampler="tpe", trials=20), compare={WIDTH: (0.5,)})
    found = [bowl(job.trial) for job in simulate(asked, storage) if job.role == "search"]
    assert sum(found[10:]) > sum(found[:10])


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_score_that_is_no_number_is_a_failure(storage: str, score: float) -> None:
    asked = experiment(search=spec.Search(trials=3), compare={})
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
        search=spec.Search(trials=6, seeds=3),
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
    asked = experiment(search=spec.Search(trials=4, seeds=3))
    jobs = simulate(asked, storage)
    searched = {job.trial.seeds for job in jobs if job.role == "search"}
    repeated = [job.trial.seeds for job in jobs if job.role == "repeat"]
    assert searched == {spec.Seeds(init=5, order=6, mask=7)}
    for part in ("init", "order", "mask"):
        used = {getattr(seeds, part) for seeds in searched}
        assert not used & {getattr(seeds, part) for seeds in repeated}


def test_the_same_repeat_has_the_same_seeds_in_all_cells(storage: str) -> None:
    """Common random numbers, so that differences can be taken within repeats."""
    asked = experiment(search=spec.Search(trials=2, seeds=4), compare={WIDTH: (0.25, 0.5, 1.0)})
    jobs = [job for job in simulate(asked, storage, slots=4) if job.role == "repeat"]
    seeds = {job.repeat: set[spec.Seeds]() for job in jobs}
    for job in jobs:
        seeds[job.repeat].add(job.trial.seeds)
    assert sorted(seeds) == [1, 2, 3, 4]
    assert all(len(group) == 1 for group in seeds.values())
    assert len(set.union(*seeds.values())) == 4


def test_nothing_tuned_means_repeats_only_and_no_study(storage: str) -> None:
    asked = experiment(search=spec.Search(seeds=3), tune={})
    jobs = simulate(asked, storage, slots=2)
    assert [job.role for job in jobs] == ["repeat"] * 6
    assert all(job.tuned == {} for job in jobs)
    assert studies(storage) == []


def test_nothing_compared_is_one_cell(storage: str) -> None:
    jobs = simulate(experiment(search=spec.Search(trials=3, seeds=2), compare={}), storage)
    assert [job.role for job in jobs] == ["search"] * 3 + ["repeat"] * 2


def test_cell_where_all_failed_has_no_repeats_and_the_search_ends(storage: str) -> None:
    def doomed(trial: spec.Trial) -> float | None:
        assert isinstance(trial.objective, spec.Electra)
        return None if trial.objective.generator.width == 0.25 else bowl(trial)

    asked = experiment(search=spec.Search(trials=3, seeds=2))
    roles = Counter((job.cell[WIDTH], job.role) for job in simulate(asked, storage, score=doomed))
    assert roles == {(0.25, "search"): 3, (0.5, "search"): 3, (0.5, "repeat"): 2}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_values_of_a_joint_space_are_valid_trials(storage: str, sampler: str) -> None:
    asked = experiment(search=spec.Search(sampler=sampler, trials=18), compare={}, tune=JOINT)
    jobs = simulate(asked, storage, slots=2)
    for job in jobs:
        again = space.trial(asked.base, job.cell | job.tuned)
        assert replace(again, seeds=job.trial.seeds) == job.trial
        assert set(job.tuned) == set(JOINT)
    stored = [trial.params for trials in studies(storage) for trial in trials]
    assert stored == [job.tuned for job in jobs if job.role == "search"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_choices_may_be_mappings(storage: str, sampler: str) -> None:
    choices = ({"width": 0.25, "depth": 1.0}, {"width": 0.5, "depth": 0.5})
    asked = experiment(
        search=spec.Search(sampler=sampler, trials=6),
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
    asked = experiment(search=spec.Search(sampler=sampler, trials=5, seeds=2))
    runs = []
    for chance, slots in ((0, 1), (1, 2), (2, 5), (3, 40)):
        file = tmp_path / f"{chance}.db"
        shutil.copy(empty, file)
        jobs = simulate(asked, f"sqlite:///{file}", chance=chance, slots=slots)
        runs.append({job.number: job for job in jobs})
    assert all(run == runs[0] for run in runs)


# After a kill.


def finished(before: list[Outcome], asked: spec.Experiment, storage: str, **how: object) -> None:
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
    assert states[TrialState.COMPLETE] == asked.search.trials * len(space.cells(asked))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("events", [4, 9, 13])
def test_killed_driver_is_continued(storage: str, sampler: str, events: int) -> None:
    asked = experiment(search=spec.Search(sampler=sampler, trials=6, seeds=2))
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
        search=spec.Search(sampler=sampler, trials=2 if sampler == "qmc" else 5), compare={}
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
    asked = experiment(search=spec.Search(sampler="tpe", trials=8, seeds=2))
    records: Records = {}
    first = simulate(asked, storage, records=records, slots=3)
    held = studies(storage)
    again = simulate(asked, storage, records=records, slots=3)
    assert sorted(again, key=lambda job: job.number) == sorted(first, key=lambda job: job.number)
    assert [len(trials) for trials in studies(storage)] == [len(trials) for trials in held]


def test_failed_point_may_run_again_with_the_same_values(storage: str) -> None:
    asked = experiment(search=spec.Search(trials=3), compare={})
    first = simulate(asked, storage, score=lambda _: None)
    again = simulate(asked, storage, score=bowl)  # without records, as for `failed`
    assert [job.tuned for job in again[:3]] == [job.tuned for job in first]
    assert [job.role for job in again] == ["search"] * 3 + ["repeat"]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp"])
def test_more_trials_continue_the_study(storage: str, sampler: str) -> None:
    records: Records = {}
    jobs: list[list[Job]] = []
    for trials in (5, 9):
        asked = experiment(search=spec.Search(sampler=sampler, trials=trials))
        jobs.append(searched(simulate(asked, storage, records=records)))
    fewer, more = ([(str(job.cell), str(job.tuned)) for job in found] for found in jobs)
    assert more[: len(fewer)] == fewer
    assert [len(trials) for trials in studies(storage)] == [9, 9]


def test_larger_grid_is_the_whole_larger_grid(storage: str) -> None:
    for trials in (3, 5):
        asked = experiment(search=spec.Search(sampler="grid", trials=trials), compare={})
        points = [job.tuned for job in searched(simulate(asked, storage))]
        assert points == design.grid(asked.tune, trials)


def test_other_questions_share_no_study(storage: str) -> None:
    """A study is known by what its scores depend on, and a name holds many."""
    first = experiment(search=spec.Search(trials=2), compare={})
    changed = [
        first,
        replace(first, metric=METRICS["probe/pos/accuracy"]),
        replace(first, base=first.base | {"batch": 64}),
        replace(first, tune={"optim.lr": Range(low=1e-3, high=1e-2, log=True)}),
        replace(first, search=spec.Search(trials=2, seed=1)),
    ]
    for asked in changed:
        simulate(asked, storage)
    assert [len(trials) for trials in studies(storage)] == [2] * len(changed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lost_study_is_rebuilt_from_the_notes(storage: str, empty: Path, sampler: str) -> None:
    asked = experiment(search=spec.Search(sampler=sampler, trials=9, seeds=1), compare={})
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
