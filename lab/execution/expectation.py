"""Expected duration of a sweep on this machine, by phase, without work that its storage holds.

Optimizer steps are timed (`pace`). The other phases are estimated from bytes, tokens and FLOPs,
with constants measured with this code on one core of an AMD EPYC processor. An estimate writes no
file and downloads nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as File

from lab.config.data import DataConfig, EmbeddedText, HubDataset
from lab.config.experiment import Experiment, Role
from lab.config.flops import discriminator_head_terms, encoder_terms, mean_cost, step_cost
from lab.config.schedules.trunk import TrunkSchedule
from lab.config.trial import Trial
from lab.data import batches, preparation, text_parts
from lab.data import sources as reading
from lab.evaluation import corruption, prepared_pairs
from lab.execution import pace
from lab.execution.pace import SlotSpeeds
from lab.execution.prerequisites import TrialInputs
from lab.loading import search_space
from lab.scaling.hygiene import MOST_EPOCHS
from lab.search import plan
from lab.search.designs import find_branch_points
from lab.search.finished import FinishedTrials, Prepared, TrialIdentities, count_finished, has_ended
from lab.search.plan import CellPlan, Expectation, Phase
from lab.tasks import minimal_pairs
from lab.tasks import size as task_size
from lab.tasks.minimal_pairs import MinimalPair
from lab.tasks.size import TaskSize
from lab.tracking.client import database_file

_READING_SECONDS = 0.13  # seconds per MB of text
_TOKENIZING_SECONDS = (
    1.3  # seconds per MB of the share of text that is used: tokenizing, windows, overlaps
)
_BYTES_PER_TOKEN = 3.2  # bytes of English text per token of a vocabulary of 2,048 tokens
_STORE_SECONDS, _NEW_STORE_SECONDS, _RAY_SECONDS, _ACTOR_SECONDS, _REPORT_SECONDS = (
    3.0,
    5.0,
    8.0,
    6.0,
    15.0,
)  # seconds
_CORRUPTION_SECONDS = 4.0  # seconds to draw the three held-out corruptions
_TASK_ROWS_PER_SECOND = 9_000  # rows of a task that are read and checked per second
_DETECTION_TOKENS = 3 * 32_768  # tokens of the three held-out corruptions, read at each evaluation
_PROBE_TOKENS = {"pos": 70_000, "sentiment": 200_000}  # tokens read for each fit of a probe
_PAIR_TOKENS = {"discriminator": 45_000, "predictor": 450_000}  # read for a score of minimal pairs
_PROBE_FIT_FLOPS = 7e8  # FLOPs of a fit of the part-of-speech probe, per unit of hidden size
# FLOP/s of fine-tuning divided by those of pre-training: fine-tuning has dropout and windows of
# unequal lengths.
_FINETUNING_SPEED = 0.6


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """Number of trials that a cell has left to run, and the seconds of one trial on its slot.

    Attributes:
        plan: plan of the cell.
        untrained: number of trials left to train.
        untuned: number of trials that are trained and left to fine-tune.
        training: seconds of one trial's optimizer steps.
        scoring: seconds of one trial's evaluations.
        finetuning: seconds of one trial's fine-tuning, over all tasks and seeds.
        preparing: seconds of each preparatory run that the cell's next trial waits for.
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
    """Return the expected duration of a sweep.

    Args:
        experiment: experiment to run.
        storage: folder of records and caches; None to ignore finished work.
        slots: number of trials that run at the same time.
        uri: URI of the MLflow tracking store.

    Raises:
        UserError: a text or a task cannot be read.
    """
    plans = plan.plan_cells(experiment)
    pairs = minimal_pairs.read_pairs(experiment.minimal_pairs)
    texts = [
        _Text(settings, storage, pairs) for settings in search_space.required_texts(experiment)
    ]
    evaluated = {cell.trial.data for cell in plans}
    prepared = _input_identities(experiment, storage, texts)
    finished = _count_finished(experiment, storage, prepared, len(plans))
    if all(cell.runs == ended.finetuned for cell, ended in zip(plans, finished, strict=True)):
        reason = f"all {sum(cell.runs for cell in plans)} have ended before"
        phases = (_start_phase(uri), Phase(name="trials", seconds=0.0, why=reason), _report_phase())
        return Expectation(phases=phases, slots=slots, first_score=None, basis="")
    tasks = [task_size.task_size(name) for name in experiment.finetune.tasks]
    runs = plan.preparatory_phase(experiment)
    left = [run for run in runs if storage is None or not has_ended(run, storage, prepared)]
    speeds = SlotSpeeds([*(cell.trial for cell in plans), *left], experiment.resources)
    preparing = {run: _seconds_of_run(run, runs[run], speeds) for run in left}
    points = find_branch_points(experiment)
    cells = [
        _estimate_cell(experiment, *both, tasks, speeds, preparing, points)
        for both in zip(plans, finished, strict=True)
    ]
    of_texts = (p for text in texts for p in text.phases(evaluated=text.settings in evaluated))
    before = [_start_phase(uri), *_task_phases(tasks), *of_texts, _ray_phase()]
    trials = _trial_phases(experiment, cells, list(preparing.values()), slots)
    return Expectation(
        phases=(*before, *trials, _report_phase()),
        slots=slots,
        first_score=sum(phase.seconds or 0.0 for phase in before) + _first_evaluation(cells, slots),
        basis=speeds.basis,
        warnings=_describe_epochs(plans, texts),
    )


def _describe_epochs(plans: Sequence[CellPlan], texts: Sequence["_Text"]) -> tuple[str, ...]:
    """Return a warning if trials read a text of known size more than `MOST_EPOCHS` times."""
    sizes = {text.settings: text.epoch_tokens for text in texts}
    repeating: list[tuple[float, float, int]] = []  # epochs and tokens of a trial, and their number
    for cell in plans:
        size = sizes[cell.trial.data]
        tokens = float((cell.steps or 0) * mean_cost(cell.trial).tokens)
        if size and tokens > MOST_EPOCHS * size:
            repeating.append((tokens / size, tokens, cell.runs))
    if not repeating:
        return ()
    epochs, tokens, _ = max(repeating)
    count, all_trials = sum(runs for *_, runs in repeating), sum(cell.runs for cell in plans)
    return (
        f"{count} of {all_trials} trials read the text more than {MOST_EPOCHS:g} times, up to "
        f"{epochs:.3g} times ({tokens:.3g} tokens of a text of about {tokens / epochs:.3g}); "
        "repeated text is then worth less than new text (Muennighoff et al. 2023, arXiv "
        "2305.16264), and no scaling law is fitted to such trials; use more text "
        "(base.data.source) or a smaller budget",
    )


def _count_finished(
    experiment: Experiment, storage: File | None, prepared: Prepared, cells: int
) -> Sequence[FinishedTrials]:
    if storage is None or not prepared:
        return [FinishedTrials(trained=0, finetuned=0)] * cells
    return count_finished(experiment, storage, prepared)


def _input_identities(
    experiment: Experiment, storage: File | None, required: Sequence["_Text"]
) -> dict[tuple[DataConfig, ...], TrialIdentities]:
    """Return the identities of the trials' inputs, by texts, where all the texts are prepared."""
    texts = {text.settings: text for text in required}
    starts = [] if storage is None else sorted((storage / "cache").glob("start-*.safetensors"))
    identities = {}
    for cell in search_space.expand_cells(experiment):
        trial = search_space.build_trial(experiment.base, cell)
        text, *short = (texts[settings] for settings in trial.data_configs)
        if text.folder is None or text.held_out is None or any(s.folder is None for s in short):
            continue
        if text.pairs is None:
            continue
        inputs = TrialInputs(
            text=text.folder,
            held_out=text.held_out,
            pairs=text.pairs,
            start=None,
            short_text=short[0].folder if short else None,
        )
        started = tuple(replace(inputs, start=start).identity for start in starts)
        identities[trial.data_configs] = TrialIdentities(scratch=inputs.identity, started=started)
    return identities


def _seconds_of_run(run: Trial, flops: float, speeds: SlotSpeeds) -> float:
    """Return the seconds of a preparatory run on its slot, evaluations included."""
    return (flops + _scoring_flops(run)) / speeds.flops_per_second(run)


def _estimate_cell(
    experiment: Experiment,
    cell: CellPlan,
    finished: FinishedTrials,
    tasks: Sequence[TaskSize],
    speeds: SlotSpeeds,
    preparing: Mapping[Trial, float],
    points: Mapping[Role, Sequence[float]],
) -> _Cell:
    trial, speed = cell.trial, speeds.flops_per_second(cell.trial)
    tuning = sum(_finetuning_flops(trial, task) for task in tasks) * experiment.finetune.seeds
    runs = list(plan.preparatory_of_cell(experiment, cell.settings, points))
    first = len(plan.preparatory_of_trial(trial, points["search"]))
    left = tuple(preparing[run] for run in runs[:first] if run in preparing)
    return _Cell(
        plan=cell,
        untrained=cell.runs - finished.trained,
        untuned=finished.trained - finished.finetuned,
        training=trial.budget.amount if cell.branch_flops is None else cell.branch_flops / speed,
        scoring=_scoring_flops(trial) / speed,
        finetuning=0.0 if cell.stage.rung else tuning / (speed * _FINETUNING_SPEED),
        preparing=left,
    )


def _first_evaluation(cells: Sequence[_Cell], slots: int) -> float:
    """Return the seconds to the first evaluation of the next trial; 0 where no trial trains."""
    cell = next((cell for cell in cells if cell.untrained), None)
    if cell is None:
        return 0.0
    trial = cell.plan.trial
    parallel = slots if trial.trunk is None else 1  # the parts of a trunk follow one another
    before = plan.estimate_makespan([(1, seconds) for seconds in cell.preparing], parallel)
    return before + (cell.training + cell.scoring) / _count_evaluations(trial)


def _count_evaluations(trial: Trial) -> int:
    """Return the number of evaluations of a trial after its first step; of a branch, its own."""
    match trial.schedule:
        case TrunkSchedule(decay=decay) if decay:
            return max(1, round(decay * trial.evaluations))
        case _:
            return trial.evaluations


def _forward(trial: Trial, length: int | None = None) -> float:
    """Return the encoder's FLOPs of a forward pass, per token."""
    return sum(encoder_terms(trial.encoder, length or trial.data.length).values())


def _scoring_flops(trial: Trial) -> float:
    """Return the FLOPs of all evaluations of a trial.

    Each evaluation computes detection scores, scores the minimal pairs and fits the part-of-speech
    probe. The sentiment probe is fitted before training and after it.
    """
    forward, fit = _forward(trial), _PROBE_FIT_FLOPS * trial.encoder.hidden
    point = _PROBE_TOKENS["pos"] * forward + fit
    if "discriminator" in trial.objective.networks:
        point += _DETECTION_TOKENS * (
            forward + sum(discriminator_head_terms(trial.encoder).values())
        )
    point += sum(_PAIR_TOKENS.get(name, 0) for name in trial.objective.networks) * forward
    untrained = trial.trunk is None  # a branch has the evaluations of its trunk
    ends = 1 + untrained
    points = _count_evaluations(trial) + untrained
    return points * point + ends * _PROBE_TOKENS["sentiment"] * forward


def _finetuning_flops(trial: Trial, task: TaskSize) -> float:
    """Return the FLOPs of fine-tuning on a task with one seed, and of one evaluation pass."""
    length = min(trial.data.length, task.tokens)
    # A backward pass costs as much as two forward passes.
    rows = 3 * task.epochs * task.train + task.evaluation
    tokens = rows * task.windows_per_row(trial.data.length) * length
    return tokens * _forward(trial, length)


def _trial_phases(
    experiment: Experiment, cells: Sequence[_Cell], preparing: Sequence[float], slots: int
) -> list[Phase]:
    """Return the phases that run in the slots, with the wall-clock seconds of each."""
    busy = {
        "preparatory runs": sum(preparing),
        "training": sum(cell.untrained * cell.training for cell in cells),
        "scoring": sum(cell.untrained * cell.scoring for cell in cells),
        "fine-tuning": sum((cell.untrained + cell.untuned) * cell.finetuning for cell in cells),
    }
    trial = cells[0].plan.trial
    kind = "mlm runs that trials start from" if trial.trunk is None else "parts of trunks"
    evaluations = _count_evaluations(trial) + (trial.trunk is None)
    reasons = {
        "preparatory runs": f"{len(preparing)} {kind}, at most 2 evaluations each",
        "training": _describe_training(experiment, cells, slots),
        "scoring": f"{evaluations} evaluations per trial: held-out corruptions, probes, pairs",
        "fine-tuning": "every trial on every task and seed, in its slot",
    }
    jobs = [(1, seconds) for seconds in preparing]
    jobs += [(c.untrained, c.training + c.scoring + c.finetuning) for c in cells]
    jobs += [(c.untuned, c.finetuning) for c in cells]
    wall = plan.estimate_makespan(jobs, slots) / sum(busy.values())
    return [
        Phase(name=name, seconds=seconds * wall, why=reasons[name])
        for name, seconds in busy.items()
        if seconds or name in ("training", "scoring")
    ]


def _describe_training(experiment: Experiment, cells: Sequence[_Cell], slots: int) -> str:
    left = sum(cell.untrained for cell in cells)
    before = sum(cell.plan.runs for cell in cells) - left
    ended = f", {before} ended before" if before else ""
    limit = experiment.constraints.seconds or math.inf
    whole = [cell for cell in cells if cell.plan.stage.share == 1 and not cell.plan.stage.before]
    slow = sum(cell.training > limit for cell in whole)
    over = f"; expected to exceed constraints.seconds in {slow} of {len(whole)} cells"
    return f"{left} trials, {slots} at a time{ended}{over * bool(slow)}"


def _task_phases(tasks: Sequence[TaskSize]) -> list[Phase]:
    if not tasks:
        return []
    rows = sum(task.train + task.evaluation for task in tasks)
    return [
        Phase(
            name="tasks",
            seconds=rows / _TASK_ROWS_PER_SECOND,
            why=f"{rows:,} rows are read and checked",
        )
    ]


def _start_phase(uri: str) -> Phase:
    file = database_file(uri)
    new = file is not None and not file.exists()
    reason = "MLflow creates a new database" if new else "MLflow opens its store"
    return Phase(name="start", seconds=_NEW_STORE_SECONDS if new else _STORE_SECONDS, why=reason)


def _ray_phase() -> Phase:
    return Phase(
        name="Ray",
        seconds=_RAY_SECONDS + _ACTOR_SECONDS,
        why="Ray's processes start; each slot imports torch",
    )


def _report_phase() -> Phase:
    return Phase(
        name="report and model",
        seconds=_REPORT_SECONDS,
        why="figures are drawn; the best trial is exported, checked and logged",
    )


class _Text:
    """A text and its held-out corruptions, with the files that a storage has of them.

    Args:
        settings: settings of the text.
        storage: folder of records and caches; None to ignore finished work.
        pairs: minimal pairs of the experiment.

    Attributes:
        settings: settings of the text.
        folder: folder of the prepared text; None where it has to be prepared.
        held_out: file of the held-out corruptions; None where they have to be made.
        pairs: file of the prepared minimal pairs; None where they have to be prepared.
    """

    def __init__(
        self, settings: DataConfig, storage: File | None, pairs: tuple[MinimalPair, ...]
    ) -> None:
        self.settings = settings
        self.folder: File | None = None
        self.held_out: File | None = None
        self.pairs: File | None = None
        cache = None if storage is None else storage / "cache"
        sources = [part.source for part in text_parts.mixture_parts(settings)]
        self._remote = any(isinstance(source, HubDataset) for source in sources)
        sizes = [reading.estimate_size(source) for source in sources]
        known = [size for size in sizes if size is not None]
        self._bytes = None if len(known) < len(sizes) else sum(known)
        if cache is not None and not self._remote:
            self.folder = preparation.find_prepared(settings, cache)
        self._tokens = (
            (self._bytes or 0.0) * settings.share * (1 - settings.held_out) / _BYTES_PER_TOKEN
        )
        if self.folder is not None and cache is not None:
            corpus = batches.open_corpus(self.folder)
            self._tokens = float(corpus.train_NT.size)
            self.held_out = corruption.find_held_out(corpus, settings, cache)
            prepared = prepared_pairs.pairs_file(corpus, pairs, cache)
            self.pairs = prepared if prepared.exists() else None

    @property
    def epoch_tokens(self) -> float | None:
        """Tokens of one pass over the text; None if only its preparation shows them."""
        known = self.folder is not None or isinstance(self.settings.source, EmbeddedText)
        return self._tokens if known else None

    def phases(self, *, evaluated: bool) -> Sequence[Phase]:
        """Return the preparation, and the frozen model where trials are evaluated on this text."""
        return (self._preparation(), self._frozen()) if evaluated else (self._preparation(),)

    def _preparation(self) -> Phase:
        name = f"text, {self.settings.vocab:,} tokens, windows of {self.settings.length}"
        if self.folder is not None:
            return Phase(name=name, seconds=0.0, why="prepared before")
        if self._bytes is None:
            return Phase(
                name=name, seconds=None, why="its size on the Hub is not known before it is read"
            )
        seconds = self._bytes / 1e6 * (_READING_SECONDS + _TOKENIZING_SECONDS * self.settings.share)
        reason = f"{self._bytes / 1e6:,.0f} MB are read, tokenized and cut into windows, once"
        return Phase(name=name, seconds=seconds, why=reason)

    def _frozen(self) -> Phase:
        name = "frozen masked language model"
        if self.held_out is not None:
            return Phase(name=name, seconds=0.0, why="its corruptions were made before")
        tokens = round(self._tokens) or 10**12
        trial = corruption.frozen_model_trial(self.settings, tokens)
        steps = trial.budget.steps(step_cost(trial)) or 0
        # The frozen model is trained in the driver's process, on all of the machine's cores.
        seconds = (
            steps * step_cost(trial).flops / pace.measure_flops_per_second(trial)
            + _CORRUPTION_SECONDS
        )
        reason = f"trained on {trial.budget.amount:,.0f} tokens to make held-out corruptions, once"
        return Phase(name=name, seconds=seconds, why=reason)
