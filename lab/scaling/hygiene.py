"""Which runs a law may be fitted to.

Losses in the middle of a decay are not comparable; more than four epochs of data are worth less
than new data (Muennighoff et al. 2023, arXiv 2305.16264); and a law describes neither a run that
has not learned nor one that is still on the plateau at the start of training.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from lab.scaling.runs import Floats, Run

MOST_EPOCHS = 4.0


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A run that is not fitted.

    Attributes:
        run: the run.
        reason: why, in words.
    """

    run: Run
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that a law is fitted to, and the others.

    Attributes:
        kept: runs that are fitted.
        excluded: all other runs, with reasons.
    """

    kept: tuple[Run, ...]
    excluded: tuple[Exclusion, ...]


def select_runs(runs: Iterable[Run]) -> Selection:
    """Return which runs a law may be fitted to; each other one with the first reason that holds."""
    kept, excluded = [], []
    for run in runs:
        reason = next((text for check in _CHECKS if (text := check(run))), None)
        if reason is None:
            kept.append(run)
        else:
            excluded.append(Exclusion(run=run, reason=reason))
    return Selection(kept=tuple(kept), excluded=tuple(excluded))


def _diverged(run: Run) -> str | None:
    return "diverged" if run.diverged else None


def _no_loss(run: Run) -> str | None:
    return None if math.isfinite(run.loss) and run.loss > 0 else f"loss is {run.loss:g}"


def _not_cooled_down(run: Run) -> str | None:
    return None if run.cooled_down else "not cooled down: its learning rate had not decayed"


def _many_epochs(run: Run) -> str | None:
    if run.epochs is None or run.epochs <= MOST_EPOCHS:
        return None
    return f"{run.epochs:.1f} epochs of its data, more than {MOST_EPOCHS:g}"


def _untrained(run: Run) -> str | None:
    if run.untrained is None or run.loss < run.untrained:
        return None
    return f"no better than untrained: {run.loss:.4g}, untrained {run.untrained:.4g}"


def _on_plateau(run: Run) -> str | None:
    if run.plateau_end is None or run.tokens > run.plateau_end:
        return None
    if math.isinf(run.plateau_end):
        return "has not left its plateau"
    return f"ends before its plateau does: {run.tokens:.3g} of {run.plateau_end:.3g} tokens"


_CHECKS: tuple[Callable[[Run], str | None], ...] = (
    _diverged,
    _no_loss,
    _not_cooled_down,
    _many_epochs,
    _untrained,
    _on_plateau,
)


def plateau_end(tokens_T: Floats, losses_T: Floats, level: float, drop: float) -> float:
    """Return the tokens from which on the loss is below its plateau; infinite if it never is.

    Args:
        tokens_T: tokens of the evaluations, increasing.
        losses_T: losses of the evaluations.
        level: loss on the plateau, for example that of a unigram predictor.
        drop: difference from `level` that counts as below, larger than the noise of a loss.
    """
    above = np.flatnonzero(losses_T > level - drop)
    after = int(above[-1]) + 1 if len(above) else 0
    return float(tokens_T[after]) if after < len(tokens_T) else math.inf
