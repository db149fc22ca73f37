"""Statements of a report on the settings of the search: constraints, and proposals."""

from collections.abc import Iterator

import pandas as pd

from lab.tracking import tags
from lab.tracking.frames import SweepFrames


def list_search_facts(frames: SweepFrames) -> Iterator[tuple[str, str]]:
    """Yield the lines of the summary on constraints and on settings of earlier sweeps."""
    if frames.constraints:
        limits = [f"{name} at most {limit:,.7g}" for name, limit in frames.constraints.items()]
        yield "constraints", "; ".join(limits)
    settings = _searched_settings(frames)
    by_sweep = settings[tags.PROPOSED_BY] if tags.PROPOSED_BY in settings else pd.Series()
    for sweep in frames.prior:
        count = int((by_sweep == sweep).sum())
        yield (
            "prior",
            f"{count} of {len(settings)} settings of the search were proposed by sweep {sweep}; "
            f"its scores were not used",
        )


def flag_constraints(frames: SweepFrames) -> Iterator[str]:
    """Yield warnings on infeasible settings and on repeats that exceed a limit."""
    settings = _searched_settings(frames)
    infeasible = int((settings["state"] == "infeasible").sum())
    if infeasible:
        yield (
            f"{infeasible} of {len(settings)} settings of the search "
            f"({infeasible / len(settings):.0%}) violate a constraint; the table of all trials "
            f"gives the reasons."
        )
    limit, trials = frames.constraints.get("seconds"), frames.trials
    if limit is not None and "spent/seconds" in trials:
        repeats = trials[(trials["role"] == "repeat") & trials["score"].notna()]
        slow = int((repeats["spent/seconds"] > limit).sum())
        if slow:
            yield f"{slow} of {len(repeats)} repeats trained for more than {limit:,.7g} seconds."


def _searched_settings(frames: SweepFrames) -> pd.DataFrame:
    """Return the first search trial of each setting; of a cell with infeasible ones, those first.

    With `search.repeated: every_setting` a setting has a trial for each seed.
    """
    trials = frames.trials[frames.trials["role"] == "search"]
    feasible = trials["state"] != "infeasible"
    ordered = trials.assign(feasible=feasible).sort_values("feasible", kind="stable")
    return ordered.drop_duplicates(["cell", "tuned"])
