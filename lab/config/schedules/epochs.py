"""Check of objectives that depend on epochs, for which the size of the text must be known."""

from lab.config.flops import step_cost
from lab.config.preparatory_runs import training_budget
from lab.config.trial import Trial


def check_epochs(trial: Trial, windows: int) -> None:
    """Check that a run has as many epochs as its objective needs to update every network.

    A budget of seconds is not checked, because its number of steps is not known.

    Args:
        trial: configuration of the trial.
        windows: number of full training windows of its text.

    Raises:
        ValueError: there are too few epochs, or a step reads more than an epoch.
    """
    required = trial.objective.minimum_epochs()
    if not required:
        return
    epoch = windows * trial.data.length
    at_breakpoints = map(trial.settings_at, trial.breakpoints)
    step = max(settings.batch * settings.length for settings in at_breakpoints)
    if step > epoch:
        raise ValueError(
            f"base.batch: a step reads {step:,} tokens and an epoch of the text has {epoch:,}; "
            f"networks that are updated by epochs need at least one step in each"
        )
    cost = step_cost(trial, trial.objective.phase_at(0, 0.0).updates)
    steps = training_budget(trial).steps(cost)
    if steps is not None and (read := steps * cost.tokens) < required * epoch + step:
        raise ValueError(
            f"base.objective.rule: the budget ends after {read:,} tokens, before the second "
            f"network is updated; {required} x {epoch:,} tokens are the first network's turn; "
            f"use a larger budget, a smaller base.data.share or kind alternation"
        )
