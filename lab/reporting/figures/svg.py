"""Style of the figures, and their conversion to SVG for a page or for separate files.

Axes and text have one color, `INK`, which becomes `currentColor` in the SVG. So the figures follow
the light or dark color scheme of the page.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"  # replaced by currentColor
WIDTH = 7.6  # inches
_LEGEND_CHARACTERS = 112  # in a row
_LEGEND_ROW = 0.17  # inches
_STYLE: dict[Any, Any] = {  # typed loosely: the stub of rcParams lists every key
    "svg.fonttype": "none",  # keep text as text: smaller files, searchable, in the page's color
    "svg.hashsalt": "lab",
    "font.family": "sans-serif",
    # Each text of an SVG has the whole list. The two fonts have similar widths.
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # labels are names and paths, which may have dollar signs
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

STYLED = mpl.rc_context(_STYLE)


def new_figure(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of the report's width, and its axes.

    Args:
        height: height in inches.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Add a legend below the axes, and height for its rows beyond the second one.

    Args:
        figure: the figure.
        handles: artists of the entries.
        names: names of the entries; without any, there is no legend.
    """
    if not names:
        return
    columns = max(1, _LEGEND_CHARACTERS // (max(map(len, names)) + 6))
    rows = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(0, rows - 2))
    figure.legend(handles, names, loc="outside lower left", ncols=columns)


@STYLED
def render_svg(figure: Figure) -> str:
    """Return `figure` as SVG; the same data gives the same bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().replace(INK, "currentColor")


def inline_svg(content: str, name: str) -> str:
    """Return an SVG for a page with several: unique ids, no XML prologue, no fixed size."""
    body = content[content.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href", "href")
    body = re.sub(r'id="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    return re.sub(
        r'<svg (.*?)width="[^"]*"',
        r"<svg \1",
        re.sub(r'height="[^"]*pt"', "", body, count=1),
        count=1,
    )


def standalone_svg(content: str) -> str:
    """Return an SVG for a separate file; its colors follow the viewer's light or dark scheme."""
    style = (
        "<style>svg{color:#1b1f24;background:#fff}"
        "@media(prefers-color-scheme:dark){svg{color:#dfe3e8;background:#14171b}}</style>\n <defs>"
    )
    return content.replace("<defs>", style, 1)
