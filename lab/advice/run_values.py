"""Values of an advice from own runs, with intervals and sources."""

from collections.abc import Iterator

import numpy as np

from lab.advice.comparisons import Comparison
from lab.advice.evidence import Evidence
from lab.advice.settings import RATE_RATIOS, SETTINGS, describe, steps_and_tokens
from lab.advice.shapes import ShapeRange
from lab.advice.values import AdvisedValue, Source, interval, short
from lab.config.architecture import EncoderConfig
from lab.config.flops import encoder_weights
from lab.config.trial import Trial
from lab.scaling.predictions import predict_losses
from lab.scaling.profiles import Estimate

_NOT_COMPARED = "not compared"
_NO_TREND = "no interval: no trend"


def size_values(
    evidence: Evidence,
    flops: float,
    size: Estimate,
    shape: EncoderConfig,
    ends: ShapeRange,
) -> Iterator[AdvisedValue]:
    """Yield the optimal size, and width and layers of the advised shape.

    Args:
        evidence: own runs with their law.
        flops: budget in FLOPs.
        size: optimal number of parameters.
        shape: the advised shape.
        ends: shapes at the ends of the interval of `size`.
    """
    source = evidence.law_source(flops)
    yield AdvisedValue(
        name="optimal size (parameters)",
        text=short(size.value),
        interval=interval(size.low, size.high, size.level),
        source=source,
    )
    yield AdvisedValue(
        name="encoder width",
        text=f"{shape.hidden}",
        interval=ends.describe_rising(lambda one: one.hidden),
        source=source,
        path="encoder.hidden",
    )
    own = sorted(evidence.shapes, key=encoder_weights)
    listed = ", ".join(f"{one.hidden} x {one.layers}" for one in own)
    yield AdvisedValue(
        name="encoder layers",
        text=f"{shape.layers}",
        interval=_NOT_COMPARED,
        source=Source(
            kind="own runs",
            text=f"layers by width as in {evidence.sweep}: {listed}; proportional to the width "
            "beyond; depth was not compared",
            factor=flops / evidence.largest_budget,
        ),
        path="encoder.layers",
    )
    yield AdvisedValue(
        name="parameters of this shape",
        text=f"{encoder_weights(shape):,}",
        source=Source(kind="computed", text="encoder without embeddings, as N of the law"),
    )


def rate_values(evidence: Evidence, trial: Trial, rate: Estimate) -> Iterator[AdvisedValue]:
    """Yield the learning rates of the encoder, the generator and the hidden matrices."""
    flops = trial.budget.amount
    source = _rate_source(evidence, flops)
    yield _rate_value("learning rate of the encoder", "optim.lr", rate, 1.0, source)
    for path, setting in RATE_RATIOS.items():
        ratio = setting.value_of(trial)
        if isinstance(ratio, float):
            fixed = evidence.setting_source(flops, setting.value_of)
            text = f"{ratio:.3g} times the encoder's; the factor is {fixed.text}"
            of_ratio = Source(kind=source.kind, text=text, factor=source.factor)
            yield _rate_value(setting.name, path, rate, ratio, of_ratio)


def _rate_source(evidence: Evidence, flops: float) -> Source:
    if evidence.rates is not None:
        return evidence.rates.source(flops)
    where = (
        f"rate of the runs of nearest size in {evidence.sweep}"
        if evidence.rate_config is None
        else f"power law that gives all runs of {evidence.sweep} their rates (base.optim.lr)"
    )
    return Source(
        kind="own runs",
        text=f"{where}; no trend: {evidence.rate_problem}",
        factor=flops / evidence.largest_budget,
    )


def _rate_value(name: str, path: str, rate: Estimate, ratio: float, source: Source) -> AdvisedValue:
    known = rate.low > 0
    ends = interval(ratio * rate.low, ratio * rate.high, rate.level) if known else _NO_TREND
    return AdvisedValue(
        name=name, text=short(ratio * rate.value), interval=ends, source=source, path=path
    )


def setting_values(
    evidence: Evidence, trial: Trial, comparisons: tuple[Comparison, ...]
) -> Iterator[AdvisedValue]:
    """Yield the settings that are taken over from the runs, or from sweeps that compare them."""
    flops = trial.budget.amount
    compared = {one.path: one for one in comparisons}
    for path, setting in SETTINGS.items():
        value = setting.value_of(trial)
        if value is None:
            continue
        comparison = compared.get(path)
        yield AdvisedValue(
            name=setting.name,
            text=describe(value),
            interval=_NOT_COMPARED if comparison is None else comparison.describe_range(),
            source=evidence.setting_source(flops, setting.value_of)
            if comparison is None
            else comparison.source(flops),
            path=path,
        )


def loss_value(evidence: Evidence, trial: Trial) -> AdvisedValue:
    """Return the loss of the advised shape by the law, with the interval of one new run."""
    size, tokens = float(encoder_weights(trial.encoder)), steps_and_tokens(trial)[1]
    (found,) = predict_losses(evidence.fit, np.array([size]), np.array([tokens]))
    low, high = found.mean_ends(seeds=1)
    return AdvisedValue(
        name=evidence.metric,
        text=f"{found.loss:.4g}",
        interval=f"{low:.4g} to {high:.4g} ({found.level:.0%})",
        source=evidence.law_source(trial.budget.amount),
    )
