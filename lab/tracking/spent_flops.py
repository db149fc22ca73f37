"""Find trials of all sweeps of a store by the FLOPs that they have spent."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.config.trial import Path, Value
from lab.tracking import tags
from lab.tracking.client import connect_client, describe_error
from lab.tracking.parameters import parse_setting
from lab.tracking.search import search_runs

_FLOPS = "metrics.`spent/flops`"


@dataclass(frozen=True, kw_only=True)
class FoundTrial:
    """A trial that has spent FLOPs.

    Attributes:
        sweep: name of its sweep.
        sweep_run: id of the sweep's run.
        fingerprint: its fingerprint; empty if another program has removed it.
        began: Unix time in seconds at which it occupied its slot; NaN while it runs.
        settings: its parameters by dotted path.
    """

    sweep: str
    sweep_run: str
    fingerprint: str
    began: float
    settings: Mapping[Path, Value]


def find_trials(uri: str, least: float, most: float = math.inf) -> tuple[FoundTrial, ...]:
    """Return the trials of all sweeps that have spent between `least` and `most` FLOPs.

    Args:
        uri: URI of the tracking store.
        least: smallest number of FLOPs.
        most: largest number of FLOPs.

    Raises:
        StoreError: the store cannot be read.
    """
    client = connect_client(uri)
    query = f"tags.`{tags.full_name(tags.KIND)}` = '{tags.KIND_TRIAL}' and {_FLOPS} >= {least!r}"
    if math.isfinite(most):
        query += f" and {_FLOPS} <= {most!r}"
    with describe_error(uri):
        return tuple(_find(client, query))


def _find(client: Any, query: str) -> Iterator[FoundTrial]:
    experiments = client.search_experiments()
    for experiment in sorted(experiments, key=lambda each: str(each.name)):
        for run in search_runs(client, experiment.experiment_id, query):
            values = tags.remove_prefix(run.data.tags)
            yield FoundTrial(
                sweep=str(experiment.name),
                sweep_run=run.data.tags.get(tags.PARENT_RUN, ""),
                fingerprint=values.get(tags.FINGERPRINT, ""),
                began=_parse_time(values.get(tags.BEGAN, "")),
                settings={path: parse_setting(text) for path, text in run.data.params.items()},
            )


def _parse_time(text: str) -> float:
    found = parse_setting(text)
    return float(found) if isinstance(found, (int, float)) else math.nan
