"""The end points of a report as a table: one row per run, with the law's loss or the exclusion."""

import pandas as pd

from lab.reporting.scaling.analysis import FittedGroup
from lab.reporting.scaling.parameter_counts import NETWORKS, TABLES
from lab.reporting.scaling.section import LawPart, ScalingSection

END_POINTS = "end_points.csv"


def end_point_table(section: ScalingSection) -> pd.DataFrame:
    """Return the runs that the laws are fitted to, and those that are excluded with a reason.

    Columns: group, number, shape, parameters, the other numbers of parameters, tokens, flops,
    budget, rate, repeat, epochs, loss, law (loss by the law; empty for excluded runs) and excluded.
    """
    rows = [row for law in section.laws for row in _rows(law)]
    return pd.DataFrame(rows)


def _rows(law: LawPart) -> list[dict[str, object]]:
    result = law.result
    excluded = {each.run.name: each.reason for each in result.selection.excluded}
    predicted: dict[int, float] = {}
    if isinstance(result, FittedGroup):
        points = result.fit.points
        losses = result.fit.law.loss(points.parameters_n, points.tokens_n)
        predicted = {end.number: float(v) for end, v in zip(result.ends, losses, strict=True)}
    return [
        {
            "group": law.title, "number": end.number, "shape": end.shape,
            "parameters": end.run.parameters, "parameters_with_embeddings": end.sizes[TABLES],
            "parameters_of_all_networks": end.sizes.get(NETWORKS, end.sizes[TABLES]),
            "tokens": end.run.tokens, "flops": end.flops, "budget": end.run.budget,
            "rate": end.rate, "repeat": end.repeat, "epochs": end.run.epochs,
            "loss": end.run.loss, "law": predicted.get(end.number),
            "excluded": excluded.get(end.run.name, ""),
        }
        for end in result.group.ends
    ]  # fmt: skip
