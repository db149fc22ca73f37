"""The mlm runs that a sweep trains before the trials that start from them, and what these cost.

Such a run is an ordinary trial with a record of its own, named by its fingerprint: two trials that
ask for the same one share it, in this sweep or in any other on the same storage.

A trial is charged for them: its budget counts stand-alone compute, what it takes to repeat the
trial from nothing. Its own training gets what the runs leave. Marginal compute, its own training
alone, is recorded beside it. What a trial starts from and the sweep does not train (`trial`,
`transformers`) is in no budget.
"""

from dataclasses import replace

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget, Spent
from lab.config.flops import mean_cost
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.objectives.generators import FrozenGeneratorConfig, JointObjectiveConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.trial import Trial, content_hash

KEPT, GENERATOR = "encoder", "generator"  # which network starts from a run


def frozen_start(trial: Trial) -> FromMlmRun | FromTrial | None:
    """Return what the trial's frozen generator is; None where the trial has none."""
    match trial.objective:
        case JointObjectiveConfig(generator=FrozenGeneratorConfig(init_from=start)):
            return start
        case _:
            return None


def preparatory_runs(trial: Trial) -> dict[str, Trial]:
    """Return the mlm runs that a trial's networks start from, by network; none for most trials.

    Each network starts from a run of its own shape, which is one run where the shapes are equal.
    """
    frozen, start = frozen_start(trial), trial.init_from
    generator = trial.objective.generator_shape(trial.encoder)
    runs = {}
    if isinstance(start, FromMlmRun):
        runs[KEPT] = _run(trial, trial.encoder, start)
        if generator is not None and frozen is None:
            runs[GENERATOR] = _run(trial, generator, start)
    if isinstance(frozen, FromMlmRun) and generator is not None:
        runs[GENERATOR] = _run(trial, generator, frozen)
    return runs


def preparatory_cost(trial: Trial) -> Spent:
    """Return what the trial's preparatory runs will spend together, each counted once.

    Within a step of each, which is how near a run comes to its budget; seconds are left out.
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


def own_budget(trial: Trial) -> Budget:
    """Return what the trial's budget leaves to its own training."""
    spent = preparatory_cost(trial)
    match trial.budget.kind:
        case "flops":
            return replace(trial.budget, amount=trial.budget.amount - spent.flops)
        case "tokens":
            return replace(trial.budget, amount=trial.budget.amount - spent.tokens)
        case "seconds":
            return trial.budget


def unstarted_identity(identity: str, run: str) -> str:
    """Return what names the inputs of a trial that could not start.

    Args:
        identity: of its inputs without weights to start from (`Supply.identity`).
        run: name of the record of the preparatory run that did not finish.
    """
    return content_hash([identity, run])


def describe(run: Trial) -> str:
    """Return a preparatory run in a few words: `mlm, 16 wide, 5e+11 flops, seed 1`."""
    budget = f"{run.budget.amount:.3g} {run.budget.kind}"
    return f"mlm, {run.encoder.hidden} wide, {budget}, seed {run.seeds.init}"


def _run(trial: Trial, shape: EncoderConfig, start: FromMlmRun) -> Trial:
    objective = trial.objective
    optim = trial.optim if start.lr is None else replace(trial.optim, lr=start.lr)
    return Trial(
        encoder=shape,
        objective=MlmConfig(kind="mlm", mask_prob=objective.mask_prob, masking=objective.masking),
        data=trial.data,
        windows=trial.windows,
        batch=trial.batch,
        optim=replace(optim, clip_scope="joint", generator_lr=1.0),  # of no effect on one network
        schedule=trial.schedule,
        budget=start.budget,
        seeds=trial.seeds,
        evaluations=1,
    )
