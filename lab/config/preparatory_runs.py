"""Preparatory mlm runs, which a sweep trains before the trials that start from them.

A preparatory run is an ordinary trial with its own record, named by its fingerprint. Trials that
need the same run share it, within a sweep and between sweeps on the same storage.

The budget of a trial includes its preparatory runs: it counts stand-alone compute, the compute
needed to repeat the trial from scratch. The trial's own training gets the remaining budget.
Marginal compute, that of the trial's own training, is recorded too. Weights from sources that the
sweep does not train (`trial`, `transformers`) are not counted in any budget.
"""

from dataclasses import replace

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget, Spent
from lab.config.flops import mean_cost
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.objectives.generators import FrozenGeneratorConfig, JointObjectiveConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.schedules.trunk import TrunkSchedule
from lab.config.trial import Trial, content_hash

ENCODER, GENERATOR = "encoder", "generator"  # the network that a run initializes


def frozen_generator_source(trial: Trial) -> FromMlmRun | FromTrial | None:
    """Return the source of the trial's frozen generator; None if it has no frozen generator."""
    match trial.objective:
        case JointObjectiveConfig(generator=FrozenGeneratorConfig(init_from=start)):
            return start
        case _:
            return None


def preparatory_runs(trial: Trial) -> dict[str, Trial]:
    """Return the mlm runs that a trial's networks start from, by network; empty for most trials.

    Each network starts from a run of its own shape. Networks of equal shape share one run.
    """
    frozen, start = frozen_generator_source(trial), trial.init_from
    generator = trial.objective.generator_shape(trial.encoder)
    runs = {}
    if isinstance(start, FromMlmRun):
        runs[ENCODER] = _mlm_trial(trial, trial.encoder, start)
        if generator is not None and frozen is None:
            runs[GENERATOR] = _mlm_trial(trial, generator, start)
    if isinstance(frozen, FromMlmRun) and generator is not None:
        runs[GENERATOR] = _mlm_trial(trial, generator, frozen)
    return runs


def preparatory_cost(trial: Trial) -> Spent:
    """Return the predicted cost of all preparatory runs of the trial, each run counted once.

    The prediction is accurate to one step of each run. Seconds are not predicted and are 0.
    """
    total = Spent()
    for run in dict.fromkeys(preparatory_runs(trial).values()):
        cost = mean_cost(run)
        steps = run.budget.steps(cost) or 0
        total = Spent(
            steps=total.steps + steps,
            tokens=total.tokens + steps * cost.tokens,
            flops=total.flops + steps * cost.flops,
            paper_flops=total.paper_flops + steps * cost.paper_flops,
            six_n=total.six_n + steps * cost.six_n,
        )
    return total


def training_budget(trial: Trial) -> Budget:
    """Return the trial's budget without the cost of its preparatory runs."""
    spent = preparatory_cost(trial)
    match trial.budget.kind:
        case "flops":
            return replace(trial.budget, amount=trial.budget.amount - spent.flops)
        case "tokens":
            return replace(trial.budget, amount=trial.budget.amount - spent.tokens)
        case "seconds":
            return trial.budget


def unstarted_identity(identity: str, run: str) -> str:
    """Return the identity of the inputs of a trial that could not start.

    Args:
        identity: identity of the trial's inputs without initial weights (`TrialInputs.identity`).
        run: name of the record of the preparatory run that did not finish.
    """
    return content_hash([identity, run])


def describe(run: Trial) -> str:
    """Return a short description of a preparatory run: `mlm, 16 wide, 5e+11 flops, seed 1`."""
    is_trunk = isinstance(run.schedule, TrunkSchedule)
    name = f"trunk of {run.objective.kind}" if is_trunk else "mlm"
    budget = f"{run.budget.amount:.3g} {run.budget.kind}"
    return f"{name}, {run.encoder.hidden} wide, {budget}, seed {run.seeds.init}"


def _mlm_trial(trial: Trial, shape: EncoderConfig, start: FromMlmRun) -> Trial:
    objective = trial.objective
    optim = trial.optim if start.lr is None else replace(trial.optim, lr=start.lr)
    return Trial(
        encoder=shape,
        objective=MlmConfig(
            kind="mlm", mask_prob=objective.mask_prob, masking=objective.mlm_masking
        ),
        data=trial.data,
        windows=trial.windows,
        batch=trial.batch,
        # Neither setting affects a single network; fixed values let more trials share the run.
        optim=replace(optim, clip_scope="joint", generator_lr=1.0),
        schedule=trial.schedule,
        budget=start.budget,
        seeds=trial.seeds,
        evaluations=1,
    )
