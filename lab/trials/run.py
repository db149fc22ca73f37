"""One trial, top to bottom, in this process: alone, or as one of its workers."""

import time
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
from lab.storage import record
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

_EVERY = 300.0  # seconds between checkpoints where no point is scored
_WISHES: tuple[State, ...] = ("running", "interrupted", "stopped")
_ALONE = SingleProcess()


class DivergedError(ArithmeticError):
    """A loss that is no number any more, or worse than that of who knows nothing."""


class StoppedError(Exception):
    """Somebody asked the trial to stop; its state is saved.

    Args:
        state: how it ends by that.
        step: after which.
        share: of the budget that is spent.
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
    workers: Workers = _ALONE,
) -> Outcome:
    """Train and score a trial, or go on with it, and leave its record.

    A run that was cut off goes on from its newest checkpoint, bitwise as if it had never
    stopped, or from its start where there is none. Of several workers the first calls this, and
    the others `follow_trial`.

    Args:
        work: what to run, and where from and where to.
        device: where to compute.
        report: called with each scored point.
        wish: asked after each step for the state the trial should be in; `interrupted` and
            `stopped` end the run once its state is saved.
        workers: who trains it together.

    Returns:
        How it ended. What goes wrong inside the trial is an outcome too, so that one bad
        setting never takes a sweep with it.
    """
    began, entered = time.time(), time.perf_counter()
    state: State = "finished"
    reason, busy = "", 0.0
    rows: list[MetricRow] = []
    earlier = record.read_last_outcome(work.folder)
    record.begin_record(work.folder, work.trial, work.lineage, work.text.name)
    tell = progress.ProgressReporter(work.folder, work.mirror)
    try:
        training = _Training(work, _Yardstick(work, device), workers, tell)
        rows += record.keep_rows(work.folder, training.rows)
        ready = time.perf_counter()
        for row in training.points(wish):
            record.append_row(work.folder, row)
            work.keep()
            rows.append(row)
            report(row)
            busy = time.perf_counter() - ready
        for more in training.finetuned(wish):
            rows[-1] = record.amend_last_row(work.folder, more | charge_finetuning(rows[-1] | more))
            work.keep()
            if workers.count == 1:  # the others, who would have to report too, have ended
                report(rows[-1])
            busy = time.perf_counter() - ready
        if origin := record.read_origin(work.folder):
            reason = f"went on from {origin}"
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except StoppedError as error:
        state, reason = error.state, str(error)
    except Exception as error:  # any other ending is the record's to tell
        state, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
    outcome = Outcome(
        state=state,
        reason=reason,
        rows=tuple(rows),
        began=began,
        seconds=time.perf_counter() - entered + (earlier.seconds if earlier else 0.0),
        busy=busy + (earlier.busy if earlier else 0.0),
        device=_device(device),
        shared=0 < work.resources.gpus_per_worker < 1,
        tries=record.count_tries(work.folder),
    )
    progress.clear_progress(work.folder)
    record.write_outcome(work.folder, outcome)
    work.keep()
    return outcome


def follow_trial(
    work: Assignment, *, device: str, workers: Workers, report: Callable[[MetricRow], None]
) -> None:
    """Take part in a trial that the first worker scores and records.

    Args:
        work: what to run.
        device: where to compute.
        workers: who trains it together.
        report: called at each scored point, with what this worker knows of it.
    """
    try:
        for row in _Training(work, _Watcher(work, device), workers).points(lambda: "running"):
            report(row)
    except (DivergedError, StoppedError):
        return  # the first worker says so


class _Watcher:
    """What a trial is trained on."""

    def __init__(self, work: Assignment, device: str) -> None:
        self.corpus = _corpus(work.text)
        self.device = torch.device(device)

    def clock(self) -> float:
        """Return seconds, once all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def ends(self, objective: Objective) -> MetricRow:  # noqa: ARG002
        """Return no scores: others take them."""
        return {}

    on_the_way = ends


class _Yardstick(_Watcher):
    """What it is measured with; read once in a process, whatever number of trials it runs."""

    def __init__(self, work: Assignment, device: str) -> None:
        super().__init__(work, device)
        self._held_out = _held_out(work.held_out)

    def ends(self, objective: Objective) -> MetricRow:
        """Return all scores."""
        return self.on_the_way(objective) | self._probe(objective, "sentiment")

    def on_the_way(self, objective: Objective) -> MetricRow:
        """Return the scores that cost little and move with training (reports/LOG.md)."""
        return scores.score_detection(objective, self._held_out) | self._probe(objective, "pos")

    def _probe(self, objective: Objective, task: Task) -> MetricRow:
        return scores.score_probe(objective, self.corpus.vocabulary, task)


class _Training:
    """A trial in the middle of its run: what moves, and how far it has come."""

    def __init__(
        self, work: Assignment, yardstick: _Watcher, workers: Workers, tell: Tell = ignore_progress
    ) -> None:
        self._tell = tell
        corpus = yardstick.corpus
        trial = replace(work.trial, budget=own_budget(work.trial))
        self._trial, self._yardstick, self._metric = trial, yardstick, work.metric
        self._work, self._workers = work, workers
        self._objective = build_objective(trial, torch.from_numpy(corpus.counts_V)).to(
            yardstick.device
        )
        self._optimizer = optimizer.build_optimizer(self._objective, trial.optim)
        self._saved = Checkpoints(
            work.folder / "checkpoints", maximize=work.metric.direction == "maximize"
        )
        self._since = _Means()
        self._spent, self.rows = Spent(), 0
        self._score: float | None = None
        self._at = time.monotonic()
        most = None
        known = len(record.read_curve(work.folder))
        place = self._saved.load(self._objective, self._optimizer, self._since.sums, rows=known)
        if place is not None:
            self._since.steps.update(place.counts)
            self._spent, self.rows, self._score = place.spent, place.rows, place.score
            most = place.most
        elif work.start is not None:
            weights.load_weights(work.start, self._objective)
        if workers.first(self._spent.steps) != self._spent.steps:
            raise RuntimeError("the workers do not see the same checkpoints")
        self._gradients = Gradients(
            self._objective, _batches(work), trial, workers=workers, most=most
        )
        self._settings = trial.at(0.0)

    def points(self, wish: Callable[[], State]) -> Iterator[MetricRow]:
        """Train, and yield the untrained encoder, `evaluations` - 1 points on the way, and the end.

        Raises:
            StoppedError: `wish` said so; the state is saved.
            DivergedError: there is nothing left to train.
        """
        trial, yardstick, objective = self._trial, self._yardstick, self._objective
        if not self.rows:
            self._tell(progress.UNTRAINED, None)
            yield self._scored(yardstick.ends(objective))
        due = int(trial.budget.fraction(self._spent) * trial.evaluations) + 1
        for step in train_steps(
            self._gradients, self._optimizer,
            trial=trial, clock=yardstick.clock, spent=self._spent,
        ):  # fmt: skip
            self._spent, self._settings = step.spent, step.settings
            if not step.parts["train/loss"].isfinite():
                raise DivergedError(f"train/loss is not finite at step {step.spent.steps}")
            self._since.add(step)
            self._tell(progress.TRAINING, step.progress)
            if step.last:
                self._tell(progress.TRAINED, None)
                yield self._scored(yardstick.ends(objective))
                self._save()
                self._settle()
            elif step.progress >= due / trial.evaluations:
                yield self._scored(yardstick.on_the_way(objective))
                due = int(step.progress * trial.evaluations) + 1
                self._save()
            else:
                self._heed(wish)

    def finetuned(self, wish: Callable[[], State]) -> Iterator[MetricRow]:
        """Fine-tune on each task as often as is asked; yield what its scores are once all are in.

        What has been run before is not run again.

        Raises:
            StoppedError: the run is to be interrupted; what has ended is kept.
        """
        work, steps = self._work, self._spent.steps
        given = finetuner.default_protocol(self._trial.encoder.hidden)
        row: MetricRow = {}
        for task in map(_examples, work.tasks):
            ledger = FinetuneResults(work.folder, task, given, steps)
            self._tell(progress.finetuning_phase(task.name), None)
            for run in ledger.complete(work.task_seeds, partial(self._tuner, task, given)):
                self._tell(progress.finetuning_phase(task.name), (run.seed + 1) / work.task_seeds)
                work.keep()
                if wish() == "interrupted":
                    raise StoppedError("interrupted", steps, 1.0)
            row |= ledger.summary(work.task_seeds) or {}
            yield row

    def _tuner(self, task: Examples, given: finetuner.FinetuneProtocol) -> finetuner.Finetuner:
        pretrained = encoders.copy_from_objective(
            self._objective, self._trial, self._yardstick.corpus.vocabulary, self._spent.steps
        )
        return finetuner.Finetuner(pretrained, task, given, str(self._yardstick.device))

    def _scored(self, taken: MetricRow) -> MetricRow:
        """Return a scored point, once all workers know that training goes on."""
        row = _spent(self._spent, self._work) | {"health/micro_batch": self._gradients.micro}
        settings = self._settings._asdict()
        row |= {f"schedule/{name}": settings[name] for name in sorted(self._trial.moves)}
        row |= self._since.take() | taken
        why = divergence.divergence_reason(row, self._trial.data.vocab, early=self.rows <= 1)
        if self._workers.first(why is not None):
            raise DivergedError(why or "the first worker says so")
        self.rows += 1
        self._score = row.get(self._metric.name)
        return row

    def _heed(self, wish: Callable[[], State]) -> None:
        wished = _WISHES[int(self._workers.first(_WISHES.index(wish())))]
        if wished != "running":
            self._save()
            share = self._trial.budget.fraction(self._spent)
            raise StoppedError(wished, self._spent.steps, share)
        if time.monotonic() - self._at > _EVERY:
            self._save()

    def _save(self) -> None:
        if self._workers.rank:
            return
        place = TrainingPosition(
            spent=self._spent,
            rows=self.rows,
            score=self._score,
            counts=dict(self._since.steps),
            most=self._gradients.most,
        )
        self._saved.save(place, self._objective, self._optimizer, self._since.sums)
        self._work.keep()
        self._at = time.monotonic()

    def _settle(self) -> None:
        if not self._workers.rank:
            self._saved.settle()


class _Means:
    """Means of the steps' losses and health since the last scored point.

    Each over the steps that have it: where networks take turns, not every step has all.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps: Counter[str] = Counter()

    def add(self, step: CompletedStep) -> None:
        """Count a step in; sums stay on the device, so no step waits for one."""
        for name, value in step.parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps.update(step.parts.keys())

    def take(self) -> MetricRow:
        """Return the means and start anew."""
        means = {name: (value / self.steps[name]).item() for name, value in self.sums.items()}
        self.sums.clear()
        self.steps.clear()
        return means


def _device(name: str) -> str:
    return name if name == "cpu" else torch.cuda.get_device_name(name)


def _spent(spent: Spent, work: Assignment) -> MetricRow:
    """Return what a trial has spent, its preparatory runs included; their steps are not its own.

    Marginal FLOPs are its own training's. Stand-alone FLOPs are those of everything it starts
    from as well; they are left out where nobody recorded that.
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


def _batches(work: Assignment) -> dict[int, batches.Batches]:
    """Return the training windows, by their length."""
    texts = [work.text] if work.short_text is None else [work.text, work.short_text]
    seed = work.trial.seeds.order
    return {
        corpus.train_NT.shape[1]: batches.Batches(corpus.train_NT, seed, corpus.parts)
        for corpus in map(_corpus, texts)
    }


_corpus = lru_cache(maxsize=4)(batches.open_corpus)
_held_out = lru_cache(maxsize=2)(corruption.open_held_out)
_examples = lru_cache(maxsize=4)(open_examples)
