"""Which numbers may rank trials, and which may not.

Before a metric ranks anything it declares across what it may be compared (trap 1: a raw loss
cannot rank a sweep, because it depends on the generator, the mask rate or the loss weight).
A metric says which dotted paths it is blind to; a search space that varies any other of the
paths it depends on is refused at the door with the metric's own reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Network = Literal["generator", "discriminator", "predictor"]  # by what it is trained to do


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number a trial ends with.

    Attributes:
        name: as it is logged in MLflow and named in a search space.
        direction: which way is better.
        title: what a reader sees above a figure.
        spoiled_by: path prefixes whose variation makes values incomparable.
        because: why, in one sentence; empty where nothing spoils it.
        needs: a network without which an objective does not have it; None where all have it.
        at_every_evaluation: whether it is taken at every scored point, or only at a run's ends.
    """

    name: str
    direction: Direction
    title: str
    spoiled_by: tuple[str, ...] = ()
    because: str = ""
    needs: Network | None = None
    at_every_evaluation: bool = True

    @property
    def task(self) -> str | None:
        """The labelled task whose questions it scores; None where it scores none."""
        family, _, rest = self.name.partition("/")
        return rest.partition("/")[0] if family in ("probe", "finetune") else None

    def spoiler(self, paths: tuple[str, ...]) -> str | None:
        """Return the first of `paths` that makes this metric incomparable, if there is one."""
        for path in paths:
            if any(_covers(prefix, path) or _covers(path, prefix) for prefix in self.spoiled_by):
                return path
        return None

    def better(self, a: float, b: float) -> bool:
        """Return whether `a` is strictly better than `b`."""
        return a > b if self.direction == "maximize" else a < b


def _covers(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


CORRUPTIONS = ("unigram", "bigram", "mlm")
PROBES: tuple[Literal["pos", "sentiment"], ...] = ("pos", "sentiment")

# A different tokenizer or window changes the held-out questions themselves, so no held-out
# number survives it; the probes read words and sentences and do.
_TEXT = ("data",)

# What decides how strong a generator becomes, beside the objective and the encoder.
_TRAINING = ("init_from", "windows", "batch", "optim", "schedule", "budget")

_DETECTION = tuple(
    metric
    for source in CORRUPTIONS
    for metric in (
        Metric(
            name=f"detect/{source}/auroc",
            direction="maximize",
            title=f"AUROC of finding {source} replacements in held-out text",
            spoiled_by=_TEXT,
            because="the held-out questions are made of the tokenizer's tokens and windows",
            needs="discriminator",
        ),
        Metric(
            name=f"detect/{source}/loss",
            direction="minimize",
            title=f"loss on {source} replacements in held-out text",
            spoiled_by=(*_TEXT, "objective", "init_from"),
            because="a discriminator's probabilities are calibrated to the generator and mask rate "
            "it trained with, so its loss on a fixed corruption moves with them; use the AUROC",
            needs="discriminator",
        ),
    )
)

_PROBES = (
    Metric(
        name="probe/pos/accuracy",
        direction="maximize",
        title="part-of-speech accuracy of a linear probe (Brown), learned mix of layers",
    ),
    Metric(
        name="probe/sentiment/accuracy",
        direction="maximize",
        title="sentiment accuracy of a linear probe (movie reviews), learned mix of layers",
        at_every_evaluation=False,
    ),
)

_RAW = (
    Metric(
        name="train/generator_loss",
        direction="minimize",
        title="generator's masked-language-model loss while training",
        spoiled_by=(*_TEXT, "windows", "objective", "encoder"),
        because="a masked-language-model loss falls with the generator's size and the mask rate, "
        "and a better generator is not a better discriminator",
        needs="generator",
    ),
    Metric(
        name="train/mlm_loss",
        direction="minimize",
        title="encoder's loss of predicting tokens while training",
        spoiled_by=(*_TEXT, "windows", "objective", "encoder"),
        because="it depends on the mask rate, on what the masks are filled with, and on which "
        "tokens are predicted",
        needs="predictor",
    ),
    Metric(
        name="train/discriminator_loss",
        direction="minimize",
        title="discriminator's loss while training",
        spoiled_by=(*_TEXT, "objective", "encoder", *_TRAINING),
        because="it depends on how well the generator fools it: a weaker generator gives a lower "
        "loss and teaches less",
        needs="discriminator",
    ),
    Metric(
        name="train/loss",
        direction="minimize",
        title="total training loss",
        spoiled_by=(*_TEXT, "objective", "encoder", *_TRAINING),
        because="it is a weighted sum over losses that depend on the generator and the mask rate",
    ),
)

_AFTER = "finetune/"
CHARGES = ("flops", "seconds")  # `finetune/<these>` are what it cost, and no task's score


def finetuned(task: str) -> Metric:
    """Return the score of a task after fine-tuning.

    Tasks are words and texts, so it survives another tokenizer or window: a window that cuts texts
    off is part of what an encoder is worth. All that `grading` knows is better when larger.
    """
    return Metric(
        name=f"{_AFTER}{task}",
        direction="maximize",
        title=f"score on {task} after fine-tuning, median over seeds",
        at_every_evaluation=False,
    )


def named(name: str) -> Metric | None:
    """Return the metric of that name, if there can be one."""
    task = name.removeprefix(_AFTER)
    if name in METRICS or task == name:
        return METRICS.get(name)
    return None if "/" in task or task in ("", *CHARGES) else finetuned(task)


def among(names: Iterable[str]) -> dict[str, Metric]:
    """Return those of `names` that are metrics, in the order of this page."""
    found = {name: metric for name in sorted(names) if (metric := named(name)) is not None}
    return {name: found[name] for name in (*METRICS, *found) if name in found}


METRICS: dict[str, Metric] = {metric.name: metric for metric in (*_DETECTION, *_PROBES, *_RAW)}
