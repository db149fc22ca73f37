"""What a sweep would do, before it does it: `--dry-run`."""

import time
from dataclasses import dataclass

import numpy as np

from lab import space
from lab.design import searches
from lab.flops import encoder_weights, masked_slots, mean_cost
from lab.label import label
from lab.ladder import generator_of
from lab.live import duration
from lab.spec import AllTokensMlm, Experiment, Path, StepSettings, Trial, Value

# Both from single machines, hence an estimate: the trainer's share of what a bare matrix product
# reaches on one core (reports/LOG.md), and NVIDIA's ELECTRA-Base on an A100 (about 23 % of peak by
# the honest count, DeepLearningExamples), taken for any GPU.
_CPU_SHARE = 0.42
_GPU_FLOPS = 0.23 * 312e12
_ADAM_BYTES = 16  # weight, gradient and two moments in fp32


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One cell of the plan.

    Attributes:
        settings: its compared values.
        runs: searches and repeats.
        steps: of one run; None where only a clock knows.
        flops: honest, of one run; None likewise.
        seconds: of one run on this machine.
        memory: bytes of one run, without the libraries.
    """

    settings: dict[Path, Value]
    runs: int
    steps: int | None
    flops: float | None
    seconds: float
    memory: float


def estimate(experiment: Experiment) -> list[Estimate]:
    """Return the plan by cell."""
    resources = experiment.resources
    gpus = resources.gpus_per_worker
    speed = _GPU_FLOPS if gpus else _CPU_SHARE * _core_speed()
    speed *= resources.workers * (gpus or resources.cpus_per_worker)
    plan = []
    for cell in space.cells(experiment):
        trial = space.trial(experiment.base, cell)
        cost = mean_cost(trial)
        steps = trial.budget.steps(cost)
        flops = None if steps is None else float(steps * cost.flops)
        seconds = trial.budget.amount if flops is None else flops / speed
        plan.append(
            Estimate(
                settings=cell,
                runs=searches(experiment) + experiment.search.seeds,
                steps=steps,
                flops=flops,
                seconds=seconds,
                memory=_memory(trial),
            )
        )
    return plan


def text(experiment: Experiment, plan: list[Estimate], slots: int) -> str:
    """Return the plan for a person."""
    lines = [f"question: {experiment.question}", f"metric:   {experiment.metric.name}", ""]
    for cell in plan:
        name = label(cell.settings) or "one cell"
        steps = "as many steps as fit" if cell.steps is None else f"{cell.steps:,} steps"
        flops = "" if cell.flops is None else f", {cell.flops:.4g} FLOPs"
        lines.append(f"{name}: {cell.runs} trials of {steps}{flops}, {duration(cell.seconds)}")
    runs = sum(cell.runs for cell in plan)
    total = sum(cell.runs * (cell.flops or 0) for cell in plan)
    hours = sum(cell.runs * cell.seconds for cell in plan) / slots / 3_600
    memory = max(cell.memory for cell in plan)
    lines += [
        "",
        f"cells: {len(plan)}   trials: {runs}   FLOPs: {total:.4g}   slots: {slots}",
        f"estimate: {hours:.2g} hours, {memory / 2**30:.2g} GiB a trial beside the libraries "
        f"({_basis(experiment)})",
    ]
    after = experiment.finetune
    if after.tasks:
        tasks = ", ".join(after.tasks)
        lines.append(f"then, beside it: {after.seeds} runs each of fine-tuning on {tasks}")
    return "\n".join(lines)


def _basis(experiment: Experiment) -> str:
    if experiment.resources.gpus_per_worker:
        return "at 23 % of an A100's bf16 peak a GPU; scoring and start-up come on top"
    return "from a matrix product timed on this machine; scoring and start-up come on top"


def _core_speed() -> float:
    """Return FLOP/s of a small fp32 matrix product on one core, by processor time."""
    a, b = np.ones((2_048, 128), np.float32), np.ones((128, 512), np.float32)
    a @ b
    began, rounds = time.process_time(), 0
    while time.process_time() - began < 0.2:
        a @ b
        rounds += 1
    return rounds * 2 * 2_048 * 128 * 512 / (time.process_time() - began)


def _memory(trial: Trial) -> float:
    """Return bytes of weights, optimizer and activations of one step."""
    data, objective = trial.data, trial.objective
    generator = generator_of(objective, trial.encoder)
    shapes = [trial.encoder] if generator is None else [trial.encoder, generator]
    table = (data.vocab + data.length) * trial.encoder.embedding
    weights = table + sum(encoder_weights(shape) for shape in shapes)
    # A block keeps about 8 hidden-wide tensors and 2 ffn-wide ones for its backward pass; the
    # vocabulary head keeps logits, probabilities and their gradient.
    block = sum(shape.layers * (8 * shape.hidden + 2 * shape.ffn) for shape in shapes)
    everywhere = isinstance(objective, AllTokensMlm)

    def activations(now: StepSettings) -> int:
        slots = masked_slots(now.length, now.mask_prob) + everywhere * now.length
        return now.batch * (block * now.length + 3 * slots * data.vocab)

    most = max(activations(trial.at(progress)) for progress in trial.knots)
    return _ADAM_BYTES * weights + 4.0 * most
