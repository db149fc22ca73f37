"""One trial, top to bottom, in this process."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path as File

import torch

from lab import corruption, data, optim, record, scores
from lab.budget import Spent
from lab.objectives import Objective, build
from lab.spec import Outcome, Row, State, Trial
from lab.tasks import Task
from lab.train import Step, train


class DivergedError(ArithmeticError):
    """A loss or score that is no number any more."""


def run(
    trial: Trial,
    folder: File,
    *,
    text: File,
    held_out: File,
    device: str = "cpu",
    report: Callable[[Row], None] = lambda _: None,
) -> Outcome:
    """Train and score a trial, and leave its record in `folder`.

    Args:
        trial: what to run.
        folder: of the record; what a run that was cut off left there is replaced.
        text: folder of the prepared text.
        held_out: file of the frozen corruptions.
        device: where to compute.
        report: called with each scored point.

    Returns:
        How it ended. What goes wrong inside the trial is an outcome too, so that one bad
        setting never takes a sweep with it.
    """
    began, entered = time.time(), time.perf_counter()
    state: State = "finished"
    reason, busy = "", 0.0
    record.begin(folder, trial)
    rows: list[Row] = []
    try:
        yardstick = _Yardstick(text, held_out, device)
        ready = time.perf_counter()
        for row in _points(trial, yardstick):
            if (name := record.not_finite(row)) is not None:
                raise DivergedError(f"{name} is not finite at step {row['spent/steps']:.0f}")
            record.append(folder, row)
            rows.append(row)
            report(row)
            busy = time.perf_counter() - ready
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except Exception as error:  # any other ending is the record's to tell
        state, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
    outcome = Outcome(
        state=state,
        reason=reason,
        rows=tuple(rows),
        began=began,
        seconds=time.perf_counter() - entered,
        busy=busy,
    )
    record.end(folder, outcome)
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


def _points(trial: Trial, yardstick: _Yardstick) -> Iterator[Row]:
    """Train, and yield the untrained encoder, `curve` - 1 points on the way, and the end."""
    corpus = yardstick.corpus
    objective = build(trial, torch.from_numpy(corpus.counts_V())).to(yardstick.device)
    optimizer = optim.build(objective, trial.optim)
    batches = data.Batches(corpus.train_NT, trial.batch, trial.seeds.order)
    yield _spent(Spent()) | yardstick.ends(objective)

    due, since = 1, _Means()
    for step in train(objective, batches, optimizer, trial=trial, clock=time.perf_counter):
        since.add(step)
        if step.last:
            yield _spent(step.spent) | since.take() | yardstick.ends(objective)
        elif step.progress >= due / trial.curve:
            yield _spent(step.spent) | since.take() | yardstick.on_the_way(objective)
            due = int(step.progress * trial.curve) + 1


class _Means:
    """Means of the steps' losses and health since the last scored point.

    Each over the steps that have it: where networks take turns, not every step has all.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps: Counter[str] = Counter()

    def add(self, step: Step) -> None:
        """Count a step in; sums stay on the device, so no step waits for one."""
        for name, value in step.parts.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._steps.update(step.parts.keys())

    def take(self) -> Row:
        """Return the means and start anew."""
        means = {name: (value / self._steps[name]).item() for name, value in self._sums.items()}
        self._sums, self._steps = {}, Counter()
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
