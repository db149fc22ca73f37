"""Data sets of a sweep and its trials as inputs of MLflow runs: name, digest and source."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lab.config.data import DataConfig
from lab.config.trial import Trial

_MOST_NAME = 120  # characters; MLflow allows 500, and its table of runs shows fewer
_CONTEXT = "mlflow.data.context"  # tag of an input; MLflow shows it beside the name


class DataInput(NamedTuple):
    """A data set that runs read.

    Attributes:
        name: short name.
        digest: hash of the content, at most 36 characters.
        source: settings from which the data set can be made again.
        context: use of the data set.
    """

    name: str
    digest: str
    source: Mapping[str, Any]
    context: Literal["training", "fine-tuning"]


@dataclass(frozen=True, kw_only=True)
class SweepInputs:
    """Data sets of a sweep.

    Attributes:
        texts: prepared texts, by their settings.
        tasks: tasks to fine-tune on, which all trials read.
    """

    texts: Mapping[DataConfig, DataInput] = field(default_factory=dict)
    tasks: tuple[DataInput, ...] = ()

    def all(self) -> list[DataInput]:
        """Return the data sets of the sweep."""
        return [*self.texts.values(), *self.tasks]

    def of_trial(self, trial: Trial) -> list[DataInput]:
        """Return the data sets that a trial reads."""
        texts = (self.texts.get(settings) for settings in trial.data_configs)
        return [*(text for text in texts if text is not None), *self.tasks]


def name_source(source: Mapping[str, Any]) -> str:
    """Return a short name of the source of a text: its kind, and its name or first path."""
    paths = source.get("paths") or [source.get("name") or source.get("path")]
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    name = " ".join(str(part) for part in (source["kind"], paths[0]) if part)
    return f"{name[:_MOST_NAME]}{more}"


def log_inputs(client: Any, run: str, inputs: Iterable[DataInput]) -> None:
    """Log data sets as inputs of a run; an input that the run has already is not repeated."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    datasets = [
        DatasetInput(
            Dataset(each.name, each.digest, "electra_lab", json.dumps(each.source)),
            [InputTag(_CONTEXT, each.context)],
        )
        for each in inputs
    ]
    if datasets:
        client.log_inputs(run, datasets)
