"""Fit the interactive figures into a page of limited size: draw fewer points, or leave them out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from lab.reporting.interactive.spec import Choice, Json, LiveFigure

MOST_BYTES = 6_000_000  # of a page
_MOST_POINTS = 15_000  # of the curves of a figure, with which a browser is quick
Sections = Mapping[str, Sequence[LiveFigure]]


def list_smaller(sections: Sections) -> Iterator[dict[str, list[LiveFigure]]]:
    """Yield the figures of a page in smaller and smaller forms.

    First, the curves of a figure have `_MOST_POINTS` at most, then half as many each time, down to
    two a trial. At last, the figures are left out, the largest first.

    Args:
        sections: the figures by section of the page.
    """
    figures = list(chain(*sections.values()))
    counts = {figure.name: list(map(_count_points, figure.traces)) for figure in figures}
    longest = max(chain(*counts.values()), default=0)
    factor, drawn = 1, figures
    while factor == 1 or factor < 2 * longest:
        drawn = [
            _thin(figure, factor * max(1, -(-sum(counts[figure.name]) // _MOST_POINTS)))
            for figure in figures
        ]
        yield _arrange(sections, drawn)
        factor *= 2
    while drawn:
        drawn.remove(max(drawn, key=lambda figure: len(figure.spec)))
        yield _arrange(sections, drawn)


def _arrange(sections: Sections, figures: Sequence[LiveFigure]) -> dict[str, list[LiveFigure]]:
    by_name = {figure.name: figure for figure in figures}
    return {
        key: [by_name[each.name] for each in own if each.name in by_name]
        for key, own in sections.items()
    }


def _count_points(trace: Json) -> int:
    """Return the number of coordinates of a trial's curve; 0 for other traces."""
    return sum(map(len, trace["columns"]["y"].values())) if _is_curve(trace) else 0


def _is_curve(trace: Json) -> bool:
    return "columns" in trace and "meta" in trace


def _thin(figure: LiveFigure, every: int) -> LiveFigure:
    """Return a figure with every `every`-th point of each curve, and the last one."""
    if every == 1 or not any(map(_is_curve, figure.traces)):
        return figure
    note = f" One evaluation in {every} is drawn, and the last one."
    return replace(
        figure,
        caption=figure.caption + note,
        traces=[
            _thin_trace(trace, every) if _is_curve(trace) else trace for trace in figure.traces
        ],
        choices=[_add_note(choice, note) for choice in figure.choices],
    )


def _thin_trace(trace: Json, every: int) -> Json:
    columns = {
        axis: {name: _select(values, every) for name, values in by_name.items()}
        for axis, by_name in trace["columns"].items()
    }
    return trace | {"columns": columns}


def _select(values: list[Any], every: int) -> list[Any]:
    return values[::every] + values[-1:] * ((len(values) - 1) % every > 0)


def _add_note(choice: Choice, note: str) -> Choice:
    options = [
        (title, sets | {"caption": sets["caption"] + note} if "caption" in sets else sets)
        for title, sets in choice.options
    ]
    return replace(choice, options=options)
