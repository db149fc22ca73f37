"""One trial, top to bottom, in this process."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path as File

import torch

from lab import corruption, data, optim, record, scores
from lab.budget import Spent
from lab.checkpoint import Checkpoints, Place
from lab.objectives import Objective, build
from lab.spec import Outcome, Row, State
from lab.tasks import Task
from lab.train import Step, train
from lab.work import Work

_EVERY = 300.0  # seconds between checkpoints where no point is scored


class DivergedError(ArithmeticError):
    """A loss or score that is no number any more."""


class StoppedError(Exception):
    """Somebody asked the trial to stop; its state is saved."""


def run(
    work: Work,
    *,
    device: str = "cpu",
    report: Callable[[Row], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train and score a trial, or go on with it, and leave its record.

    A run that was cut off goes on from its newest checkpoint, bitwise as if it had never
    stopped, or from its start where there is none.

    Args:
        work: what to run, and where from and where to.
        device: where to compute.
        report: called with each scored point.
        stop: asked after each step; true ends the run once its state is saved.

    Returns:
        How it ended. What goes wrong inside the trial is an outcome too, so that one bad
        setting never takes a sweep with it.
    """
    began, entered = time.time(), time.perf_counter()
    state: State = "finished"
    reason, busy = "", 0.0
    rows: list[Row] = []
    earlier = record.read(work.folder)
    record.begin(work.folder, work.trial)
    try:
        training = _Training(work, _Yardstick(work.text, work.held_out, device))
        rows += record.keep(work.folder, training.rows)
        ready = time.perf_counter()
        for row in training.points(stop):
            if (name := record.not_finite(row)) is not None:
                raise DivergedError(f"{name} is not finite at step {row['spent/steps']:.0f}")
            record.append(work.folder, row)
            rows.append(row)
            report(row)
            busy = time.perf_counter() - ready
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except StoppedError as error:
        state, reason = "interrupted", str(error)
    except Exception as error:  # any other ending is the record's to tell
        state, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
    outcome = Outcome(
        state=state,
        reason=reason,
        rows=tuple(rows),
        began=began,
        seconds=time.perf_counter() - entered + (earlier.seconds if earlier else 0.0),
        busy=busy + (earlier.busy if earlier else 0.0),
    )
    record.end(work.folder, outcome)
    return outcome


class _Yardstick:
    """What a trial is measured with; read once in a process, whatever number of trials it runs."""

    def __init__(self, text: File, held_out: File, device: str) -> None:
        self.corpus = _corpus(text)
        self.held_out = _held_out(held_out)
        self.device = torch.device(device)

    def ends(self, objective: Objective) -> Row:
        """Return all scores."""
        return self.on_the_way(objective) | self._probe(objective, "sentiment")

    def on_the_way(self, objective: Objective) -> Row:
        """Return the scores that cost little and move with training (reports/LOG.md)."""
        return scores.detection(objective, self.held_out) | self._probe(objective, "pos")

    def _probe(self, objective: Objective, task: Task) -> Row:
        return scores.probing(objective, self.corpus.tokenizer, task)


class _Training:
    """A trial in the middle of its run: what moves, and how far it has come."""

    def __init__(self, work: Work, yardstick: "_Yardstick") -> None:
        trial, corpus = work.trial, yardstick.corpus
        self._trial, self._yardstick, self._metric = trial, yardstick, work.metric
        self._objective = build(trial, torch.from_numpy(corpus.counts_V())).to(yardstick.device)
        self._optimizer = optim.build(self._objective, trial.optim)
        self._batches = data.Batches(corpus.train_NT, trial.batch, trial.seeds.order)
        self._saved = Checkpoints(
            work.folder / "checkpoints", maximize=work.metric.direction == "maximize"
        )
        self._since = _Means()
        self._spent, self.rows = Spent(), 0
        self._score: float | None = None
        self._at = time.monotonic()
        known = len(record.curve(work.folder))
        place = self._saved.load(self._objective, self._optimizer, self._since.sums, rows=known)
        if place is not None:
            self._since.steps.update(place.counts)
            self._spent, self.rows, self._score = place.spent, place.rows, place.score

    def points(self, stop: Callable[[], bool]) -> Iterator[Row]:
        """Train, and yield the untrained encoder, `curve` - 1 points on the way, and the end.

        Raises:
            StoppedError: `stop` said so; the state is saved.
        """
        trial, yardstick, objective = self._trial, self._yardstick, self._objective
        if not self.rows:
            yield self._scored(_spent(Spent()) | yardstick.ends(objective))
        due = int(trial.budget.fraction(self._spent) * trial.curve) + 1
        for step in train(
            objective, self._batches, self._optimizer,
            trial=trial, clock=time.perf_counter, spent=self._spent,
        ):  # fmt: skip
            self._spent = step.spent
            self._since.add(step)
            if step.last:
                yield self._scored(
                    _spent(step.spent) | self._since.take() | yardstick.ends(objective)
                )
                self._save()
                self._saved.settle()
            elif step.progress >= due / trial.curve:
                scores = yardstick.on_the_way(objective)
                yield self._scored(_spent(step.spent) | self._since.take() | scores)
                due = int(step.progress * trial.curve) + 1
                self._save()
            elif stop():
                self._save()
                raise StoppedError(f"stopped at step {step.spent.steps}, and its state is saved")
            elif time.monotonic() - self._at > _EVERY:
                self._save()

    def _scored(self, row: Row) -> Row:
        self.rows += 1
        self._score = row.get(self._metric.name)
        return row

    def _save(self) -> None:
        place = Place(
            spent=self._spent, rows=self.rows, score=self._score, counts=dict(self._since.steps)
        )
        self._saved.save(place, self._objective, self._optimizer, self._since.sums)
        self._at = time.monotonic()


class _Means:
    """Means of the steps' losses and health since the last scored point.

    Each over the steps that have it: where networks take turns, not every step has all.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps: Counter[str] = Counter()

    def add(self, step: Step) -> None:
        """Count a step in; sums stay on the device, so no step waits for one."""
        for name, value in step.parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps.update(step.parts.keys())

    def take(self) -> Row:
        """Return the means and start anew."""
        means = {name: (value / self.steps[name]).item() for name, value in self.sums.items()}
        self.sums.clear()
        self.steps.clear()
        return means


def _spent(spent: Spent) -> Row:
    seconds = max(spent.seconds, 1e-9)
    return {
        "spent/steps": spent.steps,
        "spent/tokens": spent.tokens,
        "spent/flops": spent.flops,
        "spent/paper_flops": spent.paper_flops,
        "spent/six_n": spent.six_n,
        "spent/seconds": spent.seconds,
        "health/tokens_per_second": spent.tokens / seconds,
        "health/flops_per_second": spent.flops / seconds,
    }


_corpus = lru_cache(maxsize=2)(data.open_corpus)
_held_out = lru_cache(maxsize=2)(corruption.open_held_out)
