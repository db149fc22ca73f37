"""Advice from the law and the trend of the learning rate of own runs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lab.advice.comparisons import Comparison
from lab.advice.costs import cost_values, describe_memory
from lab.advice.devices import Speed, Speeds, gpu_of
from lab.advice.evidence import Evidence
from lab.advice.run_values import loss_value, rate_values, setting_values, size_values
from lab.advice.settings import SETTINGS, describe, steps_and_tokens
from lab.advice.shapes import list_shapes, nearest_shape, shape_range
from lab.advice.values import Advice, NextTrial, short
from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.flops import encoder_weights, mean_cost
from lab.config.trial import Seeds, Trial
from lab.loading.trial_checks import check_trial
from lab.scaling.extrapolation import check_extrapolation
from lab.scaling.flops import Floats, FlopsPerToken, interpolated
from lab.scaling.hygiene import MOST_EPOCHS
from lab.scaling.next_runs import propose_runs
from lab.scaling.profiles import Estimate

_SPEND = 3.0  # FLOPs of the next runs, as a multiple of the largest budget that was run
_NEW_SEEDS = Seeds(init=1_000, order=1_000, mask=1_000)  # that the runs of the law do not have
_ROUNDS = 5
_FAR = 1.5  # ratio of two sizes above which the nearest shape is called far from the optimum


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for advice.

    Attributes:
        flops: budget in FLOPs.
        option: command line option that gave the budget, for messages.
        basis: how the budget follows from the option; empty if the option is in FLOPs.
        speeds: speeds of the device; None if they are not known.
        comparisons: settings that other sweeps compare.
    """

    flops: float
    option: str = "--flops"
    basis: str = ""
    speeds: Speeds | None = None
    comparisons: tuple[Comparison, ...] = ()


def advise_from_runs(evidence: Evidence, request: Request) -> Advice:
    """Return the advice for a budget.

    Args:
        evidence: own runs with their law.
        request: the budget, the device and the own runs.

    Raises:
        UserError: the budget is more than 30 times the largest one of the runs, or less than a
            step.
    """
    flops = request.flops
    factor = _check_factors(evidence, request)
    model = replace(evidence.model, budget=Budget(kind="flops", amount=flops))
    for comparison in request.comparisons:
        model = comparison.apply(model)
    shapes, per_token = price_shapes(evidence.shapes, model)
    size = evidence.optimal_size(flops, per_token)
    shape, ends = nearest_shape(shapes, size.value), shape_range(shapes, size)
    check_trial(replace(model, encoder=shape))  # a budget of less than one step has no tokens
    trial, rate = _with_rate(evidence, replace(model, encoder=shape))
    speed = None if request.speeds is None else request.speeds.at(encoder_weights(shape))
    return Advice(
        question=f"What does the size reach that {evidence.sweep} predicts to be optimal at "
        f"{flops:.3g} FLOPs?",
        metric=evidence.metric,
        heading=f"advice for {flops:.3g} FLOPs{request.basis}, {factor:.3g} times the largest "
        f"budget of {evidence.sweep}",
        trial=trial,
        values=(
            *size_values(evidence, flops, size, shape, ends),
            *rate_values(evidence, trial, rate),
            *setting_values(evidence, trial, request.comparisons),
            *cost_values(trial, speed, ends),
            loss_value(evidence, trial),
        ),
        warnings=tuple(_warnings(evidence, trial, size, rate, request, speed)),
        resources=gpu_of(speed),
        next_trial=(
            _next_trial(evidence, trial, shapes, per_token)
            if all(one.keeps(evidence.model) for one in request.comparisons)
            else None  # the law is that of runs with other settings
        ),
    )


def advise_for_hours(
    evidence: Evidence, hours: float, speeds: Speeds, comparisons: tuple[Comparison, ...]
) -> Advice:
    """Return the advice for the FLOPs that a device computes in a time.

    They depend on the size of the encoder, and the advised size depends on them.

    Args:
        evidence: own runs with their law.
        hours: hours of training on the device.
        speeds: speeds of the device.
        comparisons: settings that other sweeps compare.

    Raises:
        UserError: as `advise_from_runs`.
    """
    speed = speeds.slowest()
    for _ in range(_ROUNDS):
        request = Request(
            flops=3600 * hours * speed.flops_per_second,
            option=f"--gpu-hours {hours:g}",
            basis=f" ({hours:g} h on {speed.device}, {speed.because})",
            speeds=speeds,
            comparisons=comparisons,
        )
        advice = advise_from_runs(evidence, request)
        own = speeds.at(encoder_weights(advice.trial.encoder))
        if own.flops_per_second <= speed.flops_per_second:
            break
        speed = own
    return advice


def _check_factors(evidence: Evidence, request: Request) -> float:
    """Return how many times larger the budget is than the largest one of the law's runs.

    Raises:
        UserError: it is more than 30 times the largest one of the law, the trend or a comparison.
    """
    flops, option = request.flops, request.option
    factor = check_extrapolation(flops, evidence.fit.points.budgets_n, option)
    others = {f"{option} (--compared {one.sweep})": one.budget for one in request.comparisons}
    if evidence.rates is not None:
        others[f"{option} (learning rate)"] = evidence.rates.largest_budget
    for name, largest in others.items():
        check_extrapolation(flops, np.array([largest]), name)
    return factor


def price_shapes(
    own: tuple[EncoderConfig, ...], model: Trial
) -> tuple[tuple[EncoderConfig, ...], FlopsPerToken]:
    """Return the shapes to choose from, and the FLOPs per token over their sizes.

    Shapes for which the objective has no valid generator are left out, and so are shapes that cost
    no more than a smaller one.

    Args:
        own: shapes that were run.
        model: trial whose other settings determine the FLOPs.
    """
    shapes: list[EncoderConfig] = []
    costs: list[float] = []
    for shape in list_shapes(own):
        try:
            cost = mean_cost(replace(model, encoder=shape))
        except ValueError:  # the generator's width is no multiple of its heads
            continue
        per_token = cost.flops / cost.tokens
        if not costs or per_token > costs[-1]:
            shapes.append(shape)
            costs.append(per_token)
    sizes = np.array([encoder_weights(shape) for shape in shapes], dtype=float)
    return tuple(shapes), interpolated(sizes, np.array(costs))


def _with_rate(evidence: Evidence, trial: Trial) -> tuple[Trial, Estimate]:
    """Return a trial with the best learning rate for its size and tokens, and this rate."""
    rate = _rate(evidence, trial)
    optim = replace(trial.optim, lr=float(f"{rate.value:.3g}"))
    return replace(trial, optim=optim), rate


def _rate(evidence: Evidence, trial: Trial) -> Estimate:
    """Return the learning rate of a trial.

    Without a trend, it is that of the power law in the search space of the runs, or that of the run
    of nearest size.
    """
    size = float(encoder_weights(trial.encoder))
    steps, tokens = steps_and_tokens(trial)
    predictors = {"parameters": size, "tokens": tokens, "batch": tokens / steps}
    if evidence.rates is not None:
        trend = evidence.rates.trend
        return trend.rate(**{name: predictors[name] for name in trend.names})
    if evidence.rate_config is not None:
        rate = evidence.rate_config.rate_at(**predictors)
    else:
        rate = min(
            evidence.trials,
            key=lambda one: (abs(np.log(encoder_weights(one.encoder) / size)), -one.budget.amount),
        ).optim.lr
    return Estimate(value=rate, low=0.0, high=np.inf, level=0.9)


def _warnings(
    evidence: Evidence,
    trial: Trial,
    size: Estimate,
    rate: Estimate,
    request: Request,
    speed: Speed | None,
) -> Iterator[str]:
    yield from evidence.warnings
    for one in request.comparisons:
        if not one.keeps(evidence.model):
            setting = SETTINGS[one.path]
            yield (
                f"{setting.name} {describe(setting.value_of(trial))} is from {one.sweep}; size, "
                f"rate and loss are those of {describe(setting.value_of(evidence.model))}, which "
                f"the runs of {evidence.sweep} had"
            )
    parameters = encoder_weights(trial.encoder)
    if not 1 / _FAR < parameters / size.value < _FAR:
        yield (
            f"the nearest shape has {parameters:,} parameters, and the optimum is at "
            f"{short(size.value)}"
        )
    if size.low <= 0 or not np.isfinite(size.high):
        yield f"the runs do not limit the optimal size {'above' if size.low > 0 else 'below'}"
    if not rate.low > 0:
        yield (
            f"the learning rate has no trend: {evidence.rate_problem}; --rates names a sweep that "
            "tunes it at three sizes"
        )
    tokens = steps_and_tokens(trial)[1]
    if evidence.epoch_tokens is not None and tokens > MOST_EPOCHS * evidence.epoch_tokens:
        yield (
            f"the text of {evidence.sweep} has {short(evidence.epoch_tokens)} tokens, so this run "
            f"makes {tokens / evidence.epoch_tokens:.3g} passes over it; beyond {MOST_EPOCHS:g} "
            "the law does not hold: use more text (base.data.source)"
        )
    memory = describe_memory(trial, speed)
    if memory is not None:
        yield memory


def _next_trial(
    evidence: Evidence,
    advised: Trial,
    shapes: tuple[EncoderConfig, ...],
    per_token: FlopsPerToken,
) -> NextTrial:
    points, flops = evidence.fit.points, advised.budget.amount
    sizes: Floats = np.unique([*points.parameters_n, float(encoder_weights(advised.encoder))])
    spend = max(evidence.largest_budget, min(flops, _SPEND * evidence.largest_budget))
    runs = propose_runs(evidence.fit, flops, per_token, sizes, spend)
    trial = replace(
        advised,
        encoder=nearest_shape(shapes, runs.parameters),
        budget=Budget(kind="flops", amount=runs.flops),
        seeds=_NEW_SEEDS,
    )
    return NextTrial(trial=_with_rate(evidence, trial)[0], runs=runs)
