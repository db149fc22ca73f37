"""Detect divergence.

A run has diverged if a metric is NaN or infinite, or if a loss exceeds that of an uninformed
predictor by more than 2 ln 2 nats.
"""

import math

from lab.config.results import MetricRow
from lab.storage import record

_MARGIN = 2 * math.log(2)  # nats; the loss of an untrained network may exceed the limit by ln 2


class DivergedError(ArithmeticError):
    """The training has diverged."""


def divergence_reason(row: MetricRow, vocab: int, *, early: bool = False) -> str | None:
    """Return the reason why a run has diverged at a scored point, or None if it has not.

    The losses are means since the previous point. The uninformed predictor of the discriminator
    predicts the share of replaced tokens among those that can be replaced, and "original" at
    [CLS] and [SEP] (`training.objectives.base.uninformed_loss`), so that the limit accounts for
    the mask rate. That of the masked language model predicts all words with equal probability.

    Args:
        row: scored point.
        vocab: size of the vocabulary.
        early: whether it is one of the first two points; only NaN and infinite values count there,
            because the losses of weights with a large initial standard deviation start higher.
    """
    step = f"at step {row['spent/steps']:.0f}"
    if (name := record.non_finite_metrics(row)) is not None:
        return f"{name} is not finite {step}"
    if early:
        return None
    uninformed = {
        "train/discriminator_loss": row.get("health/majority_loss", math.inf),
        "train/mlm_loss": math.log(vocab),
        "train/auxiliary_loss": math.log(vocab),
    }
    for name, limit in uninformed.items():
        if (loss := row.get(name, -math.inf)) > limit + _MARGIN:
            return f"{name} is {loss:.3g} {step}; that of an uninformed predictor is {limit:.3g}"
    return None
