"""Plan of a sweep as `--dry-run` prints it: trials, steps, FLOPs, memory, expected duration."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.config.costs.memory import estimate_memory
from lab.config.experiment import Experiment, Role, shorten
from lab.config.flops import mean_cost
from lab.config.labels import label
from lab.config.preparatory_runs import preparatory_cost, preparatory_runs, training_budget
from lab.config.schedules.trunk import TrunkSchedule
from lab.config.schedules.trunks import trunk_parts
from lab.config.trial import Path, Trial, Value
from lab.formatting import format_duration
from lab.loading import mask_checks, search_space
from lab.search.designs import (
    Stage,
    best_repeats,
    find_branch_points,
    grid_points,
    list_stages,
    random_points,
    search_points,
)
from lab.search.feasibility import count_infeasible


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """Plan of one stage of a cell: of the whole cell, except with halving.

    Attributes:
        settings: compared values of the cell.
        stage: the stage.
        trial: one of its trials.
        runs: number of its search trials and repeats, without infeasible settings.
        infeasible: number of its search settings that are known to violate a constraint.
        steps: optimizer steps of one trial; None for a budget in seconds.
        flops: FLOPs of one trial's own training; None for a budget in seconds.
        branch_flops: FLOPs of the part of it that no other trial shares: without its trunk, and
            without the shorter trial that it continues from.
        memory: bytes of memory of one trial, without the libraries.
    """

    settings: dict[Path, Value]
    stage: Stage
    trial: Trial
    runs: int
    infeasible: int
    steps: int | None
    flops: float | None
    branch_flops: float | None
    memory: float


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a sweep.

    Attributes:
        name: short name.
        seconds: expected wall-clock seconds; None where no estimate is possible.
        why: work that takes the time, or the reason why there is none.
    """

    name: str
    seconds: float | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Expected duration of a sweep on this machine.

    Attributes:
        phases: phases in order; they do not overlap, so that their seconds add up.
        slots: number of trials that run at the same time.
        first_score: seconds to the first evaluation; None where no trial is left to run.
        basis: description of the method of the estimate.
        warnings: reasons for doubt about the trials, one sentence each.
    """

    phases: tuple[Phase, ...]
    slots: int
    first_score: float | None
    basis: str
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Sum over all phases with an estimate."""
        return sum(phase.seconds or 0.0 for phase in self.phases)

    def line(self) -> str:
        """Return the expected duration in one line, which a sweep prints before it starts."""
        unknown = [phase.name for phase in self.phases if phase.seconds is None]
        more = f", and {', '.join(unknown)}" if unknown else ""
        if self.first_score is None:
            return f"expected: about {format_about(self.seconds)}{more}; no trial is left to run"
        return (
            f"expected: about {format_about(self.seconds)} on {self.slots} "
            f"slot{'s' * (self.slots > 1)}{more}; "
            f"first score after about {format_about(self.first_score)}"
        )


def plan_cells(experiment: Experiment) -> list[CellPlan]:
    """Return the plan of each stage of each cell."""
    return [
        _plan_stage(experiment, settings, stage)
        for settings in search_space.expand_cells(experiment)
        for stage in list_stages(experiment, count_infeasible(experiment, settings))
    ]


def _plan_stage(experiment: Experiment, settings: dict[Path, Value], stage: Stage) -> CellPlan:
    full = search_space.build_trial(experiment.base, settings)
    trial = shorten(full, stage.share)
    steps = training_budget(trial).steps(mean_cost(trial))
    flops = None if steps is None else _own_flops(trial)
    if trial.trunk is not None:
        shared = _flops(trial.trunk)
    else:
        shared = _own_flops(shorten(full, stage.before)) if stage.before else 0.0
    return CellPlan(
        settings=settings,
        stage=stage,
        trial=trial,
        runs=stage.count,
        infeasible=stage.infeasible,
        steps=steps,
        flops=flops,
        branch_flops=None if flops is None else flops - shared,
        memory=estimate_memory(trial),
    )


def _own_flops(trial: Trial) -> float:
    """Return the FLOPs of a trial without those of its preparatory runs."""
    cost = mean_cost(trial)
    return float(cost.flops * (training_budget(trial).steps(cost) or 0))


def _flops(run: Trial) -> float:
    """Return the FLOPs of a preparatory run from its first step."""
    cost = mean_cost(run)
    return float(cost.flops * (run.budget.steps(cost) or 0))


def plan_heading(experiment: Experiment, plan: Sequence[CellPlan], slots: int) -> str:
    """Return the part of the plan that needs no timing: cells, trials, steps, FLOPs and memory."""
    lines = [f"question: {experiment.question}", f"metric:   {experiment.metric.name}", ""]
    for cell in plan:
        name = label(cell.settings, experiment.compare) or "one cell"
        name += f", {cell.stage.name}" if cell.stage.name else ""
        steps = "as many steps as fit" if cell.steps is None else f"{cell.steps:,} steps"
        flops = "" if cell.flops is None else f", {cell.flops:.4g} FLOPs"
        left_out = f"; infeasible settings: {cell.infeasible}" if cell.infeasible else ""
        lines.append(f"{name}: {cell.runs} trials of {steps}{flops}{left_out}")
    if experiment.cost is not None and experiment.tune and best_repeats(experiment):
        lines.append("more repeats follow if several settings are on the front of a cell's search")
    cells = len(search_space.expand_cells(experiment))
    runs = sum(cell.runs for cell in plan)
    runs_before = preparatory_phase(experiment)
    lines += _describe_preparatory(runs_before)
    lines += mask_checks.mask_lines(search_space.corner_trials(experiment))
    total = sum(cell.runs * (cell.branch_flops or 0) for cell in plan) + sum(runs_before.values())
    alone = sum(cell.runs * _standalone_flops(cell) for cell in plan)
    if runs_before or any(cell.stage.before for cell in plan):
        shared = "runs that trials share are trained once"
        lines += ["", f"FLOPs: {alone:.4g} stand-alone, {total:.4g} marginal ({shared})"]
    most = max(cell.memory for cell in plan)
    lines += [
        "",
        f"cells: {cells}   trials: {runs}   FLOPs: {total:.4g}   slots: {slots}   "
        f"memory: {most / 2**30:.2g} GiB a trial, without the libraries",
    ]
    return "\n".join(lines)


def _describe_preparatory(runs: Mapping[Trial, float]) -> Iterator[str]:
    """Yield a line for mlm runs and one for trunks, where there are such."""
    trunks = {run: flops for run, flops in runs.items() if isinstance(run.schedule, TrunkSchedule)}
    if own := {run: flops for run, flops in runs.items() if run not in trunks}:
        yield f"preparatory mlm runs: {len(own)}, {sum(own.values()):.4g} FLOPs"
    if trunks:
        yield f"parts of trunks, each trained once: {len(trunks)}, {sum(trunks.values()):.4g} FLOPs"


def _standalone_flops(cell: CellPlan) -> float:
    """Return the FLOPs that it takes to train one trial of a cell from nothing."""
    return (cell.flops or 0) + preparatory_cost(cell.trial).flops


def preparatory_phase(experiment: Experiment) -> dict[Trial, float]:
    """Return the preparatory runs of all cells and seeds, each once, with the FLOPs of each.

    A part of a trunk has the FLOPs by which it extends the part before it.
    """
    points = find_branch_points(experiment)
    runs: dict[Trial, float] = {}
    for cell in search_space.expand_cells(experiment):
        runs |= preparatory_of_cell(experiment, cell, points)
    return runs


def preparatory_of_cell(
    experiment: Experiment, cell: Mapping[Path, Value], points: Mapping[Role, Sequence[float]]
) -> dict[Trial, float]:
    """Return the preparatory runs of a cell's trials, in the order of the trials, with their FLOPs.

    The nuisance parameters are approximate: random points replace the points of other samplers than
    the grid, and repeats take the values of the base. Learning rates that an mlm run inherits may
    therefore differ from those of the sweep; the number of runs hardly does. Cells of a trunk are
    assumed to select the same nuisance parameters, and the first settings to continue past a rung.

    Args:
        experiment: experiment to run.
        cell: compared values of the cell.
        points: budgets at which trials leave their trunks (`find_branch_points`).
    """
    base = search_space.build_trial(experiment.base, cell)
    if not preparatory_runs(base) and base.trunk is None:
        return {}
    settings = [
        search_space.build_trial(experiment.base, dict(cell) | point)
        for point in _points(experiment)
    ]
    runs: dict[Trial, float] = {}
    for stage in list_stages(experiment):
        for repeat, count in stage.trials.items():
            role: Role = "repeat" if repeat in best_repeats(experiment) else "search"
            for trial in settings[:count] if role == "search" else [base]:
                seeded = replace(trial, seeds=trial.seeds.repeat(repeat))
                runs |= preparatory_of_trial(shorten(seeded, stage.share), points[role])
    return runs


def preparatory_of_trial(trial: Trial, points: Sequence[float]) -> dict[Trial, float]:
    """Return the preparatory runs of a trial in order, with the FLOPs of each.

    Args:
        trial: the trial.
        points: budgets at which trials leave its trunk.
    """
    parts = trunk_parts(trial, points)
    ends = [0.0, *map(_flops, parts)]
    own = {part: end - before for part, before, end in zip(parts, ends[:-1], ends[1:], strict=True)}
    return {run: _flops(run) for run in preparatory_runs(trial).values()} | own


def _points(experiment: Experiment) -> list[dict[Path, Value]]:
    """Return nuisance parameters for all search trials of a cell."""
    tune, search = experiment.tune, experiment.search
    if tune and search.sampler == "grid":
        return grid_points(tune, search.trials)
    return [random_points(tune, search.seed, number) for number in range(search_points(experiment))]


def plan_table(expected: Expectation) -> str:
    """Return the phases with their durations and reasons, the total, and the summary line."""
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
    """Return a duration rounded to the precision of an estimate: `65 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 600:
        return f"{seconds / 60:.1f}".removesuffix(".0") + " min"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3_600:,.1f} h" if seconds < 36_000 else f"{seconds / 3_600:,.0f} h"


def estimate_makespan(jobs: Iterable[tuple[int, float]], slots: int) -> float:
    """Return the seconds in which `slots` run all jobs, where each free slot takes the next job.

    Args:
        jobs: pairs of the number of equal jobs and the seconds of one of them, in order.
        slots: number of jobs that run at the same time.
    """
    free_at = [0.0] * slots  # a heap of the times at which the slots are free again
    for count, seconds in jobs:
        for _ in range(count):
            heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)
