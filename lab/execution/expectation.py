"""How long a sweep will take here, part by part, without what its storage holds already.

Training steps are timed (`pace`); the other parts are estimated from bytes, tokens and FLOPs, with
constants that were measured with this code on one core of an AMD EPYC. Nothing is written, and
nothing is downloaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as File

from lab.config.data import DataConfig, HubDataset
from lab.config.experiment import Experiment
from lab.config.flops import discriminator_head_terms, encoder_terms, mean_cost, step_cost
from lab.config.preparatory_runs import preparatory_runs
from lab.config.trial import Trial
from lab.data import batches, preparation
from lab.data import sources as reading
from lab.evaluation import corruption
from lab.execution import pace
from lab.execution.pace import SlotSpeeds
from lab.execution.prerequisites import TrialInputs
from lab.loading import search_space
from lab.search import plan
from lab.search.finished import FinishedTrials, Prepared, TrialIdentities, count_finished, has_ended
from lab.search.plan import CellPlan, Expectation, Phase
from lab.tasks import size as task_size
from lab.tasks.size import TaskSize
from lab.tracking.client import database_file

_READING = 0.13  # seconds a MB of text
_TOKENIZING = 1.3  # seconds a MB of text that is used: tokenizer, windows, search for copies
_BYTES = 3.2  # of English text a token, of a vocabulary of 2,048
_STORE, _NEW_STORE, _RAY, _ACTOR, _REPORT = 3.0, 5.0, 8.0, 6.0, 15.0  # seconds
_CORRUPTING = 4.0  # seconds to draw three corruptions
_ROWS = 9_000  # of a task, read and checked in a second
_DETECTED = 3 * 32_768  # tokens that detection reads at a scored point
_PROBE_TOKENS = {"pos": 70_000, "sentiment": 200_000}  # read for each fit of a probe
_PROBE_FIT = 7e8  # FLOPs of a fit of the tag probe, for each unit of width
_TUNING = 0.6  # fine-tuning's FLOP/s by pre-training's: it has dropout and uneven windows


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell's runs: how many are left, and the seconds of one on its slot.

    Attributes:
        plan: settings, and one of its trials.
        untrained: runs that are left to train.
        untuned: runs that are trained and left to fine-tune.
        training: seconds of one run's steps.
        scoring: of its scored points.
        finetuning: of all its tasks and seeds.
        preparing: of the preparatory runs that its next trial waits for.
    """

    plan: CellPlan
    untrained: int
    untuned: int
    training: float
    scoring: float
    finetuning: float
    preparing: tuple[float, ...]


def estimate_sweep(
    experiment: Experiment, storage: File | None, slots: int, uri: str
) -> Expectation:
    """Return how long a sweep will take.

    Args:
        experiment: what is asked.
        storage: of records and caches; None where it is not looked at.
        slots: trials at once.
        uri: of the MLflow store.

    Raises:
        UserError: the text or a task cannot be read.
    """
    plans = plan.plan_cells(experiment)
    texts = [_Text(settings, storage) for settings in search_space.required_texts(experiment)]
    judged = {cell.trial.data for cell in plans}
    prepared = _prepared(experiment, storage, texts)
    done = _done(experiment, storage, prepared, len(plans))
    if all(cell.runs == ended.finetuned for cell, ended in zip(plans, done, strict=True)):
        why = f"all {sum(cell.runs for cell in plans)} have ended before"
        phases = (_start(uri), Phase(name="trials", seconds=0.0, why=why), _report())
        return Expectation(phases=phases, slots=slots, first_score=None, basis="")
    tasks = [task_size.task_size(name) for name in experiment.finetune.tasks]
    runs = plan.preparatory_phase(experiment)
    left = [run for run in runs if storage is None or not has_ended(run, storage, prepared)]
    speeds = SlotSpeeds([*(cell.trial for cell in plans), *left], experiment.resources)
    preparing = {run: _seconds_of_run(run, speeds) for run in left}
    cells = [
        _cell(experiment, *both, tasks, speeds, preparing) for both in zip(plans, done, strict=True)
    ]
    of_texts = (p for text in texts for p in text.phases(judged=text.settings in judged))
    before = [_start(uri), *_tasks(tasks), *of_texts, _ray()]
    trials = _trials(experiment, cells, list(preparing.values()), slots)
    return Expectation(
        phases=(*before, *trials, _report()),
        slots=slots,
        first_score=sum(phase.seconds or 0.0 for phase in before) + _first_point(cells, slots),
        basis=speeds.basis,
    )


def _done(
    experiment: Experiment, storage: File | None, prepared: Prepared, cells: int
) -> Sequence[FinishedTrials]:
    if storage is None or not prepared:
        return [FinishedTrials(trained=0, finetuned=0)] * cells
    return count_finished(experiment, storage, prepared)


def _prepared(
    experiment: Experiment, storage: File | None, made: Sequence["_Text"]
) -> dict[tuple[DataConfig, ...], TrialIdentities]:
    """Return the identities of the trials' inputs, where all texts are prepared."""
    texts = {text.settings: text for text in made}
    starts = [] if storage is None else sorted((storage / "cache").glob("start-*.safetensors"))
    found = {}
    for cell in search_space.expand_cells(experiment):
        trial = search_space.build_trial(experiment.base, cell)
        text, *short = (texts[settings] for settings in trial.texts)
        if text.folder is None or text.held_out is None or any(s.folder is None for s in short):
            continue
        supply = TrialInputs(
            text=text.folder,
            held_out=text.held_out,
            start=None,
            short_text=short[0].folder if short else None,
        )
        started = tuple(replace(supply, start=start).identity for start in starts)
        found[trial.texts] = TrialIdentities(scratch=supply.identity, started=started)
    return found


def _seconds_of_run(run: Trial, speeds: SlotSpeeds) -> float:
    """Return the seconds of a preparatory run on its slot, its scores included."""
    cost = mean_cost(run)
    flops = (run.budget.steps(cost) or 0) * cost.flops + _scoring_flops(run)
    return flops / speeds.of(run)


def _cell(
    experiment: Experiment,
    cell: CellPlan,
    done: FinishedTrials,
    tasks: Sequence[TaskSize],
    speeds: SlotSpeeds,
    preparing: Mapping[Trial, float],
) -> _Cell:
    trial, speed = cell.trial, speeds.of(cell.trial)
    tuning = sum(_tuning_flops(trial, task) for task in tasks) * experiment.finetune.seeds
    runs = plan.preparatory_of_cell(experiment, cell.settings)
    left = tuple(preparing[run] for run in runs if run in preparing)
    return _Cell(
        plan=cell,
        untrained=cell.runs - done.trained,
        untuned=done.trained - done.finetuned,
        training=trial.budget.amount if cell.flops is None else cell.flops / speed,
        scoring=_scoring_flops(trial) / speed,
        finetuning=tuning / (speed * _TUNING),
        preparing=left[: len(set(preparatory_runs(trial).values()))],
    )


def _first_point(cells: Sequence[_Cell], slots: int) -> float:
    """Return the seconds to the first scored point of the next trial; 0 where none is trained."""
    cell = next((cell for cell in cells if cell.untrained), None)
    if cell is None:
        return 0.0
    before = plan.estimate_makespan([(1, seconds) for seconds in cell.preparing], slots)
    return before + (cell.training + cell.scoring) / cell.plan.trial.evaluations


def _forward(trial: Trial, length: int | None = None) -> float:
    """Return the encoder's forward FLOPs of a token."""
    return sum(encoder_terms(trial.encoder, length or trial.data.length).values())


def _scoring_flops(trial: Trial) -> float:
    """Return the FLOPs of all scored points: detection and tags at each, sentiment at both ends."""
    forward, fit = _forward(trial), _PROBE_FIT * trial.encoder.hidden
    point = _PROBE_TOKENS["pos"] * forward + fit
    if "discriminator" in trial.objective.networks:
        point += _DETECTED * (forward + sum(discriminator_head_terms(trial.encoder).values()))
    return (trial.evaluations + 1) * point + 2 * _PROBE_TOKENS["sentiment"] * forward


def _tuning_flops(trial: Trial, task: TaskSize) -> float:
    """Return the FLOPs of one run of fine-tuning: forward and back, then one pass to score."""
    length = min(trial.data.length, task.tokens)
    rows = 3 * task.epochs * task.train + task.evaluation
    return rows * length * _forward(trial, length)


def _trials(
    experiment: Experiment, cells: Sequence[_Cell], preparing: Sequence[float], slots: int
) -> list[Phase]:
    """Return preparatory runs, training, scoring and fine-tuning, which share the slots' time."""
    busy = {
        "preparatory runs": sum(preparing),
        "training": sum(cell.untrained * cell.training for cell in cells),
        "scoring": sum(cell.untrained * cell.scoring for cell in cells),
        "fine-tuning": sum((cell.untrained + cell.untuned) * cell.finetuning for cell in cells),
    }
    why = {
        "preparatory runs": f"{len(preparing)} mlm runs that trials start from, scored twice each",
        "training": _counted(experiment, cells, slots),
        "scoring": f"{cells[0].plan.trial.evaluations + 1} points a trial: frozen corruptions, probes",
        "fine-tuning": "every trial on every task and seed, in its slot",
    }
    jobs = [(1, seconds) for seconds in preparing]
    jobs += [(c.untrained, c.training + c.scoring + c.finetuning) for c in cells]
    jobs += [(c.untuned, c.finetuning) for c in cells]
    wall = plan.estimate_makespan(jobs, slots) / sum(busy.values())
    return [
        Phase(name=name, seconds=seconds * wall, why=why[name])
        for name, seconds in busy.items()
        if seconds or name in ("training", "scoring")
    ]


def _counted(experiment: Experiment, cells: Sequence[_Cell], slots: int) -> str:
    left = sum(cell.untrained for cell in cells)
    before = sum(cell.plan.runs for cell in cells) - left
    ended = f", {before} ended before" if before else ""
    early = "; at most: search.stopping ends some early" if experiment.search.stopping else ""
    return f"{left} trials, {slots} at a time{ended}{early}"


def _tasks(tasks: Sequence[TaskSize]) -> list[Phase]:
    if not tasks:
        return []
    rows = sum(task.train + task.evaluation for task in tasks)
    return [Phase(name="tasks", seconds=rows / _ROWS, why=f"{rows:,} rows are read and checked")]


def _start(uri: str) -> Phase:
    file = database_file(uri)
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

    def __init__(self, settings: DataConfig, storage: File | None) -> None:
        self.settings = settings
        self.folder: File | None = None
        self.held_out: File | None = None
        cache = None if storage is None else storage / "cache"
        sources = [part.source for part in preparation.mixture_parts(settings)]
        self._remote = any(isinstance(source, HubDataset) for source in sources)
        sizes = [reading.estimate_size(source) for source in sources]
        known = [size for size in sizes if size is not None]
        self._bytes = None if len(known) < len(sizes) else sum(known)
        if cache is not None and not self._remote:
            self.folder = preparation.find_prepared(settings, cache)
        self._tokens = (self._bytes or 0.0) * settings.share * (1 - settings.held_out) / _BYTES
        if self.folder is not None and cache is not None:
            corpus = batches.open_corpus(self.folder)
            self._tokens = float(corpus.train_NT.size)
            held_out = corruption.held_out_file(corpus, settings, cache)
            self.held_out = held_out if held_out.exists() else None

    def phases(self, *, judged: bool) -> Sequence[Phase]:
        """Return preparation, and the frozen model where trials are scored on this text."""
        return (self._preparation(), self._frozen()) if judged else (self._preparation(),)

    def _preparation(self) -> Phase:
        name = f"text, {self.settings.vocab:,} tokens, windows of {self.settings.length}"
        if self.folder is not None:
            return Phase(name=name, seconds=0.0, why="prepared before")
        if self._bytes is None:
            return Phase(name=name, seconds=None, why="the hub tells its size when it is read")
        seconds = self._bytes / 1e6 * (_READING + _TOKENIZING * self.settings.share)
        why = f"{self._bytes / 1e6:,.0f} MB are read, tokenized and cut into windows, once"
        return Phase(name=name, seconds=seconds, why=why)

    def _frozen(self) -> Phase:
        name = "frozen masked language model"
        if self.held_out is not None:
            return Phase(name=name, seconds=0.0, why="its corruptions were made before")
        tokens = round(self._tokens) or 10**12
        trial = corruption.frozen_model_trial(self.settings, tokens)
        steps = trial.budget.steps(step_cost(trial)) or 0
        # In the driver's own process, on all of its cores.
        seconds = (
            steps * step_cost(trial).flops / pace.measure_flops_per_second(trial) + _CORRUPTING
        )
        why = f"learns from {trial.budget.amount:,.0f} tokens to make held-out corruptions, once"
        return Phase(name=name, seconds=seconds, why=why)
