"""Training of one trial: its state, scored points, checkpoints and fine-tuning."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from lab.config.budget import Spent
from lab.config.metrics import finetuned
from lab.config.preparatory_runs import training_budget
from lab.config.results import MetricRow, State
from lab.finetuning import finetuner
from lab.finetuning import pretrained as encoders
from lab.finetuning.results import FinetuneResults
from lab.storage import record
from lab.tasks.examples import Examples
from lab.training import optimizer, weights
from lab.training.checkpoint import Checkpoints, TrainingPosition
from lab.training.distributed import Workers
from lab.training.gradients import Gradients
from lab.training.loop import train_steps
from lab.training.objectives import build_objective
from lab.trials import cached_inputs, progress
from lab.trials.assignment import Assignment
from lab.trials.divergence import DivergedError, divergence_reason
from lab.trials.progress import Tell, ignore_progress
from lab.trials.scorers import Scorer
from lab.trials.spent_entries import spent_entries
from lab.trials.step_means import StepMeans

_SAVE_INTERVAL = 300.0  # seconds between checkpoints while no point is scored
_REQUESTED_STATES: tuple[State, ...] = ("running", "interrupted")


class StoppedError(Exception):
    """The trial was requested to end early; its state is saved.

    Args:
        state: final state of the trial.
        step: number of steps so far.
        share: spent share of the budget.
    """

    def __init__(self, state: State, step: int, share: float) -> None:
        super().__init__(f"at step {step}, {share:.1%} of its budget; its state is saved")
        self.state: State = state


class Training:
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
        self, work: Assignment, scorer: Scorer, workers: Workers, tell: Tell = ignore_progress
    ) -> None:
        self._tell = tell
        corpus = scorer.corpus
        trial = replace(work.trial, budget=training_budget(work.trial))
        self._trial, self._scorer, self._metric = trial, scorer, work.metric
        self._work, self._workers = work, workers
        self._objective = build_objective(trial, torch.from_numpy(corpus.counts_V)).to(
            scorer.device
        )
        self._optimizer = optimizer.build_optimizer(self._objective, trial.optim)
        self._checkpoints = Checkpoints(
            work.folder / "checkpoints", maximize=work.metric.direction == "maximize"
        )
        self._means = StepMeans()
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
            self._spent, self.rows, self._score = (
                position.spent,
                position.evaluations,
                position.score,
            )
            micro_batch_limit = position.micro_batch_limit
        elif work.start is not None:
            weights.load_weights(work.start, self._objective)
        self._charged_flops = 0.0
        if position is not None:
            self._charged_flops = record.read_origin(work.folder).charged_flops
        if workers.broadcast(self._spent.steps) != self._spent.steps:
            raise RuntimeError("the workers do not see the same checkpoints")
        self._gradients = Gradients(
            self._objective,
            cached_inputs.open_batches(work),
            trial,
            workers=workers,
            micro_batch_limit=micro_batch_limit,
        )
        self._settings = trial.settings_at(0.0)

    def train(self, requested_state: Callable[[], State]) -> Iterator[MetricRow]:
        """Train for the remaining budget; yield the scored points.

        They are the untrained encoder, `evaluations` - 1 points during training, and the end.

        Args:
            requested_state: function that returns the requested state of the trial.

        Raises:
            StoppedError: `requested_state` returned another state than `running`; the state is
                saved.
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
                self._stop_if_requested(requested_state)
                if time.monotonic() - self._saved_at > _SAVE_INTERVAL:
                    self._save()

    def fine_tune(self, requested_state: Callable[[], State]) -> Iterator[MetricRow]:
        """Fine-tune on each task with all seeds; yield the entries of all tasks so far.

        Runs that are stored in the record are not repeated. The contributions of the blocks of
        evaluation rows are added to those of the scorer.

        Args:
            requested_state: function that returns the requested state of the trial.

        Raises:
            StoppedError: `requested_state` returned `interrupted`; the finished runs are stored.
        """
        work, steps = self._work, self._spent.steps
        protocol = finetuner.default_protocol(self._trial.encoder.hidden)
        row: MetricRow = {}
        for task in map(cached_inputs.open_examples, work.tasks):
            results = FinetuneResults(work.folder, task, protocol, steps)
            self._tell(progress.finetuning_phase(task.name), None)
            tuner = partial(self._make_finetuner, task, protocol)
            for run in results.complete(work.task_seeds, tuner):
                self._tell(progress.finetuning_phase(task.name), (run.seed + 1) / work.task_seeds)
                work.push_record()
                if requested_state() == "interrupted":
                    raise StoppedError("interrupted", steps, 1.0)
            row |= results.summary(work.task_seeds) or {}
            score = finetuned(task.name).name
            self._scorer.blocks[score] = results.median_blocks(work.task_seeds)
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
        row = spent_entries(self._spent, self._work, self._charged_flops)
        row |= {"spent/epochs": self._spent.tokens / self._scorer.corpus.epoch_tokens}
        row |= {"health/micro_batch": self._gradients.micro_batch_size}
        settings = self._settings._asdict()
        row |= {f"schedule/{name}": settings[name] for name in sorted(self._trial.varying_settings)}
        row |= self._means.take() | taken
        reason = divergence_reason(row, self._trial.data.vocab, early=self.rows <= 1)
        if self._workers.broadcast(reason is not None):
            raise DivergedError(reason or "the first worker has diverged")
        self.rows += 1
        self._score = row.get(self._metric.name)
        return row

    def _stop_if_requested(self, requested_state: Callable[[], State]) -> None:
        index = self._workers.broadcast(_REQUESTED_STATES.index(requested_state()))
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
            evaluations=self.rows,
            score=self._score,
            counts=dict(self._means.steps),
            micro_batch_limit=self._gradients.micro_batch_limit,
        )
        self._checkpoints.save(position, self._objective, self._optimizer, self._means.sums)
        self._work.push_record()
        self._saved_at = time.monotonic()

    def _delete_old_checkpoints(self) -> None:
        if not self._workers.rank:
            self._checkpoints.prune()
