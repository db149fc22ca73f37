"""Metrics, and the settings across which each metric's values are comparable.

A raw training loss cannot rank trials that differ in the generator, the mask rate or the loss
weight, because it depends on them. Each metric therefore declares the dotted paths that make its
values incomparable, and a search space that varies one of them is rejected with the metric's
reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Network = Literal["generator", "discriminator", "predictor"]  # by training objective


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that a trial is scored by.

    Attributes:
        name: name of the metric in MLflow and in a search space.
        direction: whether larger (`maximize`) or smaller (`minimize`) values are better.
        title: description of the metric in the report.
        incomparable_across: prefixes of dotted paths; values of trials that differ in such a path
            are not comparable.
        reason: reason for `incomparable_across`, in one sentence; empty if `incomparable_across` is
            empty.
        needs: network that an objective must train to have this metric; None if every objective
            has it.
        at_every_evaluation: whether the metric is computed at every evaluation, or only at the
            start and the end of a run.
    """

    name: str
    direction: Direction
    title: str
    incomparable_across: tuple[str, ...] = ()
    reason: str = ""
    needs: Network | None = None
    at_every_evaluation: bool = True

    @property
    def task(self) -> str | None:
        """Name of the labeled task that the metric scores; None if it scores no task."""
        family, _, rest = self.name.partition("/")
        return rest.partition("/")[0] if family in ("probe", "finetune") else None

    def find_incomparable_path(self, paths: tuple[str, ...]) -> str | None:
        """Return the first of `paths` that makes values incomparable; None if there is none."""
        for path in paths:
            if any(
                _covers(prefix, path) or _covers(path, prefix)
                for prefix in self.incomparable_across
            ):
                return path
        return None

    def better(self, a: float, b: float) -> bool:
        """Return whether `a` is strictly better than `b`."""
        return a > b if self.direction == "maximize" else a < b


def _covers(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


CORRUPTIONS = ("unigram", "bigram", "mlm")

# Another tokenizer or window length changes the held-out examples themselves, so scores on them
# are not comparable. The probes are defined on words and sentences and remain comparable.
_TEXT = ("data",)

# Settings other than objective and encoder that determine the quality of the generator.
_TRAINING = ("init_from", "windows", "batch", "optim", "schedule", "budget")

# Settings that determine how near the replacements of the training are to words drawn by their
# frequency. The encoder's shape determines the generator's.
_REPLACEMENTS = ("objective.generator", "objective.replacement_distribution", "encoder")
_EXAMPLES = "the held-out examples consist of the tokenizer's tokens and windows"
_DETECTION = tuple(
    metric
    for source in CORRUPTIONS
    for metric in (
        Metric(
            name=f"detect/{source}/auroc",
            direction="maximize",
            title=f"AUROC of finding {source} replacements in held-out text",
            incomparable_across=(*_TEXT, *_REPLACEMENTS) if source == "unigram" else _TEXT,
            reason=f"{_EXAMPLES}, and unigram replacements are those that objective random trains "
            f"on and that small generators nearly make; detection rises first there"
            if source == "unigram"
            else _EXAMPLES,
            needs="discriminator",
        ),
        Metric(
            name=f"detect/{source}/loss",
            direction="minimize",
            title=f"loss on {source} replacements in held-out text",
            incomparable_across=(*_TEXT, "objective", "init_from")
            + ("encoder",) * (source == "unigram"),
            reason="a discriminator's probabilities are calibrated to the generator and mask rate "
            "of its training, so its loss on a fixed corruption depends on them; use the AUROC",
            needs="discriminator",
        ),
    )
)

_PROBES = (
    Metric(
        name="probe/pos/accuracy",
        direction="maximize",
        title="part-of-speech accuracy of a linear probe (Brown) on a learned mix of layers",
    ),
    Metric(
        name="probe/sentiment/accuracy",
        direction="maximize",
        title="sentiment accuracy of a linear probe (movie reviews) on a learned mix of layers",
        at_every_evaluation=False,
    ),
)

_RAW = (
    Metric(
        name="train/generator_loss",
        direction="minimize",
        title="masked-language-model loss of the generator during training",
        incomparable_across=(*_TEXT, "windows", "objective", "encoder"),
        reason="a masked-language-model loss depends on the generator's size and the mask rate, "
        "and a better generator does not imply a better discriminator",
        needs="generator",
    ),
    Metric(
        name="train/mlm_loss",
        direction="minimize",
        title="token prediction loss of the encoder during training",
        incomparable_across=(*_TEXT, "windows", "objective", "encoder"),
        reason="it depends on the mask rate, on the tokens written at masked positions, and on "
        "the predicted positions",
        needs="predictor",
    ),
    Metric(
        name="train/discriminator_loss",
        direction="minimize",
        title="loss of the discriminator during training",
        incomparable_across=(*_TEXT, "objective", "encoder", *_TRAINING),
        reason="it depends on the generator: replacements of a weaker generator are easier to "
        "detect, so the loss is lower although the discriminator learns less",
        needs="discriminator",
    ),
    Metric(
        name="train/loss",
        direction="minimize",
        title="total training loss",
        incomparable_across=(*_TEXT, "objective", "encoder", *_TRAINING),
        reason="it is a weighted sum over losses that depend on the generator and the mask rate",
    ),
)

_AFTER = "finetune/"
# `finetune/flops` and `finetune/seconds` are costs, not scores.
FINETUNING_COSTS = ("flops", "seconds")


def finetuned(task: str) -> Metric:
    """Return the metric of a task's score after fine-tuning.

    A task is defined on words and texts, so its scores are comparable between tokenizers and window
    lengths; truncation by a short window counts against the encoder. All task metrics
    (`lab.finetuning.metrics`) are better when larger.
    """
    return Metric(
        name=f"{_AFTER}{task}",
        direction="maximize",
        title=f"score on {task} after fine-tuning, median over seeds",
        at_every_evaluation=False,
    )


def find_metric(name: str) -> Metric | None:
    """Return the metric called `name`; None if there is no such metric."""
    task = name.removeprefix(_AFTER)
    if name in METRICS or task == name:
        return METRICS.get(name)
    return None if "/" in task or task in ("", *FINETUNING_COSTS) else finetuned(task)


def select_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """Return the metrics among `names`: those of `METRICS` in its order, then fine-tuning ones."""
    metrics = {name: metric for name in sorted(names) if (metric := find_metric(name)) is not None}
    return {name: metrics[name] for name in (*METRICS, *metrics) if name in metrics}


METRICS: dict[str, Metric] = {metric.name: metric for metric in (*_DETECTION, *_PROBES, *_RAW)}
