"""Metrics, and the settings across which each metric's values are comparable.

A raw training loss cannot rank trials that differ in the generator, the mask rate or the loss
weight, because it depends on them. Each metric therefore declares the dotted paths that make its
values incomparable, and a search space that varies one of them is rejected with the metric's
reason. A metric also declares the paths that change its value without any training, and those
between whose values it is not neutral: such values can be compared, but a difference is no evidence
about training, or none that other scores share, and the lab prints a warning.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
        confounded_across: prefixes of dotted paths; the value of an untrained encoder depends on
            them too, so a difference between trials that differ in such a path is not due to
            training alone.
        confounding: reason for `confounded_across`, in one sentence; empty if `confounded_across`
            is empty.
        biased_across: prefixes of dotted paths; the metric favors some trials that differ in such a
            path over others that are as good by other scores, so a sweep prints a warning.
        bias: reason for `biased_across`, in one sentence; empty if `biased_across` is empty.
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
    confounded_across: tuple[str, ...] = ()
    confounding: str = ""
    biased_across: tuple[str, ...] = ()
    bias: str = ""
    needs: Network | None = None
    at_every_evaluation: bool = True

    @property
    def task(self) -> str | None:
        """Name of the task that the metric scores; None if it scores no task."""
        if self.scores_pairs:
            return PAIRS
        family, _, rest = self.name.partition("/")
        return rest.partition("/")[0] if family in ("probe", "finetune") else None

    @property
    def own_loss(self) -> bool:
        """Whether the metric is a loss of the trial's own training."""
        return self.name.startswith("train/")

    @property
    def scores_pairs(self) -> bool:
        """Whether the metric is an accuracy on minimal pairs."""
        return self.name.startswith(f"{PAIRS}/")

    def find_incomparable_path(self, paths: tuple[str, ...]) -> str | None:
        """Return the first of `paths` that makes values incomparable; None if there is none."""
        return next(iter(_select_affecting(paths, self.incomparable_across)), None)

    def find_confounding_paths(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Return the paths among `paths` on which the value of an untrained encoder depends."""
        return _select_affecting(paths, self.confounded_across)

    def find_biased_paths(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `paths` with values that the metric favors over others."""
        return _select_affecting(paths, self.biased_across)

    def better(self, a: float, b: float) -> bool:
        """Return whether `a` is strictly better than `b`."""
        return a > b if self.direction == "maximize" else a < b


def _select_affecting(paths: tuple[str, ...], prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths that equal one of the prefixes, are part of it, or contain it."""
    return tuple(
        path for path in paths if any(_covers(one, path) or _covers(path, one) for one in prefixes)
    )


def untrained_name(metric: str) -> str:
    """Return the name under which the contributions to a metric at step 0 are stored."""
    return f"untrained/{metric}"


PAIRS = "pairs"  # family of metrics, and name of its sentences where overlaps are counted


def _covers(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


CORRUPTIONS = ("unigram", "bigram", "mlm")

# Another tokenizer or window length changes the held-out examples themselves, so scores on them
# are not comparable. Probes and hidden words are defined on the text and remain comparable.
_TEXT = ("data",)

# Measured on the tag probe (reports/LOG.md): untrained encoders of width 64 and 128 score .60 and
# .65 (what counts is the smaller of embedding and hidden size; 1 to 12 layers make no difference),
# windows of 16 and 64 .60 and .57. A table of the first token of a word scores .65 with 512 tokens
# and .77 with 8,192.
_PROBE_CONFOUNDERS = (
    "encoder.hidden",
    "encoder.embedding",
    "data.vocab",
    "data.tokenizer",
    "data.length",
)
_PROBE_CONFOUNDING = (
    "even an untrained encoder scores higher with wider embeddings and lower with longer windows, "
    "and a larger vocabulary tells more words apart"
)

# Settings other than objective and encoder that determine the quality of the generator.
_TRAINING = ("init_from", "windows", "batch", "optim", "schedule", "budget")

# Settings that determine how near the replacements of the training are to words drawn by their
# frequency. The encoder's shape determines the generator's.
_REPLACEMENTS = ("objective.generator", "objective.replacement_distribution", "encoder")

# The differences between objectives and between generators that were measured are in
# docs/concepts.md ("Confounded metrics").
_REPLACED_IN_TRAINING = (
    "objective.kind",
    "objective.generator",
    "objective.replacement_distribution",
)
_DETECTION_BIAS = (
    "detection of frozen replacements rises first in trials whose own replacements are nearly "
    "drawn by frequency, such as those of objective random or of a small generator"
)
_EXAMPLES = "the held-out examples consist of the tokenizer's tokens and windows"
_UNIGRAMS = (
    f"{_EXAMPLES}, and unigram replacements are those that objective random trains on and that "
    "small generators nearly make; detection rises first there"
)
_DETECTION_SCORES: tuple[tuple[str, Direction, str, str], ...] = (
    ("auroc", "maximize", "AUROC of finding {}", ""),
    ("calibrated_loss", "minimize", "loss on {}", ", calibrated on its other half"),
)
_DETECTION = tuple(
    Metric(
        name=f"detect/{source}/{score}",
        direction=direction,
        title=f"{title.format(source)} replacements in held-out text{note}",
        incomparable_across=(*_TEXT, *_REPLACEMENTS) if source == "unigram" else _TEXT,
        reason=_UNIGRAMS if source == "unigram" else _EXAMPLES,
        biased_across=_REPLACED_IN_TRAINING,
        bias=_DETECTION_BIAS,
        needs="discriminator",
    )
    for source in CORRUPTIONS
    for score, direction, title, note in _DETECTION_SCORES
)

_PROBES = tuple(
    metric
    for task, scored, always in (
        ("pos", "part-of-speech {} of a linear probe (Brown)", True),
        ("sentiment", "sentiment {} of a linear probe (movie reviews)", False),
    )
    for metric in (
        Metric(
            name=f"probe/{task}/accuracy",
            direction="maximize",
            title=f"{scored.format('accuracy')} on a learned mix of layers",
            confounded_across=_PROBE_CONFOUNDERS,
            confounding=_PROBE_CONFOUNDING,
            at_every_evaluation=always,
        ),
        Metric(
            name=f"probe/{task}/nats",
            direction="minimize",
            title=f"{scored.format('loss in nats')} on a learned mix of layers",
            confounded_across=_PROBE_CONFOUNDERS,
            confounding=_PROBE_CONFOUNDING,
            at_every_evaluation=always,
        ),
    )
)

# Settings that select the held-out documents.
_DOCUMENTS = ("data.source", "data.share", "data.held_out", "data.bad_text")

_HIDDEN_WORDS = (
    Metric(
        name="mlm/nats_per_character",
        direction="minimize",
        title="nats per character of hidden words of held-out text, read from the frozen encoder",
        incomparable_across=_DOCUMENTS,
        reason="it is an average over the words of the held-out documents",
        # Untrained encoders of width 32, 64, 128 and 256: 2.693, 2.683, 2.679, 2.670.
        confounded_across=("encoder.hidden", "encoder.embedding"),
        confounding="even an untrained encoder scores better with wider embeddings",
    ),
    Metric(
        name="mlm/own_head/nats_per_character",
        direction="minimize",
        title="nats per character of hidden words of held-out text, by the encoder's own head",
        incomparable_across=(*_DOCUMENTS, "data.tokenizer", "objective.kind"),
        reason="the head of `mlm` is trained on [MASK] and the heads of other objectives are not, "
        "and a tokenizer that removes case or accents has less to predict",
        needs="predictor",
        at_every_evaluation=False,
    ),
)

# Each pair is a comparison of two sentences by one model, and chance is .5 for every shape,
# vocabulary and window; a window that cuts sentences counts against the encoder.
PAIRS_ACCURACY = f"{PAIRS}/accuracy"
PAIR_CATEGORIES = (
    "determiner",
    "agreement",
    "distant_agreement",
    "pronoun",
    "replacement",
    "order",
)
MAX_CATEGORY = 100  # characters


def is_category(name: str) -> bool:
    """Return whether a text is a valid name of a category.

    It has at most `MAX_CATEGORY` ASCII letters, digits, - and _, because it is a part of the names
    of metrics, for which MLflow has a largest length.
    """
    is_short = len(name) <= MAX_CATEGORY
    return is_short and name.isascii() and name.replace("-", "").replace("_", "").isalnum()


def category_metric(category: str) -> Metric:
    """Return the metric of the minimal pairs of a category."""
    return Metric(
        name=f"{PAIRS}/{category}/accuracy",
        direction="maximize",
        title=f"share of minimal pairs ({category}) in which the good sentence is preferred",
    )


_MINIMAL_PAIRS = (
    Metric(
        name=PAIRS_ACCURACY,
        direction="maximize",
        title="share of minimal pairs in which the good sentence is preferred, mean of categories",
    ),
    *map(category_metric, PAIR_CATEGORIES),
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
UNDEFINED = "undefined"  # `finetune/TASK/undefined`: runs without a defined score, if there are any


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
    category = name.removeprefix(f"{PAIRS}/").removesuffix("/accuracy")
    if name == f"{PAIRS}/{category}/accuracy" and is_category(category):
        return category_metric(category)
    task = name.removeprefix(_AFTER)
    if name in METRICS or task == name:
        return METRICS.get(name)
    return None if "/" in task or task in ("", *FINETUNING_COSTS) else finetuned(task)


class Alternatives(NamedTuple):
    """Metrics that can rank given trials, by name.

    Attributes:
        neutral: metrics that are neither confounded nor biased between the trials.
        confounded: metrics that are confounded with a setting in which the trials differ.
        biased: other metrics that are not neutral between the trials.
    """

    neutral: list[str]
    confounded: list[str]
    biased: list[str]


def alternative_metrics(paths: tuple[str, ...], networks: Collection[Network]) -> Alternatives:
    """Return the metrics that can rank trials that differ in `paths`.

    Losses of the trials' own training are left out, since they are no scores of the encoder.

    Args:
        paths: dotted paths in which the trials differ.
        networks: networks that the objectives of all trials train.
    """
    found = Alternatives([], [], [])
    for metric in METRICS.values():
        lacks_network = metric.needs is not None and metric.needs not in networks
        if metric.own_loss or lacks_network or metric.find_incomparable_path(paths) is not None:
            continue
        if metric.find_confounding_paths(paths):
            found.confounded.append(metric.name)
        elif metric.find_biased_paths(paths):
            found.biased.append(metric.name)
        else:
            found.neutral.append(metric.name)
    found.neutral.append(f"{_AFTER}TASK")
    return found


def select_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """Return the metrics among `names`: those of `METRICS` in its order, then fine-tuning ones."""
    metrics = {name: metric for name in sorted(names) if (metric := find_metric(name)) is not None}
    return {name: metrics[name] for name in (*METRICS, *metrics) if name in metrics}


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (*_DETECTION, *_PROBES, *_HIDDEN_WORDS, *_MINIMAL_PAIRS, *_RAW)
}
