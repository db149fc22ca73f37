"""What a sweep will run, and how long its parts will take: the words of `--dry-run`."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.config.budget import Cost
from lab.config.experiment import Experiment
from lab.config.flops import encoder_weights, masked_slots, mean_cost
from lab.config.labels import label
from lab.config.phases import UpdatedNetworks
from lab.config.preparatory_runs import own_budget, preparatory_runs
from lab.config.ramps import StepSettings
from lab.config.trial import Path, Trial, Value
from lab.formatting import format_duration
from lab.loading import search_space
from lab.search.designs import grid_points, random_points, search_points

_ADAM_BYTES = 16  # weight, gradient and two moments in fp32


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """One cell's runs.

    Attributes:
        settings: its compared values.
        trial: one of its runs.
        runs: searches and repeats.
        steps: of one run; None where only a clock knows.
        flops: honest, of one run's own training; None likewise.
        memory: bytes of one run, without the libraries.
    """

    settings: dict[Path, Value]
    trial: Trial
    runs: int
    steps: int | None
    flops: float | None
    memory: float


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a sweep.

    Attributes:
        name: in a few words.
        seconds: of wall clock; None where they cannot be known beforehand.
        why: what takes the time, or why it takes none.
    """

    name: str
    seconds: float | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """How long a sweep will take on this machine.

    Attributes:
        phases: in order; they follow each other, so their seconds add up.
        slots: trials at once.
        first_score: seconds to the first scored point of a training run; None where none is left.
        basis: how the seconds were found.
    """

    phases: tuple[Phase, ...]
    slots: int
    first_score: float | None
    basis: str

    @property
    def seconds(self) -> float:
        """Total of all phases that are known."""
        return sum(phase.seconds or 0.0 for phase in self.phases)

    def line(self) -> str:
        """Return the expectation in one line, as a sweep prints it first."""
        unknown = [phase.name for phase in self.phases if phase.seconds is None]
        more = f", and {', '.join(unknown)}" if unknown else ""
        if self.first_score is None:
            return f"expected: about {format_about(self.seconds)}{more}; no trial is left to run"
        return (
            f"expected: about {format_about(self.seconds)} on {self.slots} "
            f"slot{'s' * (self.slots > 1)}{more}; first score after about {format_about(self.first_score)}"
        )


def plan_cells(experiment: Experiment) -> list[CellPlan]:
    """Return the plan by cell."""
    plan = []
    for settings in search_space.expand_cells(experiment):
        trial = search_space.build_trial(experiment.base, settings)
        cost = mean_cost(trial)
        steps = own_budget(trial).steps(cost)
        plan.append(
            CellPlan(
                settings=settings,
                trial=trial,
                runs=search_points(experiment) + experiment.search.seeds,
                steps=steps,
                flops=_flops(steps, cost),
                memory=estimate_memory(trial),
            )
        )
    return plan


def _flops(steps: int | None, cost: Cost) -> float | None:
    return None if steps is None else float(steps * cost.flops)


def plan_heading(experiment: Experiment, plan: Sequence[CellPlan], slots: int) -> str:
    """Return what will be run: known at once, without timing anything."""
    lines = [f"question: {experiment.question}", f"metric:   {experiment.metric.name}", ""]
    for cell in plan:
        name = label(cell.settings, experiment.compare) or "one cell"
        steps = "as many steps as fit" if cell.steps is None else f"{cell.steps:,} steps"
        flops = "" if cell.flops is None else f", {cell.flops:.4g} FLOPs"
        lines.append(f"{name}: {cell.runs} trials of {steps}{flops}")
    runs = sum(cell.runs for cell in plan)
    runs_before = preparatory_phase(experiment)
    before = sum(cost.flops * (run.budget.steps(cost) or 0) for run, cost in runs_before.items())
    if runs_before:
        lines.append(f"before them: preparatory mlm runs: {len(runs_before)}, {before:.4g} FLOPs")
    total = sum(cell.runs * (cell.flops or 0) for cell in plan) + before
    most = max(cell.memory for cell in plan)
    lines += [
        "",
        f"cells: {len(plan)}   trials: {runs}   FLOPs: {total:.4g}   slots: {slots}   "
        f"memory: {most / 2**30:.2g} GiB a trial beside the libraries",
    ]
    return "\n".join(lines)


def preparatory_phase(experiment: Experiment) -> dict[Trial, Cost]:
    """Return the preparatory runs of all cells and seeds, each once, with what a step costs."""
    cells = search_space.expand_cells(experiment)
    runs = (run for cell in cells for run in preparatory_of_cell(experiment, cell))
    return {run: mean_cost(run) for run in dict.fromkeys(runs)}


def preparatory_of_cell(experiment: Experiment, cell: Mapping[Path, Value]) -> list[Trial]:
    """Return the preparatory runs of a cell's trials, each once, in the order of the trials.

    Random points stand in for those of a sampler other than the grid, and repeats have the base's
    nuisances: this changes which rates an mlm run takes over, and hardly how many runs there are.
    """
    base = search_space.build_trial(experiment.base, cell)
    if not preparatory_runs(base):
        return []
    trials = [
        search_space.build_trial(experiment.base, dict(cell) | point)
        for point in _points(experiment)
    ]
    trials += [
        replace(base, seeds=base.seeds.repeat(n + 1)) for n in range(experiment.search.seeds)
    ]
    return list(dict.fromkeys(run for t in trials for run in preparatory_runs(t).values()))


def _points(experiment: Experiment) -> list[dict[Path, Value]]:
    """Return nuisances of a cell's search, as many as it tries."""
    tune, search = experiment.tune, experiment.search
    if tune and search.sampler == "grid":
        return grid_points(tune, search.trials)
    return [random_points(tune, search.seed, number) for number in range(search_points(experiment))]


def plan_table(expected: Expectation) -> str:
    """Return the phases with their seconds and reasons, and the total."""
    rows = [
        (
            phase.name,
            "unknown" if phase.seconds is None else format_duration(phase.seconds),
            phase.why,
        )
        for phase in expected.phases
    ]
    rows.append(("total", format_duration(expected.seconds), expected.basis))
    names, times = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{name:<{names}}  {time:>{times}}  {why}".rstrip() for name, time, why in rows]
    return "\n".join([*lines, "", expected.line()])


def format_about(seconds: float) -> str:
    """Return a duration with the digits that an estimate deserves."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3_600:,.1f} h" if seconds < 36_000 else f"{seconds / 3_600:,.0f} h"


def estimate_makespan(jobs: Iterable[tuple[int, float]], slots: int) -> float:
    """Return the seconds in which `slots` work off jobs, each slot taking the next one when free.

    Args:
        jobs: counts of equal jobs in order, and the seconds of one.
        slots: how many run at once.
    """
    free = [0.0] * slots  # a heap: when each slot is free again
    for count, seconds in jobs:
        for _ in range(count):
            heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def estimate_memory(trial: Trial) -> float:
    """Return bytes of weights, optimizer and activations of one step."""
    data, objective = trial.data, trial.objective
    generator = objective.generator_shape(trial.encoder)
    shapes = [trial.encoder] if generator is None else [trial.encoder, generator]
    table = (data.vocab + data.length) * trial.encoder.embedding
    weights = table + sum(encoder_weights(shape) for shape in shapes)
    # A block keeps about 8 hidden-wide tensors and 2 ffn-wide ones for its backward pass; the
    # vocabulary head keeps logits, probabilities and their gradient.
    block = sum(shape.layers * (8 * shape.hidden + 2 * shape.ffn) for shape in shapes)
    passes = objective.passes(trial.encoder, UpdatedNetworks.ALL)
    everywhere = any(one.head == "vocabulary_at_all_tokens" for one in passes)

    def activations(now: StepSettings) -> int:
        slots = masked_slots(now.length, now.mask_prob) + everywhere * now.length
        return now.batch * (block * now.length + 3 * slots * data.vocab)

    most = max(activations(trial.at(progress)) for progress in trial.knots)
    return _ADAM_BYTES * weights + 4.0 * most
