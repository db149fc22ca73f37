"""Warnings about a valid sweep that cannot answer its question, or answers it badly."""

import math

from lab.config.experiment import Experiment
from lab.config.trial import Trial
from lab.loading import comparability, mask_checks, search_space
from lab.loading.learned_sizes import LEARNED, MIN_TO_LEARN


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
    )
    return tuple(warning for warning in warnings if warning is not None)


def _describe_early_rung(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Return a warning if trials pause before encoders of their size start to learn."""
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
                f"search.stopping.first_rung: trials pause after {reached:.3g} FLOPs, before "
                f"encoders of {size} start to score above untrained ones ({least:.3g} FLOPs, "
                f"docs/sizes.md); the rung selects at random"
            )
    return None


def _describe_single_seed(experiment: Experiment) -> str | None:
    cells = math.prod(len(values) for values in experiment.compare.values())
    if experiment.answer != "ranking" or cells < 2 or experiment.search.seeds > 1:
        return None
    return (
        "search.seeds: 1 runs each setting once, so no confidence interval can be computed and no "
        "difference between settings can be shown; use 3 or more, for example --set search.seeds=3"
    )
