"""Learning curves of committed reports: python -m benchmarks.learning_curves [REPORT ...].

Prints a Markdown table with one row for each cell of each report: the mean and the standard
deviation, over the cell's repeats, of the AUROC of finding bigram replacements at each quarter of
the budget. docs/sizes.md holds the table that is printed without arguments.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path as File

import pandas as pd

_METRIC = "detect/bigram/auroc"
_QUARTERS = (0.25, 0.5, 0.75, 1.0)
FOLDER = File("reports", "archive")
SIZES = ("nano32", "gen_ratio_nano", "optimizer_tiny")  # reports that docs/sizes.md cites
_HEADING = (
    "| report | cell | budget, FLOPs | 25 % | 50 % | 75 % | 100 % | seeds |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the reports that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning_curves",
        description="Print the learning curves of reports as a Markdown table.",
    )
    parser.add_argument(
        "reports",
        nargs="*",
        type=File,
        default=[FOLDER / name for name in SIZES],
        help="folders of reports (default: those of docs/sizes.md)",
    )
    print(table(parser.parse_args(arguments).reports))
    return 0


def table(reports: Sequence[File]) -> str:
    """Return the learning curves of some reports as a Markdown table."""
    return "\n".join([*_HEADING, *(row for report in reports for row in _rows(report))])


def _rows(report: File) -> Iterator[str]:
    trials = pd.read_csv(report / "trials.csv", keep_default_na=False, na_values=[""])
    curves = pd.read_csv(report / "curves.csv")
    repeats = trials[trials["role"] == "repeat"]
    for cell, members in repeats.groupby("cell", sort=False, dropna=False):
        points = curves[curves["number"].isin(members["number"])].merge(
            members[["number", "budget.amount"]], on="number"
        )
        share = points["spent/flops"] / points["budget.amount"]
        scores = [points[(share - at).abs() < 0.02][_METRIC] for at in _QUARTERS]
        shown = " | ".join(_shown(each) for each in scores)
        amount = f"{members['budget.amount'].iloc[0]:.3g}".replace("e+", "e")
        name = cell if isinstance(cell, str) else ""
        yield f"| {report.name} | {name} | {amount} | {shown} | {len(members)} |"


def _shown(scores: "pd.Series[float]") -> str:
    """Return `mean ± standard deviation`; a dash where no point was scored."""
    if scores.empty:
        return "–"
    return f"{scores.mean():.3f} ± {scores.std():.3f}".replace("0.", ".")


if __name__ == "__main__":
    raise SystemExit(main())
