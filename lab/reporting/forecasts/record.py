"""The record of a forecast: predictions, trials and code."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from lab.config.trial import Path, content_hash
from lab.control_characters import find_control
from lab.reporting.forecasts.designs import Setting
from lab.scaling.forecasting.designs import LawKind
from lab.scaling.predictions import Prediction
from lab.storage import forecasts as files
from lab.storage.forecasts import StoredFiles

_INPUTS = frozenset(
    {"sweep", "budget", "metric", "size", "law", "level", "trials", "excluded", "code", "version"}
)
_MAX_NOISE = 100.0  # of a logarithm; larger ones have no exponential


def _check_text(text: str) -> str:
    if control := find_control(text):
        raise ValueError(f"contains the control character {control}")
    return text


def _check_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Text = Annotated[str, AfterValidator(_check_text)]
Time = Annotated[str, AfterValidator(_check_time)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class FittedTrial(_Part):
    """A trial to which a law was fitted.

    Attributes:
        fingerprint: its fingerprint.
        design: label of its design.
        parameters: number of parameters N.
        tokens: training tokens D.
        budget: target FLOPs.
        loss: final value of the metric.
    """

    fingerprint: Text
    design: Text
    parameters: Positive
    tokens: Positive
    budget: Positive
    loss: Positive


class ExcludedTrial(_Part):
    """An end point that was not fitted.

    Attributes:
        fingerprint: its fingerprint.
        reason: why, in words.
    """

    fingerprint: Text
    reason: Text


class DesignRecord(_Part):
    """The forecast of a design.

    Attributes:
        design: its label.
        group: label of the designs that share a law.
        settings: settings by which trials of the design are found.
        parameters: number of parameters N.
        tokens: tokens that the budget pays for.
        epochs: passes over the sweep's text; None if unknown.
        loss: expected loss.
        low: lower end of the interval of the expected loss; 0 if it is not limited.
        high: upper end; infinite if it is not limited.
        noise: half-width of the interval of the log loss of one new run around the expected one.
    """

    design: Text
    group: Text
    settings: dict[Path, Setting]
    parameters: Positive
    tokens: Positive
    epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    loss: Positive
    low: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    high: Annotated[float, Field(gt=0)]
    noise: Annotated[float, Field(ge=0, le=_MAX_NOISE)]

    @model_validator(mode="after")
    def _check_interval(self) -> Self:
        if not self.low <= self.loss <= self.high:
            raise ValueError("the interval does not contain the expected loss")
        return self


class Ranking(_Part):
    """The baseline: a ranking of the designs at one budget that was run.

    Attributes:
        budget: the budget.
        losses: mean loss of each design with runs there.
    """

    budget: Positive
    losses: dict[Text, Positive]


class ForecastRecord(_Part):
    """A forecast of the designs of a sweep at a budget that was not run.

    Attributes:
        written: time at which it was written, UTC, as in ISO 8601.
        sweep: name of the sweep.
        storage: identity of the storage.
        budget: FLOPs.
        factor: how many times larger it is than the largest budget that was fitted.
        metric: name of the loss.
        size: definition of the number of parameters.
        law: kind of the laws.
        level: nominal coverage of the intervals.
        seeds: runs of each design at the largest budget, as many as a new budget is assumed to
            have where an interval is printed.
        laws: parameters of each law by name, by the label of its group or design.
        designs: the forecasts.
        baseline: the ranking that the forecast is compared with.
        trials: trials to which the laws were fitted.
        excluded: end points that were not fitted.
        warnings: signs that the law is wrong or does not hold at the budget.
        code: digest of the code that fits laws.
        version: version of the lab.
        trial_codes: code digests of the trials.
    """

    format: Literal[1] = 1
    written: Time
    sweep: Text
    storage: Text
    budget: Positive
    factor: Positive
    metric: Text
    size: Text
    law: LawKind
    level: Annotated[float, Field(gt=0, lt=1)]
    seeds: Annotated[int, Field(ge=1)]
    laws: dict[Text, dict[Text, Finite]]
    designs: list[DesignRecord]
    baseline: Ranking
    trials: list[FittedTrial]
    excluded: list[ExcludedTrial]
    warnings: list[Text]
    code: Text
    version: Text
    trial_codes: list[Text]

    @property
    def name(self) -> str:
        """Name of its file: a hash of everything that determines the predictions."""
        return content_hash(self.model_dump(mode="json", include=set(_INPUTS)))

    @property
    def ranked(self) -> tuple[DesignRecord, ...]:
        """The forecasts, smallest loss first."""
        return tuple(sorted(self.designs, key=lambda each: each.loss))

    def prediction(self, design: DesignRecord) -> Prediction:
        """Return the prediction of a design."""
        return Prediction(
            loss=design.loss,
            low=design.low,
            high=design.high,
            noise=design.noise,
            level=self.level,
        )


def parse_records(stored: StoredFiles) -> tuple[tuple[ForecastRecord, ...], dict[str, str]]:
    """Return the forecasts of a storage by time, and messages about files that are not used.

    A file is not used if its content differs from its SHA-256, if its inputs differ from the hash
    in its name, or if another version of the lab wrote it.
    """
    records, problems = [], dict(stored.damaged)
    for name, content in stored.contents.items():
        try:
            record = ForecastRecord.model_validate(content)
        except ValidationError as error:
            problems[name] = f"{_path(name)}: {_describe(error)}; {files.REMEDY}"
            continue
        if record.name == name:
            records.append(record)
        else:
            problems[name] = (
                f"{_path(name)}: its inputs have the hash {record.name}; {files.REMEDY}"
            )
    return tuple(sorted(records, key=lambda each: (each.written, each.name))), problems


def _path(name: str) -> str:
    return f"{files.FOLDER}/{name}.json"


def _describe(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(map(str, first["loc"]))
    return f"{path}{': ' if path else ''}{first['msg']}"
