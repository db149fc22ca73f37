"""An advice as text."""

import json
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path as File

from lab.advice.document import plain_settings
from lab.advice.values import Advice, AdvisedValue, NextTrial, short
from lab.config.flops import encoder_weights

_WIDTH = 100
_HEADER = ("setting", "value", "interval", "beyond own runs", "source")


def describe_advice(advice: Advice) -> str:
    """Return a table of the values, their sources, and the most informative next trial."""
    sources = list(dict.fromkeys(f"{v.source.kind}: {v.source.text}" for v in advice.values))
    rows = [_HEADER, *(_row(value, sources) for value in advice.values)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [advice.heading, ""]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    lines.append("")
    for number, text in enumerate(sources, start=1):
        mark = f"[{number}] "
        indent = " " * len(mark)
        lines += textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=indent)
    if advice.next_trial is not None:
        lines += ["", *_next_lines(advice.next_trial)]
    return "\n".join(lines)


def next_command(file: File, found: NextTrial) -> str:
    """Return the command that runs the next trial, with the search space of the advice."""
    trial = found.trial
    settings = {
        "base.encoder": json.dumps(plain_settings(trial)["encoder"]),
        "base.seeds": json.dumps(asdict(trial.seeds)),
        "base.optim.lr": f"{trial.optim.lr:g}",
        "base.budget.amount": f"{trial.budget.amount:g}",
        "search.seeds": str(found.runs.runs),
    }
    overrides = [f"--set {shlex.quote(f'{path}={value}')}" for path, value in settings.items()]
    return " ".join(["python -m lab.sweep", shlex.quote(str(file)), *overrides])


def _row(value: AdvisedValue, sources: list[str]) -> tuple[str, ...]:
    source = value.source
    beyond = "-" if source.factor is None else f"{source.factor:.3g} x"
    number = sources.index(f"{source.kind}: {source.text}") + 1
    return value.name, value.text, value.interval, beyond, f"{source.kind} [{number}]"


def _next_lines(found: NextTrial) -> Iterator[str]:
    runs, encoder = found.runs, found.trial.encoder
    yield (
        f"most informative next trial: {encoder.hidden} x {encoder.layers} "
        f"({encoder_weights(encoder):,} parameters) on {short(runs.tokens)} tokens, learning rate "
        f"{found.trial.optim.lr:.3g}"
    )
    times = "once" if runs.runs == 1 else f"{runs.runs} times with different seeds"
    yield (
        f"  {times}, {runs.flops:.3g} FLOPs each, {runs.runs * runs.flops:.3g} in all; the "
        f"standard error of the log optimal size falls from {runs.error:.2g} to "
        f"{runs.error_after:.2g}"
    )
