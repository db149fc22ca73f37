"""Expected steps, tokens, memory and duration of an advised trial."""

from collections.abc import Callable
from dataclasses import replace

from lab.advice.devices import Speed
from lab.advice.settings import steps_and_tokens
from lab.advice.shapes import ShapeRange
from lab.advice.values import AdvisedValue, Source, short
from lab.config.costs.memory import estimate_memory
from lab.config.trial import Trial
from lab.formatting import format_duration
from lab.scaling.hygiene import MOST_EPOCHS

_GIB = 2**30


def cost_values(
    trial: Trial, speed: Speed | None, ends: ShapeRange | None = None
) -> tuple[AdvisedValue, ...]:
    """Return the cost of a trial with a budget in FLOPs.

    Args:
        trial: the trial.
        speed: FLOP/s of its training; None if no device is known, so that there is no duration.
        ends: shapes at the ends of the interval of the optimal size, between which the cost lies at
            the same budget; None without a fitted law.
    """
    steps, tokens = steps_and_tokens(trial)

    def interval(quantity: Callable[[Trial], float], *, rises: bool = False) -> str:
        if ends is None:
            return ""
        describe = ends.describe_rising if rises else ends.describe_falling
        return describe(lambda shape: quantity(replace(trial, encoder=shape)))

    values = [
        AdvisedValue(
            name="steps",
            text=f"{steps:,}",
            interval=interval(lambda one: steps_and_tokens(one)[0]),
            source=Source(kind="computed", text="budget / FLOPs of a step (lab/config/flops.py)"),
        ),
        AdvisedValue(
            name="tokens",
            text=short(tokens),
            interval=interval(lambda one: steps_and_tokens(one)[1]),
            source=Source(kind="computed", text="steps x positions of a step"),
        ),
        AdvisedValue(
            name="text needed (tokens)",
            text=short(tokens / MOST_EPOCHS),
            interval=interval(lambda one: steps_and_tokens(one)[1] / MOST_EPOCHS),
            source=Source(
                kind="computed",
                text=f"at most {MOST_EPOCHS:g} passes over a text (arXiv 2305.16264)",
            ),
        ),
        AdvisedValue(
            name="memory (GiB, without libraries)",
            text=f"{estimate_memory(trial) / _GIB:.2g}",
            interval=interval(lambda one: estimate_memory(one) / _GIB, rises=True),
            source=Source(kind="computed", text=f"as lab.sweep --dry-run{_room(speed)}"),
        ),
    ]
    if speed is not None:
        values.append(
            AdvisedValue(
                name=f"training time ({speed.device})",
                text=format_duration(trial.budget.amount / speed.flops_per_second),
                source=Source(
                    kind="computed", text=f"{speed.flops_per_second:.3g} FLOP/s, {speed.because}"
                ),
            )
        )
    return tuple(values)


def describe_memory(trial: Trial, speed: Speed | None) -> str | None:
    """Return a warning if a step of the trial does not fit into the memory of the device."""
    needed = estimate_memory(trial)
    if speed is None or speed.memory is None or needed <= speed.memory:
        return None
    return (
        f"a step needs {needed / _GIB:.3g} GiB and {speed.device} has {speed.memory / _GIB:.3g}; "
        "the lab halves the windows of a micro-batch until one fits, at the same batch"
    )


def _room(speed: Speed | None) -> str:
    if speed is None or speed.memory is None:
        return ""
    return f"; {speed.device} has {speed.memory / _GIB:.3g} GiB"
