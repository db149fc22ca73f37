"""Tables for the CSV files of a report, and a description of each file."""

import pandas as pd

from lab.reporting.stats import Answer

SETTINGS = "settings.csv"
FRONT = "front.csv"
_CONTENTS = {
    "trials.csv": "one row for each trial: settings, final scores, costs",
    "curves.csv": "one row for each evaluation of a trial: scores, losses, compute",
    SETTINGS: "means of the settings, their intervals, and differences from the best setting",
    FRONT: "the Pareto front of score and cost",
    "end_points.csv": "the runs of scaling laws, with the loss by the law or why they are left out",
    "best_rates.csv": "the best learning rate of each size and budget",
    "forecasts.csv": "forecasts of the storage and the observed losses",
    "back_tests.csv": "forecasts of each budget from the others",
}


def settings_frame(result: Answer) -> pd.DataFrame:
    """Return the compared settings as numbers, best first.

    Columns: setting, mean, low and high (95 % interval), sd, seeds, diverged, difference,
    difference_low and difference_high (from the best setting, with the simultaneous 95 % interval;
    empty for the best one), separable (whether it is significantly worse than the best one).
    """
    rows = []
    for cell in result.cells:
        gap = cell.difference
        rows.append(
            {
                "setting": cell.label,
                "mean": cell.score.mean,
                "low": cell.score.low,
                "high": cell.score.high,
                "sd": cell.sd,
                "seeds": cell.score.n,
                "diverged": cell.diverged,
                "difference": None if gap is None else gap.mean,
                "difference_low": None if gap is None else gap.low,
                "difference_high": None if gap is None else gap.high,
                "separable": not cell.tied,
            }
        )
    return pd.DataFrame(rows)


def describe_files(names: list[str]) -> list[tuple[str, str]]:
    """Return the names of CSV files with a description of each file, in a fixed order."""
    return [(name, text) for name, text in _CONTENTS.items() if name in names]
