"""Configurations and speeds of the trials of a stored sweep."""

import json
from collections.abc import Hashable
from copy import deepcopy
from typing import Any

from lab.advice.devices import Timing
from lab.config.experiment import Experiment
from lab.config.trial import Path, Trial, Value
from lab.errors import UserError
from lab.loading import rate_trends, search_space, yaml_text
from lab.reporting.scaling.end_points import EndPoint
from lab.tracking import tags
from lab.tracking.frames import SweepFrames


class StoredTrials:
    """The configurations of a sweep's trials, and their speeds.

    Args:
        frames: frames of the sweep.

    Attributes:
        name: name of the sweep.
        rate_config: power law that the search space has as learning rate; None if it has none.

    Raises:
        UserError: the tracking store does not have the search space.
    """

    def __init__(self, frames: SweepFrames) -> None:
        text = frames.texts.get(tags.SPACE_FILE)
        if text is None:
            raise UserError(f"{frames.name}: the tracking store has no search space of this sweep")
        self._experiment: Experiment = search_space.check_experiment(
            frames.name, yaml_text.parse(text)
        )
        self._rows: dict[int, dict[Hashable, Any]] = {
            int(row["number"]): row for row in frames.trials.to_dict("records")
        }
        self.name = frames.name
        self.rate_config = rate_trends.take_trend(deepcopy(self._experiment.base))
        self._compared = frames.compare
        self._tuned = tuple(frames.tune)

    def build(self, number: int) -> Trial:
        """Return the configuration of a trial."""
        row = self._rows[number]
        settings: dict[Path, Value] = {
            path: _find_value(values, row[path]) for path, values in self._compared.items()
        }
        settings |= {path: _parse(row[path]) for path in self._tuned}
        return search_space.build_trial(self._experiment.base, settings)

    def run_name(self, end: EndPoint) -> str:
        """Return a name of a trial's run that is unique among several sweeps."""
        return f"{self.name}, trial {end.number}"

    def is_timed(self, end: EndPoint) -> bool:
        """Return whether the seconds of a trial tell the speed of its device."""
        row = self._rows[end.number]
        return bool(row["device"]) and not row["shared"] and row.get("spent/seconds", 0.0) > 0

    def timing(self, end: EndPoint) -> Timing:
        """Return the speed of a trial."""
        row = self._rows[end.number]
        return Timing(
            parameters=end.run.parameters,
            device=str(row["device"]),
            flops_per_second=end.flops / float(row["spent/seconds"]),
        )


def _find_value(values: list[Value], stored: object) -> Value:
    """Return the compared value that the frames store; lists and mappings are stored as JSON."""
    return next(value for value in values if stored in (value, json.dumps(value)))


def _parse(stored: Any) -> Value:
    """Return a tuned value; lists and mappings are stored as JSON."""
    is_json = isinstance(stored, str) and stored[:1] in {"[", "{"}
    value: Value = json.loads(stored) if is_json else stored
    return value
