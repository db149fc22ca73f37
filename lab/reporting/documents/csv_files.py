"""Tables as CSV files that spreadsheets can open."""

from pathlib import Path as File

import pandas as pd
from pandas.api.types import is_numeric_dtype

from lab.control_characters import make_visible

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets compute a cell that begins with these


def write_csv(table: pd.DataFrame, file: File) -> None:
    """Write a table; texts that a spreadsheet would compute get an apostrophe in front.

    Numbers are unchanged, negative ones included. Control characters are escaped.
    """
    shown = table.copy()
    for position in range(shown.shape[1]):
        if not is_numeric_dtype(shown.iloc[:, position].dtype):
            shown.isetitem(
                position,
                [
                    make_inert(each) if isinstance(each, str) else each
                    for each in shown.iloc[:, position]
                ],
            )
    shown.columns = pd.Index([make_inert(str(name)) for name in table])
    shown.to_csv(file, index=False)


def make_inert(text: str) -> str:
    """Return the form of a text in a CSV file: with escapes, and no formula of a spreadsheet."""
    return make_visible(f"'{text}" if text.startswith(_FORMULA) else text)


def restore_text(cell: object) -> object:
    """Return a cell without the apostrophe that `make_inert` writes; escapes are kept."""
    is_inert = isinstance(cell, str) and cell.startswith(tuple(f"'{each}" for each in _FORMULA))
    return str(cell)[1:] if is_inert else cell
