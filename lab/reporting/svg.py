"""Figure -> SVG, in a page or in a file of its own, always in the style set here.

Axes and text are drawn in one ink, which becomes `currentColor`, so that a figure follows the
page's light or dark scheme.
"""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#010203"  # replaced by currentColor
_STYLE: dict[Any, Any] = {  # rcParams: their stub spells every key out
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the page's own colour
    "svg.hashsalt": "lab",
    "font.family": "sans-serif",
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


@STYLED
def render_svg(figure: Figure) -> str:
    """Return `figure` as SVG, the same bytes for the same data."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().replace(INK, "currentColor")


def inline_svg(drawn: str, name: str) -> str:
    """Return an SVG for a page that holds several: unique ids, no prologue, fluid width."""
    body = drawn[drawn.index("<svg") :]
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


def standalone_svg(drawn: str) -> str:
    """Return an SVG for a file of its own, which follows its viewer's light or dark scheme."""
    style = (
        "<style>svg{color:#1b1f24;background:#fff}"
        "@media(prefers-color-scheme:dark){svg{color:#dfe3e8;background:#14171b}}</style>\n <defs>"
    )
    return drawn.replace("<defs>", style, 1)
