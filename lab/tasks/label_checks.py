"""Check that the labels of a task can be learned and scored, before anything is trained on it."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lab.config.tasks import QuestionAnsweringTask, RegressionTask, TaggingTask, TaskConfig
from lab.errors import UserError

# Share of the evaluation words that may have a tag without a training word. Tag sets have rare
# members (0.01 % of the words of the Brown corpus here); a split without public tags, which is
# filled with one value, is above it.
_MOST_UNSEEN_WORDS = 0.05
# A number as tables and JSON write it. Digits after a leading zero (`01`) are a code, not a number.
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x2060, 0xFEFF))  # soft hyphen, spaces of no width
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?")


class Labelled(NamedTuple):
    """A label, or a number to predict, with the name of its row.

    Attributes:
        row: name of the row: file and number, or split and number.
        label: label, tag or number.
    """

    row: str
    label: str | float


def check_labels(
    name: str, config: TaskConfig, train: Sequence[Labelled], evaluation: Sequence[Labelled]
) -> None:
    """Check the labels of a task against each other and against its metric.

    Args:
        name: name of the task.
        config: settings of the task.
        train: labels of the training rows; tags of all their words for tagging.
        evaluation: labels of the evaluation rows.

    Raises:
        UserError: a check fails; the message has the row where there is one.
    """
    match config:
        case QuestionAnsweringTask():
            return
        case RegressionTask():
            _check_numbers(name, "training", train)
            _check_numbers(name, "evaluation", evaluation)
        case _:
            labels = sorted({str(each.label) for each in train})
            _check_classes(name, config.metric, labels)
            if isinstance(config, TaggingTask):
                _check_seen_tags(config.tags, labels, evaluation)
                return
            _check_spelling(config.label, [*train, *evaluation])
            _check_seen(config.label, labels, evaluation)
            _check_metric(name, config.metric, labels, evaluation)


def _check_numbers(name: str, split: str, rows: Sequence[Labelled]) -> None:
    """Reject numbers of which no correlation exists."""
    if len({each.label for each in rows}) > 1:
        return
    row, number = rows[0]
    only = "the only row has" if len(rows) == 1 else f"all {len(rows)} rows have"
    raise UserError(
        f"{name}: {row}: {only} the number {number:g} in the {split} split; a correlation needs "
        "at least two different numbers"
    )


def _check_spelling(column: str, rows: Iterable[Labelled]) -> None:
    """Reject labels that are the same number, truth value or word, written in two ways."""
    first: dict[str, Labelled] = {}
    for each in rows:
        other = first.setdefault(_meaning(str(each.label)), each)
        if other.label != each.label:
            raise UserError(
                f"{each.row}: {column}: {each.label!a} is the label {other.label!a} of "
                f"{other.row}, written in another way; write it alike in all rows"
            )


def _meaning(label: str) -> str:
    """Return a text that is equal for labels with the same value, or that look the same."""
    bare = unicodedata.normalize("NFC", label.translate(_INVISIBLE)).strip()
    if bare.lower() in ("true", "false"):
        return bare.lower()
    if any(map(str.isdigit, bare)) and _NUMBER.fullmatch(bare) and bare[0] not in "eE":
        return f"number {float(bare):.17g}" if _is_short(bare) else bare
    return bare


def _is_short(number: str) -> bool:
    """Return whether a float has all digits of a number; identifiers can have more."""
    return len(number) <= 15


def _check_classes(name: str, metric: str, labels: Sequence[str]) -> None:
    if len(labels) < 2:
        raise UserError(f"{name}: all training rows have the label {labels[0]!r}")
    if metric == "f1" and len(labels) > 2:
        raise UserError(
            f"{name}: metric f1 needs two labels, and the training rows have {len(labels)}; use "
            "macro_f1"
        )


def _check_seen(column: str, labels: Sequence[str], rows: Sequence[Labelled]) -> None:
    """Reject an evaluation label without a training row: every prediction for it is wrong."""
    known = set(labels)
    unseen = [each for each in rows if each.label not in known]
    if unseen:
        row, label = unseen[0]
        more = f" (and {len(unseen) - 1} more rows)" if len(unseen) > 1 else ""
        hidden = (
            "; -1 marks a split whose labels are not public: use another split"
            if label == "-1"
            else ""
        )
        raise UserError(
            f"{row}: {column}: no training row has the label {label!r}{more}; labels of the "
            f"training rows: {_list(labels)}{hidden}"
        )


def _check_seen_tags(column: str, tags: Sequence[str], words: Sequence[Labelled]) -> None:
    """Reject evaluation tags without a training word, if they are more than rare ones."""
    known = set(tags)
    unseen = [each for each in words if each.label not in known]
    if len(unseen) > _MOST_UNSEEN_WORDS * len(words):
        row, tag = unseen[0]
        raise UserError(
            f"{row}: {column}: no training word has the tag {tag!r}; {len(unseen)} of {len(words)} "
            f"evaluation words have such tags, at most {_MOST_UNSEEN_WORDS:.0%} may; tags of the "
            f"training words: {_list(tags)}"
        )


def _check_metric(
    name: str, metric: str, labels: Sequence[str], evaluation: Sequence[Labelled]
) -> None:
    """Reject evaluation rows for which a metric is the same whatever is predicted right."""
    present = {each.label for each in evaluation}
    if metric == "matthews" and len(present) < 2:
        raise UserError(
            f"{name}: {evaluation[0].row}: all evaluation rows have the label "
            f"{evaluation[0].label!r}, for which metric matthews is always 0; use accuracy"
        )
    if metric == "f1" and labels[1] not in present:
        raise UserError(
            f"{name}: {evaluation[0].row}: no evaluation row has the label {labels[1]!r}, for "
            "which metric f1 is computed; it would always be 0; use accuracy"
        )


def _list(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:10]))
    return f"{shown} and {len(labels) - 10} more" if len(labels) > 10 else shown
