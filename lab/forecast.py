"""`python -m lab.forecast NAME --budget C`: forecast the losses of a sweep's designs."""

import argparse
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path as File
from typing import get_args

from lab import cli
from lab.errors import UserError
from lab.reporting.forecasts import tables
from lab.reporting.forecasts.making import check_untrained, make_forecast
from lab.reporting.forecasts.observed import TOLERANCE, observe_runs
from lab.reporting.forecasts.record import parse_records
from lab.reporting.forecasts.scored import ScoredForecast, calibrate_store, score, score_one
from lab.reporting.tables import Table
from lab.scaling.forecasting.designs import LawKind
from lab.storage import identity, open_storage
from lab.storage.forecasts import forecast_file, read_forecasts, write_forecast
from lab.storage.mirror import Mirror
from lab.storage.trained_trials import find_trained
from lab.tracking.client import default_uri
from lab.tracking.frames import load_frames
from lab.tracking.spent_flops import find_trials

_REMAINING = "no forecast was written or changed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.forecast", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "forecast",
        "Forecast the losses of a sweep's designs at a larger budget, or score earlier forecasts.",
        "python -m lab.forecast scaling --budget 3e13   "
        "# after: python -m lab.sweep search_spaces/scaling.yaml",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="name of a finished sweep over sizes and budgets: its file's name without .yaml",
    )
    parser.add_argument(
        "--budget",
        metavar="FLOPS",
        type=float,
        help="budget of each trial to forecast: larger than the largest budget of the sweep, and "
        "at most 30 times as large (default: list the forecasts of the sweep)",
    )
    parser.add_argument(
        "--law",
        choices=get_args(LawKind),
        help="size_and_data: L(N, D) over all sizes; curves: a curve over budgets for each size "
        "(default: size_and_data if there are three sizes or more)",
    )
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    return parser


def _main(options: argparse.Namespace) -> None:
    root, remote = open_storage.open_mirror(options.storage)
    uri = options.tracking_uri or default_uri(root)
    records, problems = parse_records(read_forecasts(root, remote))
    if problems:
        raise UserError("; ".join(problems.values()))
    if options.budget is not None:
        _write_forecast(options, root, remote, uri)
    elif options.law is not None:
        raise UserError("--law: needs --budget; without it, the forecasts by all laws are listed")
    else:
        _list_forecasts(options.name, score(observe_runs(records, uri)))


def _write_forecast(options: argparse.Namespace, root: File, remote: Mirror, uri: str) -> None:
    """Print the forecast and write it to the storage, unless it is there already."""
    remote.pull(root / identity.NAME)
    frames = load_frames(uri, options.name, storage=identity.read_identity(root))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = make_forecast(frames, options.budget, now, options.law)
    least = record.budget * (1 - TOLERANCE)
    check_untrained(record, find_trials(uri, least), find_trained(root, least))
    is_new = write_forecast(root, record.name, record.model_dump(mode="json"), remote)
    print("\n".join(_format_table(tables.forecast_table(score_one(record, ())))))
    file = forecast_file(root, record.name)
    print(f"\n{file}" if is_new else f"\n{file}: has this forecast already; nothing was written")


def _list_forecasts(name: str, scored: Sequence[ScoredForecast]) -> None:
    """Print the forecasts of a sweep with their scores, and the calibration of the store."""
    own = [each for each in scored if each.record.sweep == name]
    if not own:
        names = sorted({each.record.sweep for each in scored})
        raise UserError(
            f"{name}: the storage has no forecast of this sweep; it has forecasts of: "
            f"{', '.join(names) or 'none yet'}; --budget writes one"
        )
    for each in own:
        print("\n".join(_format_table(tables.forecast_table(each))), end="\n\n")
    print(tables.describe_calibration(calibrate_store(scored)))


def _format_table(table: Table) -> list[str]:
    """Return the lines of a table with aligned columns, its caption first."""
    rows = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        *textwrap.wrap(table.caption, 100),
        *(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ),
    ]


if __name__ == "__main__":
    cli.execute(main)
