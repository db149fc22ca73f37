"""Figure of a forecast: predicted and observed loss of each design."""

import math

from matplotlib.figure import Figure

from lab.reporting.figures.category_axis import label_categories
from lab.reporting.figures.cell_colors import PALETTE
from lab.reporting.figures.svg import STYLED, add_legend, new_figure
from lab.reporting.forecasts.scored import ScoredForecast

_PREDICTED, _OBSERVED = PALETTE[0], PALETTE[5]


@STYLED
def plot_forecast(scored: ScoredForecast) -> Figure:
    """Plot the designs in the order of the forecast.

    Each has a dot for the expected loss with the interval of the mean of its runs, and a diamond
    for their observed mean, open where the interval does not contain it. An interval without a
    limit ends at the frame.
    """
    record = scored.record
    designs, errors = record.ranked, scored.errors
    figure, axes = new_figure(3.3)
    label_categories(figure, axes, [design.design for design in designs])
    ends = [scored.ends(design) for design in designs]
    known = [
        *(design.loss for design in designs),
        *(error.observed for error in errors.values()),
        *(end for pair in ends for end in pair if 0 < end < math.inf),
    ]
    margin = 0.08 * (max(known) - min(known)) or 0.01 * max(known)
    bottom, top = min(known) - margin, max(known) + margin
    axes.set_ylim(bottom, top)
    for x, (design, (low, high)) in enumerate(zip(designs, ends, strict=True)):
        reach = [[design.loss - max(low, bottom)], [min(high, top) - design.loss]]
        axes.errorbar(x - 0.08, design.loss, yerr=reach, fmt="o", color=_PREDICTED, ms=5,
                      elinewidth=1.4, capsize=3)  # fmt: skip
        if design.design in errors:
            error = errors[design.design]
            axes.plot(x + 0.08, error.observed, "D", color=_OBSERVED, ms=6,
                      mfc=_OBSERVED if error.covered else "none")  # fmt: skip
    axes.set_xlabel("design, in the order of the forecast")
    axes.set_ylabel(record.metric)
    axes.plot([], [], "o", color=_PREDICTED, label="expected loss and its interval")
    observed = {error.covered for error in errors.values()}
    if True in observed:
        axes.plot([], [], "D", color=_OBSERVED, label="observed mean, in the interval")
    if False in observed:
        axes.plot([], [], "D", color=_OBSERVED, mfc="none", label="observed mean, outside")
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure
