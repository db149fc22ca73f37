"""Advice without own runs: published settings and the defaults of sizes, called priors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab.advice.costs import cost_values, describe_memory
from lab.advice.devices import Speed, gpu_of
from lab.advice.settings import RATE_RATIOS, SETTINGS, describe
from lab.advice.values import Advice, AdvisedValue, Source
from lab.config.flops import encoder_weights
from lab.config.trial import Path, Trial
from lab.loading import search_space
from lab.loading.learned_sizes import MIN_TO_LEARN
from lab.suggestion.compute_tiers import TABLE

_METRIC = "mlm/nats_per_character"  # held-out text, comparable between sizes and objectives
_PAPER = "ELECTRA paper (arXiv 2003.10555)"
_WIDTH = f"{_PAPER}, section 3.2: best between 1/4 and 1/2"
_DEPTH = f"{_PAPER}, section 3.2: as many layers as the encoder"


@dataclass(frozen=True, kw_only=True)
class SizePrior:
    """A published or shipped size.

    Attributes:
        size: name of the size.
        flops: FLOPs of a run.
        source: source of the choice.
        settings: source of the other settings.
        generator: width of the generator relative to the encoder.
        generator_source: source of this width.
    """

    size: str
    flops: float
    source: str
    settings: str
    generator: float = 0.25
    generator_source: str = _WIDTH


def _of_paper(size: str, flops: float, table: int, generator: float) -> SizePrior:
    return SizePrior(
        size=size,
        flops=flops,
        source=f"{_PAPER}, table {table}: {size} is trained with about {flops:.2g} FLOPs, the "
        "nearest of its budgets",
        settings=f"{_PAPER}, table 6, size {size}",
        generator=generator,
        generator_source=f"{_PAPER}, table 6, size {size}",
    )


# The lab's own sizes, each from a budget on.
_OWN = tuple(
    SizePrior(
        size=option.name,
        flops=option.min_flops,
        source=f"docs/sizes.md: {option.name} from {option.min_flops:.2g} FLOPs on",
        settings=f"docs/sizes.md: default of {option.name}",
    )
    for option in TABLE
)
# The sizes of the paper, each at its budget.
_PUBLISHED = (
    _of_paper("small", 1.2e18, 1, 0.25),
    _of_paper("base", 6.4e19, 1, 0.333),
    _of_paper("large", 7.1e20, 2, 0.25),
)


def pick_prior(flops: float) -> SizePrior:
    """Return the size for a budget: the paper's if its budget is nearer than that of `mini`."""
    if flops > math.sqrt(_OWN[-1].flops * _PUBLISHED[0].flops):
        return min(_PUBLISHED, key=lambda one: abs(math.log(one.flops / flops)))
    return [one for one in _OWN if one.flops <= flops][-1]


def advise_from_priors(flops: float, speed: Speed | None, basis: str = "") -> Advice:
    """Return published settings for a budget; no value is from own runs.

    Args:
        flops: budget in FLOPs.
        speed: FLOP/s of the device; None if it is not known.
        basis: how the budget follows from the options; empty if they give FLOPs.
    """
    prior = pick_prior(flops)
    base: dict[str, Any] = {
        "encoder": {"size": prior.size},
        "objective": {"kind": "electra", "generator": {"width": prior.generator}},
        "budget": {"kind": "flops", "amount": flops},
    }
    trial = search_space.build_trial(base, {})
    return Advice(
        question=f"What does an encoder with published settings reach at {flops:.3g} FLOPs?",
        metric=_METRIC,
        heading=f"priors for {flops:.3g} FLOPs{basis}; no value is from own runs",
        trial=trial,
        values=(*_values(prior, trial), *cost_values(trial, speed)),
        warnings=tuple(_warnings(trial, speed)),
        resources=gpu_of(speed),
    )


def _values(prior: SizePrior, trial: Trial) -> Iterator[AdvisedValue]:
    size = Source(kind="prior", text=prior.source)
    shape = trial.encoder
    yield AdvisedValue(name="size (parameters)", text=f"{encoder_weights(shape):,}", source=size)
    for path, name, value in (
        ("encoder.hidden", "encoder width", shape.hidden),
        ("encoder.layers", "encoder layers", shape.layers),
    ):
        yield AdvisedValue(name=name, text=f"{value}", source=size, path=path)
    rates = Source(kind="prior", text=prior.settings)
    yield AdvisedValue(
        name="learning rate of the encoder",
        text=f"{trial.optim.lr:.3g}",
        source=rates,
        path="optim.lr",
    )
    for path, setting in RATE_RATIOS.items():
        ratio = setting.value_of(trial)
        if isinstance(ratio, float):
            text = f"{ratio * trial.optim.lr:.3g}"
            yield AdvisedValue(name=setting.name, text=text, source=rates, path=path)
    others: dict[Path, str] = {
        "objective.kind": _PAPER,
        "objective.generator.width": prior.generator_source,
        "objective.generator.depth": _DEPTH,
    }
    for path, setting in SETTINGS.items():
        yield AdvisedValue(
            name=setting.name,
            text=describe(setting.value_of(trial)),
            source=Source(kind="prior", text=others.get(path, prior.settings)),
            path=path,
        )


def _warnings(trial: Trial, speed: Speed | None) -> Iterator[str]:
    if trial.budget.amount < MIN_TO_LEARN:
        yield f"encoders begin to learn from context near {MIN_TO_LEARN:.2g} FLOPs"
    memory = describe_memory(trial, speed)
    if memory is not None:
        yield memory
