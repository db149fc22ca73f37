"""The runs that would make a compute-optimal size surer, for equal compute.

A c-optimal design (Atkinson, Donev and Tobias 2007, chapter 10): the variance of the log optimal
size is c' V c, with the covariance V of the law's parameters and the derivatives c of the log size.
n runs at one point whose log loss has the derivatives j reduce it by (c' V j)^2 / (s^2 / n + j' V
j), with the variance s^2 of the noise. All points are compared at the same total of FLOPs, so that
a cheap point is compared by as many runs as a dear one costs: a reduction per FLOP alone would
prefer the cheapest run, whatever it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lab.scaling.delta_method import gradients_KP, shifted_log_sizes, standard_errors_K
from lab.scaling.flops import Floats, FlopsPerToken
from lab.scaling.law import LawFit
from lab.scaling.predictions import loss_gradients_KP, losses_at
from lab.scaling.solver.huber import normal_moments


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """Proposed runs of one size and token count.

    Attributes:
        parameters: number of parameters.
        tokens: tokens of each run.
        flops: FLOPs of each run.
        runs: number of runs.
        error: standard error of the log optimal size now.
        error_after: the same after these runs.
    """

    parameters: float
    tokens: float
    flops: float
    runs: int
    error: float
    error_after: float


def propose_runs(
    fit: LawFit, target: float, per_token: FlopsPerToken, sizes_S: Floats, spend: float
) -> NextRuns:
    """Return the runs that reduce the standard error of the log optimal size most.

    Candidates are all pairs of a size and a budget that was run or `spend`. Sizes are not proposed
    at budgets at which no run of their size, or of a larger one, is fitted: a run there could end
    before its loss leaves the plateau.

    Args:
        fit: the law.
        target: budget of the optimal size, in FLOPs.
        per_token: FLOPs per token of a size.
        sizes_S: sizes to consider.
        spend: FLOPs of all proposed runs together, at least those of the largest budget.
    """
    batch = fit.batch
    covariance_PP = batch.covariance_KPP()[0]
    gradients = gradients_KP(
        batch, lambda shift: shifted_log_sizes(batch, shift, target, per_token)
    )
    toward_P = covariance_PP @ gradients[0]
    error = float(standard_errors_K(batch.covariance_KPP(), gradients)[0])
    inside, square = (
        float(moment[0]) for moment in normal_moments(batch.deviations_K, batch.delta)
    )
    noise = square / inside**2
    found = []
    for size, budget in _candidates(fit, sizes_S, spend):
        tokens = budget / float(per_token(np.array([size]))[0])
        centered = np.log([[size, tokens]]) - batch.centers_Kp
        row_P = loss_gradients_KP(batch, centered)[0] / losses_at(batch, centered)[0]
        runs = int(spend / budget * (1 + 1e-9))
        gain = float(row_P @ toward_P) ** 2 / (noise / runs + float(row_P @ covariance_PP @ row_P))
        after = float(np.sqrt(max(error**2 - gain, 0.0)))
        found.append(
            NextRuns(
                parameters=size,
                tokens=tokens,
                flops=budget,
                runs=runs,
                error=error,
                error_after=after,
            )
        )
    return min(found, key=lambda runs: runs.error_after)


def _candidates(fit: LawFit, sizes_S: Floats, spend: float) -> Iterator[tuple[float, float]]:
    points = fit.points
    budgets = sorted({*points.budgets_n.tolist(), spend})
    for size in sizes_S.tolist():
        learned = points.budgets_n[points.parameters_n >= size * (1 - 1e-9)]
        least = float(learned.min()) if len(learned) else float(points.budgets_n.max())
        yield from ((size, budget) for budget in budgets if least <= budget <= spend * (1 + 1e-9))
