"""When a run is lost: it has learned less than nothing."""

import math

from lab.config.results import MetricRow
from lab.storage import record

_FAR = 2 * math.log(2)  # nats; two coins, for an untrained network may be one from the line


def divergence_reason(row: MetricRow, vocab: int, *, early: bool = False) -> str | None:
    """Return why a run that has come to this point has diverged; None where it has not.

    A number that is none, or a mean loss since the last point that is two coins' above that of
    knowing nothing: for detection the majority's answer at the rate of replacement (trap 8), for
    prediction all words alike.

    Args:
        row: a scored point.
        vocab: words there are.
        early: whether it is the first after the start, which wide weights may have been far off.
    """
    step = f"at step {row['spent/steps']:.0f}"
    if (name := record.non_finite_metrics(row)) is not None:
        return f"{name} is not finite {step}"
    if early:
        return None
    lines = {
        "train/discriminator_loss": row.get("health/majority_loss", math.inf),
        "train/mlm_loss": math.log(vocab),
    }
    for name, line in lines.items():
        if (loss := row.get(name, -math.inf)) > line + _FAR:
            return f"{name} is {loss:.3g} {step}, and knowing nothing costs {line:.3g}"
    return None
