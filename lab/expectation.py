"""How long a sweep will take here, part by part, without what its storage holds already.

Training steps are timed (`pace`); the other parts are estimated from bytes, tokens and FLOPs, with
constants that were measured with this code on one core of an AMD EPYC. Nothing is written, and
nothing is downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as File

from lab import corruption, data, pace, plan, preparation, reading, space, task_size
from lab.finished import Finished, count
from lab.flops import discriminator_head_terms, encoder_terms, step_cost
from lab.pace import Speeds
from lab.plan import CellPlan, Expectation, Phase
from lab.spec import Data, Experiment, Hub, Trial
from lab.supplies import Supply
from lab.task_size import TaskSize
from lab.tracking import database

_PREPARATION = 1.5  # seconds a MB of text: read, learned from by the tokenizer, cut into windows
_BYTES = 3.2  # of English text a token, of a vocabulary of 2,048
_STORE, _NEW_STORE, _RAY, _ACTOR, _REPORT = 3.0, 5.0, 8.0, 6.0, 15.0  # seconds
_CORRUPTING = 4.0  # seconds to draw three corruptions
_ROWS = 9_000  # of a task, read and checked in a second
_DETECTED = 3 * 32_768  # tokens that detection reads at a scored point
_PROBE_TOKENS = {"pos": 70_000, "sentiment": 200_000}  # read for each fit of a probe
_PROBE_FIT = 7e8  # FLOPs of a fit of the tag probe, for each unit of width
_TUNING = 0.5  # fine-tuning's FLOP/s by pre-training's: it has dropout and uneven windows


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Seconds of one run of a cell on its slot."""

    training: float
    scoring: float
    finetuning: float


def expect(experiment: Experiment, storage: File | None, slots: int, uri: str) -> Expectation:
    """Return how long a sweep will take.

    Args:
        experiment: what is asked.
        storage: of records and caches; None where it is not looked at.
        slots: trials at once.
        uri: of the MLflow store.

    Raises:
        UserError: the text or a task cannot be read.
    """
    cells = plan.cells(experiment)
    texts = [_Text(settings, storage) for settings in space.texts(experiment)]
    done = _done(experiment, storage, texts, len(cells))
    left = [cell.runs - each.finetuned for cell, each in zip(cells, done, strict=True)]
    if not any(left):
        why = f"all {sum(cell.runs for cell in cells)} have ended before"
        phases = (_start(uri), Phase(name="trials", seconds=0.0, why=why), _report())
        return Expectation(phases=phases, slots=slots, first_score=None, basis="")
    tasks = [task_size.of(name) for name in experiment.finetune.tasks]
    speeds = Speeds((cell.trial for cell in cells), experiment.resources)
    runs = [_run(cell, experiment.finetune.seeds, tasks, speeds) for cell in cells]
    before = [_start(uri), *_tasks(tasks), *(p for text in texts for p in text.phases()), _ray()]
    first = next(number for number, count in enumerate(left) if count)
    once = (runs[first].training + runs[first].scoring) / cells[first].trial.curve
    return Expectation(
        phases=(*before, *_trials(cells, done, runs, slots), _report()),
        slots=slots,
        first_score=once + sum(phase.seconds or 0.0 for phase in before),
        basis=speeds.basis,
    )


def _done(
    experiment: Experiment, storage: File | None, texts: Sequence["_Text"], cells: int
) -> Sequence[Finished]:
    identities = {text.settings: text.identity for text in texts if text.identity}
    if storage is None or not identities:
        return [Finished(trained=0, finetuned=0)] * cells
    return count(experiment, storage, identities)


def _run(cell: CellPlan, seeds: int, tasks: Sequence[TaskSize], speeds: Speeds) -> _Run:
    trial = cell.trial
    speed = speeds.of(trial)
    training = trial.budget.amount if cell.flops is None else cell.flops / speed
    tuning = sum(_tuning_flops(trial, task) for task in tasks) * seeds
    return _Run(
        training=training,
        scoring=_scoring_flops(trial) / speed,
        finetuning=tuning / (speed * _TUNING),
    )


def _forward(trial: Trial, length: int | None = None) -> float:
    """Return the encoder's forward FLOPs of a token."""
    return sum(encoder_terms(trial.encoder, length or trial.data.length).values())


def _scoring_flops(trial: Trial) -> float:
    """Return the FLOPs of all scored points: detection and tags at each, sentiment at both ends."""
    forward, fit = _forward(trial), _PROBE_FIT * trial.encoder.hidden
    point = _PROBE_TOKENS["pos"] * forward + fit
    if "discriminator" in trial.objective.networks:
        point += _DETECTED * (forward + sum(discriminator_head_terms(trial.encoder).values()))
    return (trial.curve + 1) * point + 2 * _PROBE_TOKENS["sentiment"] * forward


def _tuning_flops(trial: Trial, task: TaskSize) -> float:
    """Return the FLOPs of one run of fine-tuning: forward and back, then one pass to score."""
    length = min(trial.data.length, task.tokens)
    rows = 3 * task.epochs * task.train + task.evaluation
    return rows * length * _forward(trial, length)


def _trials(
    cells: Sequence[CellPlan], done: Sequence[Finished], runs: Sequence[_Run], slots: int
) -> list[Phase]:
    """Return training, scoring and fine-tuning, which share the slots' time."""
    training = scoring = finetuning = 0.0
    jobs: list[tuple[int, float]] = []
    for cell, ended, run in zip(cells, done, runs, strict=True):
        whole, tuned = cell.runs - ended.trained, ended.trained - ended.finetuned
        training += whole * run.training
        scoring += whole * run.scoring
        finetuning += (whole + tuned) * run.finetuning
        jobs += [
            (whole, run.training + run.scoring + run.finetuning),
            (tuned, run.finetuning),
        ]
    wall = plan.makespan(jobs, slots) / max(1e-9, training + scoring + finetuning)
    left = sum(cell.runs - ended.trained for cell, ended in zip(cells, done, strict=True))
    before = sum(ended.trained for ended in done)
    phases = [
        Phase(name="training", seconds=training * wall, why=_training(left, before, slots)),
        Phase(name="scoring", seconds=scoring * wall, why=_scoring(cells[0].trial)),
    ]
    if finetuning:
        why = "every finished trial on every task and seed, in its slot"
        phases.append(Phase(name="fine-tuning", seconds=finetuning * wall, why=why))
    return phases


def _training(left: int, before: int, slots: int) -> str:
    ended = f", {before} ended before" if before else ""
    return f"{left} trials, {slots} at a time{ended}"


def _scoring(trial: Trial) -> str:
    return f"{trial.curve + 1} points a trial: frozen corruptions, linear probes"


def _tasks(tasks: Sequence[TaskSize]) -> list[Phase]:
    if not tasks:
        return []
    rows = sum(task.train + task.evaluation for task in tasks)
    return [Phase(name="tasks", seconds=rows / _ROWS, why=f"{rows:,} rows are read and checked")]


def _start(uri: str) -> Phase:
    file = database(uri)
    new = file is not None and not file.exists()
    why = "MLflow makes a new database" if new else "MLflow opens its store"
    return Phase(name="start", seconds=_NEW_STORE if new else _STORE, why=why)


def _ray() -> Phase:
    return Phase(
        name="Ray", seconds=_RAY + _ACTOR, why="its processes start; each slot imports torch"
    )


def _report() -> Phase:
    return Phase(
        name="report and model",
        seconds=_REPORT,
        why="figures are drawn; the best trial is exported, checked and logged",
    )


class _Text:
    """A text and its frozen corruptions, as far as they are prepared."""

    def __init__(self, settings: Data, storage: File | None) -> None:
        self.settings = settings
        self.identity: str | None = None
        cache = None if storage is None else storage / "cache"
        sources = [part.source for part in preparation.parts(settings)]
        self._remote = any(isinstance(source, Hub) for source in sources)
        sizes = [reading.size(source) for source in sources]
        known = [size for size in sizes if size is not None]
        self._bytes = None if len(known) < len(sizes) else sum(known)
        folder = None if cache is None or self._remote else preparation.prepared(settings, cache)
        self._prepared = folder is not None
        self._tokens = (self._bytes or 0.0) * settings.share * (1 - settings.held_out) / _BYTES
        self._corrupted = False
        if folder is not None and cache is not None:
            corpus = data.open_corpus(folder)
            self._tokens = float(corpus.train_NT.size)
            held_out = corruption.target(corpus, settings, cache)
            self._corrupted = held_out.exists()
            if self._corrupted:
                self.identity = Supply(text=folder, held_out=held_out, start=None).identity

    def phases(self) -> tuple[Phase, Phase]:
        """Return preparation and the frozen model."""
        return self._preparation(), self._frozen()

    def _preparation(self) -> Phase:
        name = f"text, windows of {self.settings.length}"
        if self._prepared:
            return Phase(name=name, seconds=0.0, why="prepared before")
        if self._bytes is None:
            return Phase(name=name, seconds=None, why="the hub tells its size when it is read")
        seconds = self._bytes / 1e6 * _PREPARATION
        why = f"{self._bytes / 1e6:,.0f} MB are read, tokenized and cut into windows, once"
        return Phase(name=name, seconds=seconds, why=why)

    def _frozen(self) -> Phase:
        name = "frozen masked language model"
        if self._corrupted:
            return Phase(name=name, seconds=0.0, why="its corruptions were made before")
        tokens = round(self._tokens) or 10**12
        trial = corruption.frozen_trial(self.settings, tokens)
        steps = trial.budget.steps(step_cost(trial)) or 0
        # In the driver's own process, on all of its cores.
        seconds = steps * step_cost(trial).flops / pace.flops_per_second(trial) + _CORRUPTING
        why = f"learns from {trial.budget.amount:,.0f} tokens to make held-out corruptions, once"
        return Phase(name=name, seconds=seconds, why=why)
