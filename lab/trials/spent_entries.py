"""Compute that a trial has spent, as entries of its scored points."""

from lab.config.budget import Spent
from lab.config.results import MetricRow
from lab.trials.assignment import Assignment


def spent_entries(spent: Spent, work: Assignment, charged_flops: float = 0.0) -> MetricRow:
    """Return the `spent/*` entries of a point and the rates computed from them.

    Runs that initial weights are taken from are included, except in the steps, the marginal FLOPs
    and the rates. Stand-alone FLOPs also include the earlier trials that the trial starts from; the
    entry is missing if their compute is unknown.

    Args:
        spent: resources that the trial's own run has used, from its first step.
        work: trial with its files.
        charged_flops: FLOPs of the run's beginning for which other trials are charged.
    """
    seconds, charged = max(spent.seconds, 1e-9), work.charged
    row = {
        "spent/steps": spent.steps,
        "spent/tokens": spent.tokens + charged.tokens,
        "spent/flops": spent.flops + charged.flops,
        "spent/paper_flops": spent.paper_flops + charged.paper_flops,
        "spent/six_n": spent.six_n + charged.six_n,
        "spent/seconds": spent.seconds + charged.seconds,
        "spent/marginal_flops": max(0.0, spent.flops - charged_flops),
        "health/tokens_per_second": spent.tokens / seconds,
        "health/flops_per_second": spent.flops / seconds,
    }
    if work.earlier_flops is not None:
        row["spent/standalone_flops"] = row["spent/flops"] + work.earlier_flops
    return row
