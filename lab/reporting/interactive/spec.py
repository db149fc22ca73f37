"""Interactive figures as data: traces and layout of Plotly, and the choices of the reader.

`documents/templates/report.js` draws them. A color `var(--ink)` is that property of the page's
style, so that figures follow its light or dark color scheme.
"""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lab.control_characters import make_visible
from lab.reporting import sentences
from lab.tracking.frames import SweepFrames

INK = "var(--ink)"
SOFT = "var(--soft)"
_CHARACTER = 5.5  # pixels; width of a character of a label
_LEGEND = 0.35  # largest share of the height; further entries are reached by scrolling
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Buttons of which one is pressed.

    Attributes:
        title: what the reader chooses.
        options: title of each button, and what it sets: `x` and `y` name columns of the traces,
            `layout` has values of Plotly's layout by dotted path, `caption` is the text above.
    """

    title: str
    options: Sequence[tuple[str, Json]]


@dataclass(frozen=True, kw_only=True)
class LiveFigure:
    """An interactive figure.

    Attributes:
        name: its id in the page.
        title: title of the figure.
        caption: sentences that say what it shows.
        traces: traces of Plotly. A trace with the key `columns` has x and y by the names that
            the choices set; y of one name is used with all, and y may be named after x.
            `meta.run`, or `customdata` with one entry a point, is the address of MLflow's run.
            `legendgroup`, or `cells` with one entry a point, is the cell by which the reader hides
            a trace or points in all figures. A hover template calls the text of each point
            `text`, and one text of the whole trace `fullData.text`.
        layout: layout of Plotly.
        choices: choices of the reader.
        files: names of the CSV files with its numbers.
    """

    name: str
    title: str
    caption: str
    traces: Sequence[Json]
    layout: Json
    choices: Sequence[Choice] = field(default_factory=tuple)
    files: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """JSON text of the figure that can stand in a script element of an HTML page."""
        content = {
            "traces": self.traces,
            "layout": self.layout,
            "choices": [
                {"title": each.title, "options": [{"label": k, **v} for k, v in each.options]}
                for each in self.choices
            ],
        }
        return embed_json(content)


def embed_json(content: Json) -> str:
    r"""Return JSON text in ASCII in which `<`, `>` and `&` are escapes such as `\u003c`.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def clean(text: str) -> str:
    """Return a text for a label of Plotly, which interprets some HTML tags and entities."""
    return html.escape(make_visible(text)).replace("\n", " ")


def numbers(values: Iterable[object], digits: int | None = None) -> list[float | None]:
    """Return finite numbers, and null for all other values.

    Args:
        values: values of any type.
        digits: significant digits to which numbers are rounded; all of them by default.
    """
    series = pd.to_numeric(pd.Series(list(values), dtype=object), errors="coerce").astype(float)
    return [_round(float(value), digits) if np.isfinite(value) else None for value in series]


def _round(value: float, digits: int | None) -> float:
    return value if digits is None else float(f"{value:.{digits}g}")


def run_path(frames: SweepFrames, trial: Mapping[Any, Any]) -> str:
    """Return the fragment of the MLflow run's address; empty if the run is unknown."""
    run = str(trial.get("run_id") or "")
    experiment = str(trial.get("experiment_id") or frames.experiment_id)  # of joined frames, or own
    return f"#/experiments/{experiment}/runs/{run}" if run and experiment else ""


def describe_trial(trial: Mapping[Any, Any]) -> str:
    """Return the settings of a trial for the hover text, as lines of Plotly's HTML."""
    role = f"{trial['role']} {trial['repeat']}" if trial["role"] == "repeat" else trial["role"]
    seeds = [
        f"{name} {sentences.format_value(trial[f'seeds.{name}'])}"
        for name in ("init", "order", "mask")
        if f"seeds.{name}" in trial
    ]
    lines = [
        f"trial {trial['number']} ({role}, {trial['state']})",
        str(trial["cell"]),
        str(trial["tuned"]),
        f"seeds: {', '.join(seeds)}" if seeds else "",
        f"final score {sentences.format_score(trial['score'])}",
    ]
    return "<br>".join(clean(line[:200]) for line in lines if line)


def trial_records(frames: SweepFrames) -> list[dict[Any, Any]]:
    """Return the trials as mappings, in the order of the frames."""
    return frames.trials.to_dict("records")


def base_layout(x: str, y: str, height: int = 440, names: Iterable[str] = ()) -> Json:
    """Return the layout that all figures share.

    Args:
        x: title of the horizontal axis.
        y: title of the vertical axis.
        height: height in pixels without vertical labels.
        names: labels of the horizontal axis, which are vertical on a narrow screen.
    """
    height += round(_CHARACTER * max(map(len, names), default=0))
    axis = {"automargin": True, "gridcolor": "var(--line)", "linecolor": SOFT, "zeroline": False}
    return {
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 34, "b": 10},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": SOFT, "activecolor": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "var(--card)", "bordercolor": SOFT,
                       "font": {"color": INK}, "namelength": 0},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom",
                   "yref": "container", "groupclick": "togglegroup", "maxheight": _LEGEND},
        "xaxis": {**axis, "title": {"text": clean(x)}},
        "yaxis": {**axis, "title": {"text": clean(y)}},
    }  # fmt: skip
