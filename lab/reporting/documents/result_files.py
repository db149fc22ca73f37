"""Tables for the CSV files of a report, and a description of each file."""

from collections.abc import Mapping

import pandas as pd

from lab.config.trial import Path
from lab.reporting.stats import Answer

SETTINGS = "settings.csv"
FRONT = "front.csv"
IMPORTANCE = "importance.csv"
CONTENTS = {  # all CSV files that a report can have
    "trials.csv": "one row for each trial: settings, final scores, costs",
    "curves.csv": "one row for each evaluation of a trial: scores, losses, compute",
    SETTINGS: "means of the settings, their intervals, and differences from the best setting",
    FRONT: "the Pareto front of score and cost",
    IMPORTANCE: "share of each tuned parameter in being among the best trials",
    "scores.csv": "all scores of the settings, beside untrained encoders and look-up tables",
    "compute.csv": "mean compute of the settings",
    "end_points.csv": "the runs of scaling laws, with the loss by the law or why they are left out",
    "law.csv": "parameters of scaling laws with intervals",
    "isoflop.csv": "loss over size at each budget, by the law and by a parabola",
    "optima.csv": "the optimal size of each budget with its tokens and loss",
    "held_out.csv": "losses of the largest budget by the law of the others",
    "definitions.csv": "exponents under other definitions of the size",
    "best_rates.csv": "the best learning rate of each size and budget",
    "rate_trend.csv": "exponents of the best learning rate",
    "rate_drift.csv": "the best learning rate of each width",
    "generator_ratio.csv": "the best generator ratio of each budget",
    "trusted_budgets.csv": "how well each budget orders the settings as the largest one does",
    "signal_to_noise.csv": "what training and settings change in each score, by the seed noise",
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


def importance_frame(importance: Mapping[Path, float]) -> pd.DataFrame:
    """Return the importance of tuned parameters. Columns: parameter, importance."""
    return pd.DataFrame({"parameter": importance.keys(), "importance": importance.values()})


def describe_files(names: list[str]) -> list[tuple[str, str]]:
    """Return the names of CSV files with a description of each file, in a fixed order."""
    return [(name, text) for name, text in CONTENTS.items() if name in names]
