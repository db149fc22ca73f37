"""Write reports again from their own tables: python -m benchmarks.rewrite_reports REPORT [...].

For use after a change of the text or the figures of reports, when the storages of the committed
reports are gone. A report whose tables are not those that it was written with is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path as File

from lab.reporting.page import write_report
from lab.reporting.verification.recomputation import read_own_tables
from lab.reporting.verification.report_file import NAME, read_report_file, restore_forecasts


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the reports in the named folders again; return 1 if one could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rewrite_reports",
        description="Write reports again from their own tables.",
    )
    parser.add_argument("reports", nargs="+", type=File, help="folders of reports")
    status = 0
    for folder in parser.parse_args(arguments).reports:
        if not (folder / NAME).is_file():
            status = 1
            print(f"{folder}: has no {NAME}", file=sys.stderr)
            continue
        content = read_report_file(folder / NAME)
        found, frames = read_own_tables(folder, content)
        if frames is None:
            status = 1
            print(f"{folder}: {found[0].file} {found[0].text}", file=sys.stderr)
            continue
        print(write_report(frames, folder.parent, restore_forecasts(content)), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
