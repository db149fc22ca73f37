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
            shown.isetitem(position, list(map(_make_inert, shown.iloc[:, position])))
    shown.columns = pd.Index([_make_inert(name) for name in table])
    shown.to_csv(file, index=False)


def _make_inert(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    return make_visible(f"'{cell}" if cell.startswith(_FORMULA) else cell)
