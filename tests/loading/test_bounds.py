"""Every number and text of a search space has bounds, and the bounds that surprise a reason."""

from collections.abc import Iterator
from typing import Any

import pytest
from experiments import BASE, METRIC

from lab.loading import schema
from lab.loading.error_messages import SpaceError
from lab.loading.search_space import check_experiment

# Ends and steps of ranges: each end is checked as a value of its setting.
_CHECKED_AS_SETTINGS = ("Range.low", "Range.high", "Range.step")
_CHECKED_AGAINST_A_LIST = ("metric",)


def leaves(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes of numbers and texts below a node of a JSON Schema, with their paths."""
    if isinstance(node, list):
        for each in node:
            yield from leaves(each, path)
    elif isinstance(node, dict):
        if node.get("type") in ("number", "integer", "string") and not {"enum", "const"} & {*node}:
            yield path, node
        for key, inner in node.items():
            named = key not in ("properties", "$defs", "anyOf", "oneOf", "items")
            yield from leaves(inner, f"{path}.{key}".removeprefix(".") if named else path)


@pytest.mark.reported
def test_every_number_has_two_bounds_and_every_text_a_length() -> None:
    unbounded = []
    for path, node in leaves(schema.json_schema(), ""):
        if path in (*_CHECKED_AS_SETTINGS, *_CHECKED_AGAINST_A_LIST):
            continue
        needed = (
            [{"maxLength"}]
            if node["type"] == "string"
            else [{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}]
        )
        if any(not keys & node.keys() for keys in needed):
            unbounded.append(path)
    assert unbounded == []


@pytest.mark.reported
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("question", "x" * 10**6, "question: must have at most 500 characters: it is the title"),
        ("base.objective.generator.width", 1e-9, "LayerNorm over fewer than 2 units is constant"),
        ("base.objective.generator.depth", 1e-9, "the generator has at least one layer"),
        ("base.objective.mask_prob", 1e-320, "at least 0.0001, not 1e-320: of the at most 4,096"),
        ("base.objective.disc_weight", 1e308, "at most 1e+06, not 1e+308: float32 has 7 digits"),
        ("base.objective.disc_weight", {"start": 1, "end": 1e-9}, "not 1e-09: float32 has 7"),
        ("base.objective.gen_weight", 1e-300, "not 1e-300: float32 has 7 digits"),
        ("base.objective.sampling.temperature", 1e-320, "not 1e-320: float32 has 7 digits"),
        ("base.optim.lr", 1e-300, "not 1e-300: below, no weight changes in float32"),
        ("base.optim.clip", 1e-300, "not 1e-300: below, no weight changes"),
        ("base.optim.weight_decay", 1e300, "not 1e+300: above, the first steps remove all"),
        ("base.optim.eps", 1e-300, "not 1e-300: below, it vanishes in float32"),
        ("base.encoder.init_std", 1e300, "not 1e+300: beyond, the first step"),
        ("base.budget.amount", 1e-320, "must be at least 0.001"),
        ("resources.gpus_per_worker", 1e-320, "must be 0 or at least 0.01"),
        ("finetune.tasks", ["x" * 10**6], "finetune.tasks.0: must have at most 4096 characters"),
        ("metric", "x" * 10**6, "metric: must be one of"),
    ],
)
def test_values_that_no_computation_can_use_are_refused_with_the_reason(
    path: str, value: Any, message: str
) -> None:
    raw: dict[str, Any] = {"question": "Does it?", "metric": METRIC}
    raw["base"] = {key: dict(inner) for key, inner in BASE.items()}  # type: ignore[call-overload]
    *parents, last = path.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {"kind": "adam"} if parent == "optim" else {})
    section[last] = value
    with pytest.raises(SpaceError) as error:
        check_experiment("sizes", raw)
    assert message in str(error.value)
    assert len(str(error.value)) <= 2_001
