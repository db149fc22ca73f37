"""Warnings about a valid sweep that cannot answer its question, or answers it badly."""

import math
from collections.abc import Collection
from typing import NamedTuple

from lab.config.experiment import Experiment
from lab.config.flops import encoder_weights, mean_cost
from lab.config.trial import Trial
from lab.loading import comparability, mask_checks, search_space
from lab.loading.learned_sizes import LEARNED, MIN_TO_LEARN

_FEWEST_SIZES = 3  # from which a report fits a law or a trend of the learning rate


class StepSettings(NamedTuple):
    """Settings of a run that set how many tokens Adam's averages and weight decay reach over.

    Attributes:
        tokens: tokens of an optimizer step.
        beta2: decay rate of Adam's running mean of the squared gradient.
        weight_decay: decoupled weight decay.
    """

    tokens: float
    beta2: float
    weight_decay: float


def collect_warnings(experiment: Experiment) -> tuple[str, ...]:
    """Return the warnings about an experiment, one line each."""
    cells = search_space.corner_trials(experiment)
    trials = [trial for of_cell in cells for trial in of_cell]
    warnings = (
        _describe_single_seed(experiment),
        comparability.describe_confounding(experiment, trials),
        comparability.describe_bias(experiment, trials),
        mask_checks.describe_coarse_range(experiment, [of_cell[0] for of_cell in cells]),
        _describe_early_rung(experiment, trials),
        _describe_rungs_without_cooldown(experiment, trials),
        _describe_batches_of_sizes(trials),
    )
    return tuple(warning for warning in warnings if warning is not None)


def _describe_early_rung(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Return a warning if the first rung is before encoders of a size start to learn."""
    stopping = experiment.search.stopping
    if stopping is None:
        return None
    for trial in trials:
        known = [row.low for row in LEARNED if row.encoder == trial.encoder]
        least = known[0] if known else MIN_TO_LEARN
        reached = stopping.first_rung * trial.budget.amount
        if trial.budget.kind == "flops" and reached < least:
            size = "this size" if known else "any measured size"
            return (
                f"search.stopping.first_rung: the first rung is at {reached:.3g} FLOPs, before "
                f"encoders of {size} start to score above untrained ones ({least:.3g} FLOPs, "
                f"docs/sizes.md); the rung selects at random"
            )
    return None


def _describe_rungs_without_cooldown(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Return a warning if settings are selected at rungs by scores that are not cooled down."""
    kinds = {trial.schedule.kind for trial in trials}
    if experiment.search.stopping is None or kinds == {"trunk"}:
        return None
    return (
        "search.stopping: the scores at rungs are not cooled down, because the learning rate is "
        "constant, and may order the settings in another way than those of cooled-down models; "
        "base.schedule {kind: trunk, ...} compares cooled-down branches "
        "(search_spaces/halving_trunk.yaml)"
    )


def _describe_single_seed(experiment: Experiment) -> str | None:
    cells = math.prod(len(values) for values in experiment.compare.values())
    if experiment.answer != "ranking" or cells < 2 or experiment.search.seeds > 1:
        return None
    return (
        "search.seeds: 1 runs each setting once, so no confidence interval can be computed and no "
        "difference between settings can be shown; use 3 or more, for example --set search.seeds=3"
    )


def _describe_batches_of_sizes(trials: list[Trial]) -> str | None:
    """Return `describe_batches` for trials of so many sizes that a report fits a law to them."""
    sizes = {encoder_weights(trial.encoder) for trial in trials}
    if len(sizes) < _FEWEST_SIZES or any(trial.budget.kind != "flops" for trial in trials):
        return None
    found = describe_batches(
        {
            StepSettings(mean_cost(trial).tokens, trial.optim.beta2, trial.optim.weight_decay)
            for trial in trials
        }
    )
    return None if found is None else f"batch: {found}"


def describe_batches(runs: Collection[StepSettings]) -> str | None:
    """Return a warning if runs differ in the batch, but in none of the settings that belong to it.

    The best β2 depends on the batch (Porian et al. 2024, arXiv 2406.19146), and so does the best
    weight decay, in proportion to it (Bergsma et al. 2025, arXiv 2505.13738).

    Args:
        runs: settings of the runs of a law, or of a trend of the learning rate.
    """
    tokens, betas, decays = (set(values) for values in zip(*runs, strict=True))
    if len(tokens) < 2:
        return None
    small, large = min(tokens), max(tokens)
    same, advised = [], []
    if len(betas) == 1:
        beta2 = betas.pop()
        same.append(f"optim.beta2 ({beta2:g})")
        advised.append(f"optim.beta2 {beta2 ** (large / small):.3g}")
    if len(decays) == 1 and (decay := decays.pop()) > 0:
        same.append(f"optim.weight_decay ({decay:g})")
        advised.append(f"optim.weight_decay {decay * large / small:.3g}")
    if not same:
        return None
    return (
        f"the runs have {small:,.0f} to {large:,.0f} tokens a step but the same "
        f"{' and '.join(same)}; Adam's mean of squared gradients and weight decay act over a "
        "number of steps, so in larger batches they reach over more tokens, and the law and the "
        "best learning rates contain this difference (Porian et al. 2024; Bergsma et al. 2025); "
        f"use one batch, or one sweep a batch with {' and '.join(advised)} at {large:,.0f} tokens "
        "if the values are right for the smallest batch"
    )
