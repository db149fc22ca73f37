"""Contrast of colored marks with the backgrounds of a page (WCAG 2.1, 1.4.11)."""

import re
from collections.abc import Iterable, Iterator

from project import ROOT

LEAST = 3.0
_DECORATION = 0.12  # opacity of grids, and of bands, which have an opaque line as well
_TEMPLATE = ROOT / "lab" / "reporting" / "documents" / "templates" / "base.html.jinja"
Mark = tuple[str, float]  # color, opacity


def color_schemes() -> list[dict[str, str]]:
    """Return the named colors of the page in its light and in its dark scheme."""
    found = re.findall(r":root \{([^}]*)\}", _TEMPLATE.read_text())
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text)) for text in found]
    assert len(schemes) == 2
    return schemes


def faint_marks(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks with too little contrast to the background of one of the schemes."""
    schemes = color_schemes()
    return [
        (color, opacity)
        for color, opacity in sorted(set(marks))
        if any(_contrast(color, opacity, scheme) < LEAST for scheme in schemes)
    ]


def svg_marks(text: str) -> Iterator[Mark]:
    """Yield the colors of lines and areas of an SVG file, without grids and bands."""
    for style in re.findall(r'style="([^"]*)"', text):
        values = dict(re.findall(r"([\w-]+): ?([^;]+)", style))
        for kind in ("fill", "stroke"):
            opacity = float(values.get("opacity", 1)) * float(values.get(f"{kind}-opacity", 1))
            color = values.get(kind, "none")
            if color != "none" and not (color == "currentColor" and opacity <= _DECORATION):
                yield color, opacity


def trace_marks(traces: Iterable[dict]) -> Iterator[Mark]:
    """Yield the colors of the lines and markers of Plotly's traces."""
    for trace in traces:
        for part in ("line", "marker", "error_x", "error_y"):
            style = trace.get(part, {})
            if style.get("width") == 0:  # the edge of a band
                continue
            colors = style.get("color", [])
            for color in [colors] if isinstance(colors, str) else colors:
                yield color, trace.get("opacity", 1) * style.get("opacity", 1)


def _contrast(color: str, opacity: float, scheme: dict[str, str]) -> float:
    """Return the contrast of a color, drawn with this opacity, with the page."""
    if not color.startswith("#"):  # currentColor or var(--name)
        color = scheme[color.removeprefix("var(--").rstrip(")").replace("currentColor", "ink")]
    page, mark = _channels(scheme["page"]), _channels(color)
    blended = [opacity * a + (1 - opacity) * b for a, b in zip(mark, page, strict=True)]
    low, high = sorted((_luminance(blended), _luminance(page)))
    return (high + 0.05) / (low + 0.05)


def _channels(color: str) -> list[float]:
    return [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]


def _luminance(channels: list[float]) -> float:
    """Return the relative luminance of an sRGB color."""
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
