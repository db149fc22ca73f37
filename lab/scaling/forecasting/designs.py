"""Forecasts of the designs of an experiment at a budget that was not run.

A design is a setting whose runs differ in budget and seeds only. The designs of a group differ in
size, so one law L(N, D) describes all of them. Designs of other groups have laws of their own.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from lab.scaling.diagnostics import check_fit
from lab.scaling.forecasting.curves import curve_parameters, fit_curve, predict_curve
from lab.scaling.forecasting.scoring import Forecast
from lab.scaling.hygiene import MOST_EPOCHS
from lab.scaling.law import FitError, fit_law
from lab.scaling.predictions import LEVEL, Prediction, predict_losses
from lab.scaling.runs import Floats, Run, points_of

LawKind = Literal["size_and_data", "curves"]
_FEWEST_SIZES = 3  # of a law L(N, D)


@dataclass(frozen=True, kw_only=True)
class Design:
    """A setting and its runs at several budgets.

    Attributes:
        name: label of the setting.
        group: label of the designs that share a law; they differ in size only.
        flops_per_token: FLOPs per token of its runs.
        runs: runs to which the law is fitted (`hygiene.select_runs`).
    """

    name: str
    group: str
    flops_per_token: float
    runs: tuple[Run, ...]

    @property
    def budgets(self) -> tuple[float, ...]:
        """Budgets of the runs, each once, increasing."""
        return tuple(sorted({run.budget for run in self.runs}))

    def at_budgets(self, budgets: Iterable[float]) -> "Design":
        """Return the design with its runs of some budgets."""
        kept = set(budgets)
        return replace(self, runs=tuple(run for run in self.runs if run.budget in kept))

    def losses_at(self, budget: float) -> Floats:
        """Return the losses of the runs of a budget."""
        return np.array([run.loss for run in self.runs if run.budget == budget], dtype=float)


@dataclass(frozen=True, kw_only=True)
class DesignForecast:
    """The forecast of one design.

    Attributes:
        design: label of the setting.
        parameters: number of parameters.
        tokens: tokens that the budget pays for.
        epochs: number of passes over the training data of the runs; None if unknown.
        prediction: loss with interval.
    """

    design: str
    parameters: float
    tokens: float
    epochs: float | None
    prediction: Prediction


@dataclass(frozen=True, kw_only=True)
class RungForecast:
    """Forecasts of all designs at one budget.

    Attributes:
        budget: FLOPs.
        law: kind of the laws.
        laws: parameters of each law by name, by the label of its group or design.
        designs: one forecast per design, in the order of the designs.
        warnings: signs that a law is wrong or does not hold at the budget, in words.
    """

    budget: float
    law: LawKind
    laws: dict[str, dict[str, float]]
    designs: tuple[DesignForecast, ...]
    warnings: tuple[str, ...]


def choose_law(designs: Sequence[Design]) -> LawKind:
    """Return `size_and_data` if each group has three sizes or more, and `curves` otherwise."""
    sizes = [{design.runs[0].parameters for design in group} for _, group in _groups(designs)]
    return "size_and_data" if min(map(len, sizes)) >= _FEWEST_SIZES else "curves"


def forecast_designs(
    designs: Sequence[Design], budget: float, law: LawKind, level: float = LEVEL, starts: int = 16
) -> RungForecast:
    """Return forecasts of designs at a budget (see `extrapolation.check_extrapolation`).

    Args:
        designs: designs, each with a run or more; groups in succession.
        budget: FLOPs.
        law: `size_and_data`: one law L(N, D) for each group; `curves`: one curve L(C) for each
            design.
        level: nominal coverage of the intervals.
        starts: number of starts of the fit of a law L(N, D).

    Raises:
        FitError: a law cannot be fitted; the message names its group or design.
    """
    by_law = (
        _groups(designs) if law == "size_and_data" else [(each.name, [each]) for each in designs]
    )
    predict = partial(_predict_sizes, starts) if law == "size_and_data" else _predict_curve
    laws: dict[str, dict[str, float]] = {}
    found: list[DesignForecast] = []
    warnings: list[str] = []
    for label, members in by_law:
        try:
            laws[label], predictions, signs = predict(members, budget, level)
        except FitError as error:
            raise FitError(f"{label}: {error}" if label else str(error)) from None
        found += [
            _forecast(design, budget, prediction)
            for design, prediction in zip(members, predictions, strict=True)
        ]
        warnings += [f"{label}: {sign}" if label else sign for sign in signs]
    warnings += [
        f"{each.design}: {each.epochs:.1f} epochs of the sweep's text at this budget; a law holds "
        f"for at most {MOST_EPOCHS:g}"
        for each in found
        if each.epochs is not None and each.epochs > MOST_EPOCHS
    ]
    return RungForecast(
        budget=budget, law=law, laws=laws, designs=tuple(found), warnings=tuple(warnings)
    )


def as_forecast(design: str, budget: float, prediction: Prediction, seeds: int) -> Forecast:
    """Return a forecast for the mean of `seeds` runs of a design at `budget` FLOPs."""
    low, high = prediction.mean_ends(seeds)
    return Forecast(
        setting=design,
        budget=budget,
        value=prediction.loss,
        low=low,
        high=high,
        level=prediction.level,
        seeds=seeds,
    )


def ranking_budget(designs: Sequence[Design], budget: float) -> float:
    """Return the budget at which a baseline ranks designs whose losses at `budget` are unknown.

    It is the smaller budget with runs of most designs, the largest one of several. If no budget is
    smaller, it is the smallest one.
    """
    counts = Counter(each for design in designs for each in design.budgets)
    smaller = {each: count for each, count in counts.items() if each < budget}
    return max(smaller, key=lambda each: (smaller[each], each)) if smaller else min(counts)


def rank_at(designs: Sequence[Design], budget: float) -> dict[str, float]:
    """Return the mean losses of the designs with runs at a budget: a baseline's ranking."""
    return {
        design.name: float(design.losses_at(budget).mean())
        for design in designs
        if budget in design.budgets
    }


def _groups(designs: Sequence[Design]) -> Iterator[tuple[str, list[Design]]]:
    for label, members in itertools.groupby(designs, key=lambda design: design.group):
        yield label, list(members)


_Found = tuple[dict[str, float], Sequence[Prediction], Sequence[str]]


def _predict_sizes(starts: int, designs: Sequence[Design], budget: float, level: float) -> _Found:
    fit = fit_law(points_of(run for design in designs for run in design.runs), starts=starts)
    sizes = np.array([design.runs[0].parameters for design in designs], dtype=float)
    tokens = np.array([budget / design.flops_per_token for design in designs], dtype=float)
    return dict(vars(fit.law)), predict_losses(fit, sizes, tokens, level), check_fit(fit)


def _predict_curve(designs: Sequence[Design], budget: float, level: float) -> _Found:
    points = points_of(designs[0].runs)
    batch = fit_curve(points.budgets_n, points.losses_n)
    return curve_parameters(batch), [predict_curve(batch, budget, level)], ()


def _forecast(design: Design, budget: float, prediction: Prediction) -> DesignForecast:
    run, tokens = design.runs[0], budget / design.flops_per_token
    return DesignForecast(
        design=design.name,
        parameters=run.parameters,
        tokens=tokens,
        epochs=None if run.epochs is None else run.epochs * tokens / run.tokens,
        prediction=prediction,
    )
