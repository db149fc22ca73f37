"""Default settings of the named encoder sizes.

Defaults never replace a value that the search space contains. The defaults of the lab's own sizes
were measured (reports/LOG.md); those of small, base and large are from the paper (tables 6 and 7)
and the official `configure_pretraining.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.config.trial import Path, Value
from lab.loading import yaml_text

_START = 16  # positions


@dataclass(frozen=True, kw_only=True)
class SizeDefaults:
    """Default settings of one size.

    Attributes:
        optimizer: default of `optim.kind`.
        optim: defaults of the settings under `optim`, by optimizer.
        settings: defaults of all other settings, by dotted path.
        start: default of `windows.start` if `data.length` is at least twice as long; None if
            windows are full in every step.
    """

    optimizer: str
    optim: Mapping[str, Mapping[str, Value]]
    settings: Mapping[Path, Value]
    start: int | None = None


def _measured_defaults(
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
            "adamw": {"lr": adam},
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


def _paper_defaults(lr: float, mask_prob: float, length: int, batch: int) -> SizeDefaults:
    rates = {"lr": lr, "beta2": 0.999}
    return SizeDefaults(
        optimizer="adam",
        optim={"adam": rates, "adamw": rates, "muon": rates},
        settings={
            "objective.mask_prob": mask_prob,
            "data.length": length,
            "data.vocab": 30_522,
            "batch": batch,
            "schedule.kind": "linear",
        },
    )


DEFAULTS: dict[str, SizeDefaults] = {
    # From the sweep search_spaces/joint.yaml (reports/archive/joint).
    "nano32": _measured_defaults(
        adam=1e-3, muon=1.9e-3, hidden=4.8, mask_prob=0.2, batch=96, warmup=0.1
    ),
    "nano48": _measured_defaults(adam=1e-3, muon=1e-3, hidden=4.0),
    "nano": _measured_defaults(adam=1e-3, muon=1e-3, hidden=4.0),
    "nano96": _measured_defaults(adam=1e-3, muon=1e-3, hidden=4.0),
    "tiny": _measured_defaults(adam=1e-3, muon=1e-3, hidden=4.0),
    "mini": _measured_defaults(adam=7e-4, muon=7e-4, hidden=2.0),
    "small": _paper_defaults(5e-4, 0.15, 128, 128),
    "base": _paper_defaults(2e-4, 0.15, 512, 256),
    "large": _paper_defaults(2e-4, 0.25, 512, 2_048),
}


def fill_defaults(raw: dict[str, Any], size: str) -> None:
    """Add the defaults of `size` to a trial's raw settings in place, for settings without a value.

    If windows are at least twice as long as the default length of the size, they grow from that
    length, and the batch has proportionally fewer windows, so that a step has as many tokens
    (reports/archive/windows).

    Sections that are not mappings are left unchanged, since validation rejects them later.

    Args:
        raw: settings of a trial, as plain YAML data.
        size: a key of `DEFAULTS`.
    """
    defaults = DEFAULTS[size]
    _set_default(raw, "optim.kind", defaults.optimizer)
    optim = raw["optim"]
    kind = optim.get("kind") if isinstance(optim, dict) else None
    own = defaults.optim.get(kind, {}) if isinstance(kind, str) else {}
    rates = {f"optim.{name}": value for name, value in own.items()}
    settings = {**rates, **defaults.settings}
    schedule = raw.get("schedule")
    if isinstance(schedule, dict) and schedule.get("kind") == "trunk":
        settings.pop("schedule.warmup", None)  # a share; the warm-up of a trunk is an amount
    data = raw.get("data")
    length = data.get("length") if isinstance(data, dict) else None
    start = defaults.start
    if start is not None and isinstance(length, int) and length >= 2 * start:
        settings["windows"] = {"kind": "growing", "start": start}
        settings["batch"] = max(1, int(str(settings["batch"])) * start // length)
    for path, value in settings.items():
        _set_default(raw, path, value)


def _set_default(raw: dict[str, Any], path: Path, value: Value) -> None:
    inner: Any = raw
    *parents, last = path.split(".")
    for parent in parents:
        if parent == "objective" and parent not in raw:
            return  # a missing objective is reported by validation
        inner = inner.get(parent, {})
        if not isinstance(inner, dict):
            return  # a section that is not a mapping is reported by validation
    if last not in inner:
        yaml_text.put(raw, path, value)
