"""Check that the texts of a task can be learned from, before anything is trained on it."""

from collections.abc import Sequence
from typing import NamedTuple

from lab.errors import UserError

# Share of the evaluation rows that may have the text of a training row. Collected data sets repeat
# some texts; above it, the training rows were given twice.
_MOST_REPEATED = 0.5


class NamedText(NamedTuple):
    """A text with the name of its row.

    Attributes:
        row: name of the row: file and number, or split and number.
        text: text of the row; both texts of a pair.
    """

    row: str
    text: str


def check_texts(name: str, train: Sequence[NamedText], evaluation: Sequence[NamedText]) -> None:
    """Check the texts of a task.

    Args:
        name: name of the task.
        train: texts of the training rows.
        evaluation: texts of the evaluation rows.

    Raises:
        UserError: all training rows have the same text, or most evaluation rows have the text of a
            training row.
    """
    known = {each.text for each in train}
    if len(train) > 1 and len(known) == 1:
        raise UserError(
            f"{name}: all {len(train)} training rows have the same text, {train[0].text[:60]!r}; "
            "no label can be learned from it: check the column of the text"
        )
    repeated = [each for each in evaluation if each.text in known]
    if len(repeated) > _MOST_REPEATED * len(evaluation):
        raise UserError(
            f"{name}: {len(repeated)} of {len(evaluation)} evaluation rows have the text of a "
            f"training row, {repeated[0].row} for example; at most {_MOST_REPEATED:.0%} may: use "
            "evaluation rows that are not trained on"
        )
