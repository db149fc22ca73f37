"""Checked access to the cells of a row: text, label, number, list of words, answers."""

import math
import re
from typing import Any

from lab.errors import UserError


class CheckedRow:
    """A row of a task with checked access to its cells.

    The methods that return a cell raise `UserError` if the column is missing or the cell has
    another type than the requested one.

    Args:
        where: name of the row in error messages.
        row: cells by column.
    """

    def __init__(self, where: str, row: dict[str, Any]) -> None:
        self._where, self._row = where, row

    def error(self, column: str, reason: str) -> UserError:
        """Return an error with the name of the row and the column."""
        return UserError(f"{self._where}: {column}: {reason}")

    def _cell(self, column: str) -> Any:
        if column not in self._row:
            columns = ", ".join(map(str, self._row)) or "none"
            raise UserError(f"{self._where}: no column {column!r}; columns: {columns}")
        return self._row[column]

    def text(self, column: str) -> str:
        """Return the cell as text."""
        cell = self._cell(column)
        if not isinstance(cell, str):
            raise self.error(column, f"must be text, not {_shorten(cell)}")
        return self._check_surrogates(column, cell)

    def _check_surrogates(self, column: str, text: str) -> str:
        """Return the text; raise an error for unpaired surrogates, which UTF-8 cannot encode."""
        if re.search("[\ud800-\udfff]", text):
            raise self.error(column, f"unpaired surrogate in {_shorten(text)}")
        return text

    def label(self, column: str) -> str:
        """Return the cell as a label."""
        return self._check_label(column, self._cell(column))

    def _check_label(self, column: str, cell: object) -> str:
        if cell == "" or not isinstance(cell, str | int):
            raise self.error(column, f"must be text or a whole number, not {_shorten(cell)}")
        return self._check_surrogates(column, str(cell))

    def number(self, column: str) -> float:
        """Return the cell as a finite number.

        Texts that only Python takes for numbers are refused: `1_0`, and digits of other scripts.
        """
        cell = self._cell(column)
        is_plain = not isinstance(cell, bool) and not re.search(r"[^\x00-\x7f]|_", str(cell))
        try:
            number = float(cell) if is_plain else math.nan
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(column, f"must be a number, not {_shorten(cell)}")
        return number

    def word_list(self, column: str) -> list[str]:
        """Return the cell as words or tags: a list, or text split at white space."""
        cell = self._cell(column)
        if isinstance(cell, str):
            return self._check_surrogates(column, cell).split()
        if not isinstance(cell, list):
            raise self.error(column, f"must be a list or text, not {_shorten(cell)}")
        return [self._check_label(column, item) for item in cell]

    def answers(self, column: str, context: str) -> tuple[list[str], list[int]]:
        """Return the answers and the position of the first character of each in `context`."""
        match self._cell(column):
            case {"text": list() as texts, "answer_start": list() as starts} if len(texts) == len(
                starts
            ):
                pass
            case cell:
                form = "{text: [...], answer_start: [...]}"
                raise self.error(column, f"must be {form}, not {_shorten(cell)}")
        for text, start in zip(texts, starts, strict=True):
            if not (isinstance(text, str) and text and isinstance(start, int) and start >= 0):
                raise self.error(
                    column, f"needs a text and its first character, not {_shorten(text)}, {start!r}"
                )
            if not context.startswith(text, start):
                raise self.error(
                    column, f"{_shorten(text)} is not in the context at character {start}"
                )
        return texts, starts


def _shorten(cell: object) -> str:
    written = "null" if cell is None else repr(cell)
    return written if len(written) <= 60 else f"{written[:60]}..."
