"""Run one trial from start to record in this process, alone or as one of several workers."""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial

import torch

from lab.config.budget import Spent
from lab.config.preparatory_runs import own_budget
from lab.config.results import MetricRow, Outcome, State
from lab.data import batches
from lab.evaluation import corruption, scores
from lab.finetuning import finetuner
from lab.finetuning import pretrained as encoders
from lab.finetuning.results import FinetuneResults, charge_finetuning
from lab.storage import provenance, record
from lab.tasks.embedded import Task
from lab.tasks.examples import Examples, open_examples
from lab.training import optimizer, weights
from lab.training.checkpoint import Checkpoints, TrainingPosition
from lab.training.distributed import SingleProcess, Workers
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective
from lab.training.objectives.base import Objective
from lab.trials import divergence, progress
from lab.trials.assignment import Assignment
from lab.trials.progress import Tell, ignore_progress

_LOG = logging.getLogger(__name__)
_SAVE_INTERVAL = 300.0  # seconds between checkpoints while no point is scored
_REQUESTED_STATES: tuple[State, ...] = ("running", "interrupted", "stopped")
_SINGLE_PROCESS = SingleProcess()


class DivergedError(ArithmeticError):
    """The training has diverged (`lab.trials.divergence`)."""


class StoppedError(Exception):
    """The trial was requested to end early; its state is saved.

    Args:
        state: final state of the trial, `interrupted` or `stopped`.
        step: number of steps so far.
        share: spent share of the budget.
    """

    def __init__(self, state: State, step: int, share: float) -> None:
        super().__init__(f"at step {step}, {share:.1%} of its budget; its state is saved")
        self.state: State = state


def run_trial(
    work: Assignment,
    *,
    device: str = "cpu",
    report: Callable[[MetricRow], None] = lambda _: None,
    wish: Callable[[], State] = lambda: "running",
    workers: Workers = _SINGLE_PROCESS,
) -> Outcome:
    """Train and score a trial, write its record, and return the outcome.

    An interrupted run continues from its newest checkpoint, and its results are bitwise those of an
    uninterrupted run. Without a checkpoint it starts from the beginning. With several workers, the
    first one calls this function and the others call `follow_trial`.

    Args:
        work: trial with its files and resources.
        device: device of the computation.
        report: function called with each scored point.
        wish: function that returns the requested state of the trial, called after each step;
            `interrupted` and `stopped` end the run once its state is saved.
        workers: process group that trains the trial.

    Returns:
        The outcome. An exception inside the trial is recorded as an outcome too, so that a trial
        that fails does not end the sweep.
    """
    began, entered = time.time(), time.perf_counter()
    state: State = "finished"
    reason, trace, busy = "", "", 0.0
    rows: list[MetricRow] = []
    earlier = record.read_last_outcome(work.folder)
    record.begin_record(work.folder, work.trial, work.lineage, work.text.name)
    tell = progress.ProgressReporter(work.folder, work.mirror)
    try:
        work.check_code()
        provenance.add_provenance(work.folder, provenance.current_provenance())
        training = _Training(work, _AllScores(work, device), workers, tell)
        rows += record.keep_rows(work.folder, training.rows)
        _LOG.info("runs on %s from evaluation %d", _device_name(device), training.rows)
        ready = time.perf_counter()
        for row in training.train(wish):
            record.append_row(work.folder, row)
            work.push_record()
            rows.append(row)
            report(row)
            busy = time.perf_counter() - ready
        for entries in training.fine_tune(wish):
            charges = charge_finetuning(rows[-1] | entries)
            rows[-1] = record.amend_last_row(work.folder, entries | charges)
            work.push_record()
            if workers.count == 1:  # all workers must report together, and the others have ended
                report(rows[-1])
            busy = time.perf_counter() - ready
        if origin := record.read_origin(work.folder):
            reason = f"continued from {origin}"
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except StoppedError as error:
        state, reason = error.state, str(error)
    except Exception as error:  # recorded as the outcome, so that the sweep continues
        state, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
        trace = traceback.format_exc().strip()
    outcome = Outcome(
        state=state,
        reason=reason,
        rows=tuple(rows),
        began=began,
        seconds=time.perf_counter() - entered + (earlier.seconds if earlier else 0.0),
        busy=busy + (earlier.busy if earlier else 0.0),
        device=_device_name(device),
        shared=0 < work.resources.gpus_per_worker < 1,
        tries=record.count_tries(work.folder),
        traceback=trace,
    )
    progress.clear_progress(work.folder)
    record.write_outcome(work.folder, outcome)
    work.push_record()
    return outcome


def follow_trial(
    work: Assignment, *, device: str, workers: Workers, report: Callable[[MetricRow], None]
) -> None:
    """Take part in the training of a trial that the first worker scores and records.

    Args:
        work: trial with its files and resources.
        device: device of the computation.
        workers: process group that trains the trial.
        report: function called at each scored point with this worker's values, without scores.
    """
    work.check_code()
    try:
        for row in _Training(work, _NoScores(work, device), workers).train(lambda: "running"):
            report(row)
    except (DivergedError, StoppedError):
        return  # the first worker records the outcome


class _NoScores:
    """The text and the device of a trial; base class that takes no scores, for other workers.

    Args:
        work: trial with its files.
        device: device of the computation.
    """

    def __init__(self, work: Assignment, device: str) -> None:
        self.corpus = _open_corpus(work.text)
        self.device = torch.device(device)

    def clock(self) -> float:
        """Return the time in seconds, after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def score_end(self, objective: Objective) -> MetricRow:  # noqa: ARG002
        """Return no scores: the first worker takes them."""
        return {}

    score_interim = score_end


class _AllScores(_NoScores):
    """The scores of a trial; the held-out text is read once in a process, for all its trials."""

    def __init__(self, work: Assignment, device: str) -> None:
        super().__init__(work, device)
        self._held_out = _open_held_out(work.held_out)

    def score_end(self, objective: Objective) -> MetricRow:
        """Return the scores of the first and the last point: all of them."""
        return self.score_interim(objective) | self._score_probe(objective, "sentiment")

    def score_interim(self, objective: Objective) -> MetricRow:
        """Return the scores of the other points: the cheap ones that change during training.

        Their cost and changes were measured in reports/LOG.md.
        """
        detection = scores.score_detection(objective, self._held_out)
        return detection | self._score_probe(objective, "pos")

    def _score_probe(self, objective: Objective, task: Task) -> MetricRow:
        return scores.score_probe(objective, self.corpus.vocabulary, task)


class _Training:
    """The training of a trial and its state: weights, optimizer, spent budget, scored points.

    The state is loaded from the newest checkpoint if there is one.

    Args:
        work: trial with its files.
        scorer: scores of the trial, with its text and device.
        workers: process group that trains the trial.
        tell: function that reports the progress.

    Attributes:
        rows: number of scored points so far.
    """

    def __init__(
        self, work: Assignment, scorer: _NoScores, workers: Workers, tell: Tell = ignore_progress
    ) -> None:
        self._tell = tell
        corpus = scorer.corpus
        trial = replace(work.trial, budget=own_budget(work.trial))
        self._trial, self._scorer, self._metric = trial, scorer, work.metric
        self._work, self._workers = work, workers
        self._objective = build_objective(trial, torch.from_numpy(corpus.counts_V)).to(
            scorer.device
        )
        self._optimizer = optimizer.build_optimizer(self._objective, trial.optim)
        self._checkpoints = Checkpoints(
            work.folder / "checkpoints", maximize=work.metric.direction == "maximize"
        )
        self._means = _Means()
        self._spent, self.rows = Spent(), 0
        self._score: float | None = None
        self._saved_at = time.monotonic()
        micro_batch_limit = None
        position = self._checkpoints.load(
            self._objective,
            self._optimizer,
            self._means.sums,
            rows=len(record.read_curve(work.folder)),
        )
        if position is not None:
            self._means.steps.update(position.counts)
            self._spent, self.rows, self._score = position.spent, position.rows, position.score
            micro_batch_limit = position.most
        elif work.start is not None:
            weights.load_weights(work.start, self._objective)
        if workers.first(self._spent.steps) != self._spent.steps:
            raise RuntimeError("the workers do not see the same checkpoints")
        self._gradients = Gradients(
            self._objective, _open_batches(work), trial, workers=workers, most=micro_batch_limit
        )
        self._settings = trial.at(0.0)

    def train(self, wish: Callable[[], State]) -> Iterator[MetricRow]:
        """Train for the remaining budget; yield the scored points.

        They are the untrained encoder, `evaluations` - 1 points during training, and the end.

        Args:
            wish: function that returns the requested state of the trial.

        Raises:
            StoppedError: `wish` returned another state than `running`; the state is saved.
            DivergedError: the training has diverged.
        """
        trial, scorer, objective = self._trial, self._scorer, self._objective
        if not self.rows:
            self._tell(progress.UNTRAINED, None)
            yield self._make_row(scorer.score_end(objective))
        next_point = int(trial.budget.fraction(self._spent) * trial.evaluations) + 1
        for step in train_steps(
            self._gradients, self._optimizer,
            trial=trial, clock=scorer.clock, spent=self._spent,
        ):  # fmt: skip
            self._spent, self._settings = step.spent, step.settings
            if not step.parts["train/loss"].isfinite():
                raise DivergedError(f"train/loss is not finite at step {step.spent.steps}")
            self._means.add(step)
            self._tell(progress.TRAINING, step.progress)
            if step.last:
                self._tell(progress.TRAINED, None)
                yield self._make_row(scorer.score_end(objective))
                self._save()
                self._delete_old_checkpoints()
            elif step.progress >= next_point / trial.evaluations:
                yield self._make_row(scorer.score_interim(objective))
                next_point = int(step.progress * trial.evaluations) + 1
                self._save()
            else:
                self._stop_if_requested(wish)
                if time.monotonic() - self._saved_at > _SAVE_INTERVAL:
                    self._save()

    def fine_tune(self, wish: Callable[[], State]) -> Iterator[MetricRow]:
        """Fine-tune on each task with all seeds; yield the entries of all tasks so far.

        Runs that are stored in the record are not repeated.

        Args:
            wish: function that returns the requested state of the trial.

        Raises:
            StoppedError: `wish` returned `interrupted`; the finished runs are stored.
        """
        work, steps = self._work, self._spent.steps
        protocol = finetuner.default_protocol(self._trial.encoder.hidden)
        row: MetricRow = {}
        for task in map(_open_examples, work.tasks):
            results = FinetuneResults(work.folder, task, protocol, steps)
            self._tell(progress.finetuning_phase(task.name), None)
            tuner = partial(self._make_finetuner, task, protocol)
            for run in results.complete(work.task_seeds, tuner):
                self._tell(progress.finetuning_phase(task.name), (run.seed + 1) / work.task_seeds)
                work.push_record()
                if wish() == "interrupted":
                    raise StoppedError("interrupted", steps, 1.0)
            row |= results.summary(work.task_seeds) or {}
            yield row

    def _make_finetuner(
        self, task: Examples, protocol: finetuner.FinetuneProtocol
    ) -> finetuner.Finetuner:
        pretrained = encoders.copy_from_objective(
            self._objective, self._trial, self._scorer.corpus.vocabulary, self._spent.steps
        )
        return finetuner.Finetuner(pretrained, task, protocol, str(self._scorer.device))

    def _make_row(self, taken: MetricRow) -> MetricRow:
        """Return a scored point; raise in all workers if the first one has diverged.

        Args:
            taken: scores of the point.
        """
        row = _spent_entries(self._spent, self._work)
        row |= {"health/micro_batch": self._gradients.micro}
        settings = self._settings._asdict()
        row |= {f"schedule/{name}": settings[name] for name in sorted(self._trial.moves)}
        row |= self._means.take() | taken
        reason = divergence.divergence_reason(row, self._trial.data.vocab, early=self.rows <= 1)
        if self._workers.first(reason is not None):
            raise DivergedError(reason or "the first worker has diverged")
        self.rows += 1
        self._score = row.get(self._metric.name)
        return row

    def _stop_if_requested(self, wish: Callable[[], State]) -> None:
        index = self._workers.first(_REQUESTED_STATES.index(wish()))
        requested = _REQUESTED_STATES[int(index)]
        if requested != "running":
            self._save()
            share = self._trial.budget.fraction(self._spent)
            raise StoppedError(requested, self._spent.steps, share)

    def _save(self) -> None:
        if self._workers.rank:
            return
        position = TrainingPosition(
            spent=self._spent,
            rows=self.rows,
            score=self._score,
            counts=dict(self._means.steps),
            most=self._gradients.most,
        )
        self._checkpoints.save(position, self._objective, self._optimizer, self._means.sums)
        self._work.push_record()
        self._saved_at = time.monotonic()

    def _delete_old_checkpoints(self) -> None:
        if not self._workers.rank:
            self._checkpoints.settle()


class _Means:
    """Means of the losses and health values of the steps since the last scored point.

    Each mean is over the steps that have the value: if networks are trained alternately, no step
    has all values.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps: Counter[str] = Counter()

    def add(self, step: CompletedStep) -> None:
        """Add the values of a step; the sums stay on the device to avoid synchronization."""
        for name, value in step.parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps.update(step.parts.keys())

    def take(self) -> MetricRow:
        """Return the means and reset them."""
        means = {name: (value / self.steps[name]).item() for name, value in self.sums.items()}
        self.sums.clear()
        self.steps.clear()
        return means


def _device_name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def _spent_entries(spent: Spent, work: Assignment) -> MetricRow:
    """Return the `spent/*` entries of a point and the rates computed from them.

    Preparatory runs are included, except in the steps, the marginal FLOPs and the rates.
    Stand-alone FLOPs also include the earlier trials that the trial starts from; the entry is
    missing if their compute is unknown.
    """
    seconds, charged = max(spent.seconds, 1e-9), work.charged
    row = {
        "spent/steps": spent.steps,
        "spent/tokens": spent.tokens + charged.tokens,
        "spent/flops": spent.flops + charged.flops,
        "spent/paper_flops": spent.paper_flops + charged.paper_flops,
        "spent/six_n": spent.six_n + charged.six_n,
        "spent/seconds": spent.seconds + charged.seconds,
        "spent/marginal_flops": spent.flops,
        "health/tokens_per_second": spent.tokens / seconds,
        "health/flops_per_second": spent.flops / seconds,
    }
    if work.earlier_flops is not None:
        row["spent/standalone_flops"] = row["spent/flops"] + work.earlier_flops
    return row


def _open_batches(work: Assignment) -> dict[int, batches.Batches]:
    """Return the batches of the training windows by the windows' length."""
    texts = [work.text] if work.short_text is None else [work.text, work.short_text]
    seed = work.trial.seeds.order
    return {
        corpus.train_NT.shape[1]: batches.Batches(corpus.train_NT, seed, corpus.parts)
        for corpus in map(_open_corpus, texts)
    }


_open_corpus = lru_cache(maxsize=4)(batches.open_corpus)
_open_held_out = lru_cache(maxsize=2)(corruption.open_held_out)
_open_examples = lru_cache(maxsize=4)(open_examples)
