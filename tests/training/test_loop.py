"""The training loop: budgets, reproducibility and bitwise resumption."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget, Spent
from lab.config.data import DataConfig
from lab.config.flops import step_cost
from lab.config.objectives.electra import ElectraConfig
from lab.config.optimizer import AdamConfig
from lab.config.schedules.learning_rate import Schedule
from lab.config.trial import Seeds, Trial
from lab.data.batches import Batch, Batches
from lab.data.vocabulary import CLS, FIRST_WORD, SEP
from lab.training import optimizer
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective
from lab.training.objectives.base import Objective

VOCAB, LENGTH = 40, 12
TRIAL = Trial(
    encoder=EncoderConfig(
        layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0.1, norm="pre"
    ),
    objective=ElectraConfig(kind="electra"),
    data=DataConfig(vocab=VOCAB, length=LENGTH),
    batch=4,
    budget=Budget(kind="tokens", amount=10 * 4 * LENGTH),
    seeds=Seeds(init=1, order=2, mask=3),
)
COST = step_cost(TRIAL)


def windows() -> Any:
    words_NT = np.random.default_rng(0).integers(FIRST_WORD, VOCAB, (30, LENGTH))
    words_NT[:, 0], words_NT[:, -1] = CLS, SEP
    return words_NT.astype(np.uint16)


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock on which each step takes `seconds`; the loop reads it twice per step."""
    ticks = iter(np.arange(1e6) * seconds)
    return lambda: float(next(ticks))


class Recorded(Batches):
    """Batches that record the start and the examples of each request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requests: list[tuple[int, list[int]]] = []

    def between(self, start: int, end: int) -> Batch:
        batch = super().between(start, end)
        self.requests.append((start, batch.example_B.tolist()))
        return batch


class Run:
    """The objective, optimizer and batches of a trial, and the steps that train them."""

    def __init__(self, trial: Trial = TRIAL, second: float = 1.0) -> None:
        self.trial = trial
        self.objective: Objective = build_objective(trial, torch.ones(VOCAB))
        self.optimizer = optimizer.build_optimizer(self.objective, trial.optim)
        self.batches = Recorded(windows(), trial.seeds.order)
        self.rates: list[list[float]] = []
        self._second = second

    def steps(self, spent: Spent = Spent()) -> Iterator[CompletedStep]:  # noqa: B008 - frozen
        gradients = Gradients(self.objective, {LENGTH: self.batches}, self.trial)
        clock = ticking(self._second)
        for step in train_steps(
            gradients, self.optimizer, trial=self.trial, clock=clock, spent=spent
        ):
            self.rates.append([group["lr"] for group in self.optimizer.param_groups])
            yield step

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.objective.parameters()]


def losses(steps: list[CompletedStep]) -> list[dict[str, float]]:
    return [{name: value.item() for name, value in step.parts.items()} for step in steps]


@pytest.mark.parametrize("share", [0.6, 1.0, 1.4, 2.6, 3.49, 3.51, 7.0])
@pytest.mark.parametrize("kind", ["flops", "tokens"])
def test_budget_of_flops_or_tokens_is_met_within_half_a_step(kind: Any, share: float) -> None:
    one = getattr(COST, kind)
    trial = replace(TRIAL, budget=Budget(kind=kind, amount=one * share))
    *_, last = Run(trial).steps()
    assert abs(getattr(last.spent, kind) - one * share) <= one / 2
    assert last.spent.steps == trial.budget.steps(COST)
    assert last.spent.tokens == last.spent.steps * COST.tokens
    assert last.spent.paper_flops == last.spent.steps * COST.paper_flops
    assert last.progress <= 1


@pytest.mark.parametrize("share", [0.4, 1.0, 2.5, 3.9, 6.0])
def test_budget_of_seconds_is_met_within_half_a_step(share: float) -> None:
    trial = replace(TRIAL, budget=Budget(kind="seconds", amount=0.25 * share))
    *_, last = Run(trial, second=0.25).steps()
    # The first step always runs: its duration is unknown before.
    assert last.spent.steps == 1 or abs(last.spent.seconds - trial.budget.amount) <= 0.125
    assert last.last


def test_seconds_exclude_the_time_between_steps() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    run = Run()
    gradients = Gradients(run.objective, {LENGTH: run.batches}, TRIAL)
    for step in train_steps(gradients, run.optimizer, trial=TRIAL, clock=clock):
        now[0] += 100  # as for scoring, saving and reporting
        assert step.spent.seconds == pytest.approx(0.5 * step.spent.steps)


def test_step_reports_progress_and_spent_resources() -> None:
    steps = list(Run().steps())
    assert [step.spent.steps for step in steps] == list(range(1, 11))
    assert [step.progress for step in steps] == pytest.approx([n / 10 for n in range(1, 11)])
    for step in steps:
        assert not any(value.requires_grad or value.ndim for value in step.parts.values())
        assert {"train/loss", "health/grad_norm_generator"} <= set(step.parts)


@pytest.mark.parametrize("kind", ["linear", "cosine", "stable", "constant"])
def test_learning_rates_follow_the_schedule_at_the_progress_before_the_step(kind: Any) -> None:
    schedule = Schedule(kind=kind, warmup=0.25)
    settings = AdamConfig(generator_lr=0.5)
    run = Run(replace(TRIAL, schedule=schedule, optim=settings))
    list(run.steps())
    peaks = [settings.lr, settings.lr, settings.lr / 2, settings.lr / 2]
    for n, rates in enumerate(run.rates):
        assert rates == pytest.approx([peak * schedule(n / 10) for peak in peaks])


def test_run_requests_each_batch_once_and_in_order() -> None:
    run = Run()
    list(run.steps())
    assert [start for start, _ in run.batches.requests] == list(range(0, 40, 4))


@pytest.mark.parametrize("kind", ["tokens", "flops", "seconds"])
def test_resumed_run_is_bitwise_equal_to_an_uninterrupted_run(kind: Any) -> None:
    amount = {"tokens": COST.tokens, "flops": COST.flops, "seconds": 1.0}[kind] * 10.0
    trial = replace(TRIAL, budget=Budget(kind=kind, amount=amount))
    whole, parts = Run(trial), Run(trial)
    expected = list(whole.steps())
    actual = list(islice(parts.steps(), 4))
    torch.manual_seed(123)  # as a new process or scoring would change torch's generator
    torch.rand(50)
    actual += list(parts.steps(actual[-1].spent))
    assert [step.spent for step in actual] == [step.spent for step in expected]
    assert losses(actual) == losses(expected)
    assert parts.batches.requests == whole.batches.requests
    assert parts.rates == whole.rates
    assert all(a.equal(b) for a, b in zip(whole.weights(), parts.weights(), strict=True))


def test_run_resumes_in_new_objects_with_loaded_states() -> None:
    whole, first, second = Run(), Run(), Run(replace(TRIAL, seeds=Seeds(order=2, mask=3)))
    list(whole.steps())
    *_, stopped = islice(first.steps(), 4)
    second.objective.load_state_dict(first.objective.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    list(second.steps(stopped.spent))
    assert all(a.equal(b) for a, b in zip(whole.weights(), second.weights(), strict=True))


def test_run_does_not_depend_on_global_random_state() -> None:
    first = Run()
    expected = losses(list(first.steps()))
    torch.manual_seed(7)
    np.random.default_rng().random(5)
    second = Run()
    actual = []
    for step in second.steps():
        torch.rand(3)
        actual.append(step)
    assert losses(actual) == expected
    assert all(a.equal(b) for a, b in zip(first.weights(), second.weights(), strict=True))


def test_dropout_changes_the_losses() -> None:
    with_dropout = losses(list(Run().steps()))
    without = Run(replace(TRIAL, encoder=replace(TRIAL.encoder, dropout=0)))
    assert losses(list(without.steps())) != with_dropout


@pytest.mark.parametrize("seed", ["init", "order", "mask"])
def test_each_seed_changes_the_first_step(seed: str) -> None:
    other = replace(TRIAL, seeds=replace(TRIAL.seeds, **{seed: 50}))
    assert losses(list(islice(Run(other).steps(), 1))) != losses(list(islice(Run().steps(), 1)))


def test_used_up_budget_yields_no_step() -> None:
    *_, last = Run().steps()
    assert list(Run().steps(last.spent)) == []
