"""The parts of a trunk are trained one after another, each once, before their trials."""

from dataclasses import replace
from pathlib import Path

import pytest
from experiments import BASE

from lab.config.experiment import Job
from lab.config.metrics import METRICS
from lab.config.results import Outcome, State
from lab.config.schedules.trunks import branch_points
from lab.config.trial import Trial
from lab.execution.preparatory_queue import FailedRun, PreparatoryQueue
from lab.loading.search_space import build_trial
from lab.storage import record
from lab.trials.assignment import Assignment

BUDGETS = (1e12, 2e12, 4e12)
TRUNK = BASE | {"schedule": {"kind": "trunk", "warmup": 1e11}}


def job(amount: float, seed: int = 0) -> Job:
    trial = build_trial(TRUNK, {"budget.amount": amount, "seeds.init": seed})
    return Job(number=0, role="repeat", cell={}, tuned={}, repeat=1, trial=trial)


class FakeDriver:
    """Driver with a queue; a run ends when `end` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, set[Path]()
        self.ended: dict[Path, Outcome] = {}
        self.finished_jobs: list[Job] = []
        points = branch_points(job(amount).trial for amount in BUDGETS)
        self.queue = PreparatoryQueue(
            self.assign,
            self.ended.get,
            self.running,
            {"search": points[-1:], "repeat": points},
            self.finished_jobs.__contains__,
        )

    def assign(self, run: Trial) -> Assignment:
        return Assignment(
            trial=run,
            folder=self.folder / run.fingerprint("inputs"),
            text=self.folder,
            held_out=self.folder,
            pairs=None,
            metric=METRICS["detect/bigram/auroc"],
        )

    def start(self) -> list[Assignment]:
        """Start all runs that can start now."""
        started = []
        while (run := self.queue.next_run()) is not None:
            self.running.add(run.folder)
            started.append(run)
        return started

    def end(self, run: Assignment, state: State = "finished", flops: float = 1.0) -> None:
        self.running.discard(run.folder)
        run.folder.mkdir(exist_ok=True)
        row = {"spent/flops": 10.0, "spent/marginal_flops": flops}
        self.ended[run.folder] = Outcome(
            state=state, reason="why", rows=(row,), started_at=0, seconds=2, busy=1
        )


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver(tmp_path)


def amounts(runs: list[Assignment]) -> list[float]:
    return [run.trial.budget.amount for run in runs]


@pytest.mark.parametrize("order", [BUDGETS, BUDGETS[::-1]], ids=["ascending", "descending"])
def test_parts_follow_one_another_and_each_is_run_once_for_all_budgets(
    driver: FakeDriver, order: tuple[float, ...]
) -> None:
    jobs = [job(amount) for amount in order]
    assert all(driver.queue.hold_if_unready(each) for each in jobs)
    done = []
    for amount in BUDGETS:
        (run,) = driver.start()
        assert run.trial.budget.amount == pytest.approx(0.8 * amount)
        assert driver.queue.pop_ready() is None
        driver.end(run)
        ready = driver.queue.pop_ready()
        assert ready is not None
        assert ready.trial.budget.amount == amount
        done.append(ready)
    assert sorted(map(id, done)) == sorted(map(id, jobs))
    assert driver.start() == []


def test_trunk_is_divided_only_where_trials_of_jobs_of_its_role_branch_from_it(
    driver: FakeDriver,
) -> None:
    assert driver.queue.hold_if_unready(replace(job(4e12), role="search"))
    assert amounts(driver.start()) == pytest.approx([3.2e12])


def test_trunks_of_several_seeds_run_at_the_same_time(driver: FakeDriver) -> None:
    for seed in range(3):
        for amount in BUDGETS:
            assert driver.queue.hold_if_unready(job(amount, seed))
    assert amounts(driver.start()) == pytest.approx([8e11] * 3)


def test_part_that_finished_before_is_continued_although_a_shorter_one_is_missing(
    driver: FakeDriver,
) -> None:
    """The comparison has got a smaller budget after its first run."""
    longer = driver.assign(job(2e12).trial.trunk or pytest.fail("no trunk"))
    driver.end(longer)
    assert not driver.queue.hold_if_unready(job(2e12))
    assert driver.queue.hold_if_unready(job(4e12))
    assert amounts(driver.start()) == pytest.approx([3.2e12])
    assert driver.queue.hold_if_unready(job(1e12))
    assert amounts(driver.start()) == pytest.approx([8e11])


def test_diverged_part_ends_the_longer_budgets_of_its_trunk_and_no_others(
    driver: FakeDriver,
) -> None:
    jobs = [job(amount) for amount in BUDGETS]
    assert all(driver.queue.hold_if_unready(each) for each in jobs)
    driver.end(*driver.start())
    (second,) = driver.start()
    driver.end(second, "diverged")
    assert driver.start() == []
    assert [driver.queue.pop_ready() for _ in range(4)] == [*jobs, None]
    failed = FailedRun(second.folder.name, "diverged", "why")
    assert [driver.queue.failed_run(each) for each in jobs] == [None, failed, failed]


def test_trial_that_has_ended_needs_no_trunk(driver: FakeDriver) -> None:
    ended = job(2e12)
    driver.finished_jobs.append(ended)
    assert not driver.queue.hold_if_unready(ended)
    assert driver.queue.failed_run(ended) is None
    assert driver.start() == []


def test_compute_of_parts_for_which_no_trial_is_charged_is_counted(
    driver: FakeDriver,
) -> None:
    assert driver.queue.hold_if_unready(job(2e12))
    (first,) = driver.start()
    driver.end(first, flops=3.0)
    (second,) = driver.start()
    driver.end(second, flops=4.0)
    assert driver.queue.pop_ready() is not None
    assert driver.queue.flops == 7.0
    record.write_charged(first.folder, "trial")
    assert driver.queue.flops == 4.0
    assert driver.queue.measures() == {
        "trunk_runs": 2,
        "trunk_flops": 7.0,
        "trunk_slot_seconds": 4,
        "trunk_uncharged_flops": 4.0,
    }


def test_trial_without_a_trunk_does_not_wait(driver: FakeDriver) -> None:
    trial = build_trial(BASE, {})
    assert not driver.queue.hold_if_unready(replace(job(1e12), trial=trial))
