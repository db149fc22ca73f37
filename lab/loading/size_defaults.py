"""Defaults that a named size brings along, beside the encoder's shape.

A value that the search space gives itself is never replaced. The values of the lab's own sizes
were found by measurement (reports/LOG.md); those of small, base and large are the paper's (tables
6 and 7, and `configure_pretraining.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.config.trial import Path, Value
from lab.loading import yaml_text

_START = 16  # positions


@dataclass(frozen=True, kw_only=True)
class SizeDefaults:
    """Values that a size brings along.

    Attributes:
        optimizer: the value of `optim.kind`.
        optim: the settings under `optim`, by optimizer.
        settings: the other values, by dotted path.
        start: length from which longer windows grow; None where they are full throughout.
    """

    optimizer: str
    optim: Mapping[str, Mapping[str, Value]]
    settings: Mapping[Path, Value]
    start: int | None = None


def _own(
    *,
    adam: float,
    muon: float,
    hidden: float,
    mask_prob: float = 0.25,
    batch: int = 64,
    warmup: float = 0.01,
) -> SizeDefaults:
    return SizeDefaults(
        optimizer="muon",
        optim={
            "adam": {"lr": adam},
            "muon": {"lr": muon, "hidden_lr": hidden, "iterations": 3},
        },
        settings={
            "objective.mask_prob": mask_prob,
            "data.length": _START,
            "data.vocab": 2_048,
            "batch": batch,
            "schedule.warmup": warmup,
        },
        start=_START,
    )


def _paper(lr: float, mask_prob: float, length: int, batch: int) -> SizeDefaults:
    rates = {"lr": lr, "beta2": 0.999}
    return SizeDefaults(
        optimizer="adam",
        optim={"adam": rates, "muon": rates},
        settings={
            "objective.mask_prob": mask_prob,
            "data.length": length,
            "data.vocab": 30_522,
            "batch": batch,
            "schedule.kind": "linear",
        },
    )


DEFAULTS: dict[str, SizeDefaults] = {
    # Found by search_spaces/joint.yaml (reports/joint).
    "nano32": _own(adam=1e-3, muon=1.9e-3, hidden=4.8, mask_prob=0.2, batch=96, warmup=0.1),
    "nano48": _own(adam=1e-3, muon=1e-3, hidden=4.0),
    "nano": _own(adam=1e-3, muon=1e-3, hidden=4.0),
    "nano96": _own(adam=1e-3, muon=1e-3, hidden=4.0),
    "tiny": _own(adam=1e-3, muon=1e-3, hidden=4.0),
    "mini": _own(adam=7e-4, muon=7e-4, hidden=4.0),
    "small": _paper(5e-4, 0.15, 128, 128),
    "base": _paper(2e-4, 0.15, 512, 256),
    "large": _paper(2e-4, 0.25, 512, 2_048),
}


def fill_defaults(raw: dict[str, Any], size: str) -> None:
    """Write the defaults of `size` into a trial's raw settings where they say nothing.

    Where windows are at least twice as long as those of the size, they grow from these, and a
    batch has as many fewer as keep the tokens of a step (reports/windows).

    A section that is no mapping is left as it is: the loader refuses it with its path.

    Args:
        raw: settings of a trial, as a search space has them.
        size: a key of `DEFAULTS`.
    """
    defaults = DEFAULTS[size]
    _write(raw, "optim.kind", defaults.optimizer)
    optim = raw["optim"]
    kind = optim.get("kind") if isinstance(optim, dict) else None
    own = defaults.optim.get(kind, {}) if isinstance(kind, str) else {}
    rates = {f"optim.{name}": value for name, value in own.items()}
    settings = {**rates, **defaults.settings}
    data = raw.get("data")
    length = data.get("length") if isinstance(data, dict) else None
    start = defaults.start
    if start is not None and isinstance(length, int) and length >= 2 * start:
        settings["windows"] = {"kind": "growing", "start": start}
        settings["batch"] = max(1, int(str(settings["batch"])) * start // length)
    for path, value in settings.items():
        _write(raw, path, value)


def _write(raw: dict[str, Any], path: Path, value: Value) -> None:
    inner: Any = raw
    *parents, last = path.split(".")
    for parent in parents:
        if parent == "objective" and parent not in raw:
            return  # it is missing, and the loader says so
        inner = inner.get(parent, {})
        if not isinstance(inner, dict):
            return  # the loader refuses it with its place
    if last not in inner:
        yaml_text.put(raw, path, value)
