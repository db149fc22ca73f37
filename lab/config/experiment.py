"""Configuration of an experiment: question, compared settings, search and resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Gt, Interval, Lt

from lab.config.architecture import Count
from lab.config.base import StrictConfig
from lab.config.bounds import Name
from lab.config.costs.constraints import Constraints
from lab.config.costs.second_objective import CostName
from lab.config.metrics import Metric
from lab.config.trial import Path, Trial, Value

Answer = Literal["ranking", "path", "noise"]
Role = Literal["search", "repeat"]
_LEAST_GPU = 0.01  # share of a GPU for one process
_TOLERANCE = 0.001  # of a rung's share of the budget, which may be rounded (.333)


@dataclass(frozen=True, kw_only=True)
class Range(StrictConfig):
    """Values of a nuisance parameter: an interval, searched on a linear or logarithmic scale.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether values are drawn on a logarithmic scale.
        step: distance between neighboring values; null for a continuous range.
        integer: whether values are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Gt(0)] | None = None
    integer: bool = False


@dataclass(frozen=True, kw_only=True)
class Choices(StrictConfig):
    """Values of a nuisance parameter: a list without order.

    Attributes:
        choices: the values.
    """

    choices: tuple[Value, ...]


Distribution = Range | Choices


@dataclass(frozen=True, kw_only=True)
class HalvingConfig(StrictConfig):
    """Synchronous successive halving among the settings that the search of a cell tries.

    All settings are trained with the budget of the first rung, a share of the full budget. When
    the last of these trials has ended, the best 1/f of the settings are trained with the budget of
    the next rung, which is f times as large, and so on; those that pass the last rung are trained
    with the full budget. Which settings continue therefore does not depend on the order in which
    trials run, and only final scores of trials with equal budgets are compared. No step is trained
    twice, which needs one of two schedules. With `trunk`, the trial at a rung is a branch with a
    cooldown of its own, and a setting that continues resumes its trunk. With `constant` and
    `warmup: 0`, it continues from the end of its shorter trial.

    Attributes:
        first_rung: share of the budget with which all settings are trained first. They must differ
            there by more than seeds alone do; otherwise halving selects at random.
        factor: reduction factor f; one setting in f continues.
    """

    kind: Literal["halving"]
    first_rung: Annotated[float, Gt(0), Lt(1)]
    factor: Annotated[int, Interval(ge=2, le=100)] = 2

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the full budget at the rungs, in ascending order."""
        shares, share = [], self.first_rung
        while share < 1 - _TOLERANCE:
            shares.append(share)
            share *= self.factor
        return tuple(shares)

    def rungs(self, trial: Trial) -> tuple[Trial, ...]:
        """Return the trials at the rungs, in ascending order, of a trial with the full budget."""
        return tuple(shorten(trial, share) for share in self.shares)


def shorten(trial: Trial, share: float) -> Trial:
    """Return a trial that differs only in its budget, a share of that of `trial`."""
    return replace(trial, budget=replace(trial.budget, amount=share * trial.budget.amount))


@dataclass(frozen=True, kw_only=True)
class SearchConfig(StrictConfig):
    """Search of the nuisance parameters in each cell, and repeats on several seeds.

    Attributes:
        sampler: method that chooses the settings of search trials; `grid`, `random` and `qmc`
            (scrambled Halton sequence) depend on the trial's number only, so the search can be
            re-analyzed; `tpe` and `gp` adapt to the scores of finished trials.
        trials: number of settings tried in each cell; 1 if nothing is tuned.
        seeds: number of seeds on which the settings named by `repeated` are trained. A confidence
            interval needs at least 2; at least 3 are needed for an interval that is narrow enough
            to use.
        repeated: settings that are trained on all seeds. `best_setting`: the search trains each
            setting once, and the best one of a cell is repeated on seeds that the search did not
            use. Only the repeats are compared, so the selection does not bias the scores, and the
            intervals of differences contain the error of the search (docs/concepts.md).
            `every_setting`: each setting of the search is trained on all seeds; a cell is
            represented by its setting with the best mean score, and the intervals hold for all
            settings of all cells at once. Use it if the noise between seeds depends on the nuisance
            parameters. It needs a sampler that does not adapt to scores (`grid`, `random` or
            `qmc`), no early stopping, and `seeds` times as many search trials.
        seed: seed of the sampler.
        stopping: rule by which only some settings of the search are trained with the full budget;
            null trains all of them.
        prior: names of earlier sweeps of the same storage with the same paths under `tune`. The
            best settings that their searches have trained are the first ones that the search of
            each cell trains: those of the same cell, if the earlier sweep has it, otherwise of all
            its cells, the best of each first, at most half of `trials`. Settings outside of the
            ranges are left out. Scores of earlier sweeps are never used; a trial that is on record
            with all of its settings is not trained again. The settings are chosen when the search
            starts for the first time. It needs the sampler `tpe` or `gp`.
    """

    sampler: Literal["grid", "random", "qmc", "tpe", "gp"] = "qmc"
    trials: Count = 1
    seeds: Count = 3
    repeated: Literal["best_setting", "every_setting"] = "best_setting"
    seed: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    stopping: HalvingConfig | None = None
    prior: tuple[Name, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resources(StrictConfig):
    """Resources of one trial, and the number of concurrent trials.

    Attributes:
        workers: number of processes that train one trial together, each on a part of every batch.
        cpus_per_worker: number of CPU cores, and of threads, of each worker.
        gpus_per_worker: GPUs of each worker: 0, 1, or a fraction if several trials share a GPU.
            The seconds of trials that share a GPU are not comparable.
        slots: largest number of concurrent trials; 0 means as many as the machine or cluster has
            resources for.
    """

    workers: Annotated[int, Interval(ge=1, le=10_000)] = 1
    cpus_per_worker: Annotated[int, Interval(ge=1, le=10_000)] = 1
    gpus_per_worker: Annotated[float, Interval(ge=0, le=1)] = 0.0
    slots: Annotated[int, Interval(ge=0, le=1_000)] = 0

    def __post_init__(self) -> None:
        if 0 < self.gpus_per_worker < _LEAST_GPU:
            raise ValueError(
                f"gpus_per_worker must be 0 or at least {_LEAST_GPU:g}, not "
                f"{self.gpus_per_worker:g}: a GPU has no memory for more processes"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(StrictConfig):
    """Fine-tuning of every finished trial. Its compute is not part of the trial's budget.

    Attributes:
        tasks: names of built-in tasks (`lab.loading.task_table`), or YAML files that describe a
            task; each task gives the metric `finetune/<task>`.
        seeds: number of fine-tuning runs for each task; the median of their scores is recorded.
    """

    tasks: tuple[Name, ...] = ()
    seeds: Annotated[int, Interval(ge=1, le=1_000)] = 3


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A question, and the trials that answer it.

    Attributes:
        name: name of the sweep: the file name of the search space without its ending. It also
            names the report's folder and the MLflow run.
        question: question that the sweep answers; the title of the report.
        metric: metric that ranks the trials.
        base: settings that all trials share, except those under `compare` and `tune`.
        compare: compared settings; a mapping from dotted path to a list of values. The cells are
            all combinations of these values.
        tune: nuisance parameters; a mapping from dotted path to a range or to choices. They are
            searched in each cell separately.
        search: search of the nuisance parameters, and the number of repeats.
        resources: resources of each trial, and the number of concurrent trials.
        finetune: tasks on which finished trials are fine-tuned.
        minimal_pairs: file of JSON Lines with the keys `good`, `bad` and `category`, relative to
            the working directory of the command; the metrics `pairs/…` score whether a trial
            prefers each good sentence to the bad one. null uses the English pairs of the package.
        answer: conclusion that the report draws; `ranking`: the best setting; `path`: whether
            every trial finished; `noise`: the spread of the score between seeds.
        constraints: limits that trials must keep.
        cost: second objective, to be minimized beside the metric; `parameters`: number of
            parameters of the exported encoder; `inference_flops`: its FLOPs for one token of a full
            window; `tokens`: tokens that the trial reads in training. The report then shows the
            Pareto front: the settings to which no other one is equal or better in both, and better
            in one.
            If the cost depends on settings under `tune`, all settings on the front of a cell's
            search are repeated. null: the score alone.
    """

    name: str
    question: str
    metric: Metric
    base: dict[str, Value]
    compare: dict[Path, tuple[Value, ...]]
    tune: dict[Path, Distribution]
    search: SearchConfig
    resources: Resources
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    minimal_pairs: Name | None = None
    answer: Answer = "ranking"
    constraints: Constraints = field(default_factory=Constraints)
    cost: CostName | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial that a search proposes.

    Attributes:
        number: position in the order of proposals, from 0.
        role: `search` for a trial that searches the best nuisance parameters of a cell; `repeat`
            for one that runs the best setting again on other seeds. Cells are compared by repeats.
        cell: compared values, by dotted path.
        tuned: values of the nuisance parameters, by dotted path.
        repeat: number of the repeat, which determines the seeds; from 1 for repeats, 0 for search
            trials, but from 1 where every setting is repeated (`SearchConfig.repeated`).
        trial: configuration of the trial.
        rung: share of the full budget that the trial has, if it ends at a rung (`HalvingConfig`);
            None for a trial with the full budget.
        compared: all values that each path of `cell` takes in the sweep; used to shorten labels.
        infeasible: reason why the trial must not be trained: the constraints that it violates;
            empty for a trial to be trained.
        proposed_by: name of the earlier sweep that proposed the tuned values
            (`SearchConfig.prior`); empty for all others.
        cost: value of the second objective (`Experiment.cost`); None without one.
    """

    number: int
    role: Role
    cell: dict[Path, Value]
    tuned: dict[Path, Value]
    repeat: int
    trial: Trial
    rung: float | None = None
    compared: Mapping[Path, Sequence[Value]] = field(default_factory=dict)
    infeasible: str = ""
    proposed_by: str = ""
    cost: float | None = None
