"""Trials: generator shapes follow the paper, and the fingerprint depends on every setting."""

import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.config import trial as trial_module
from lab.config.architecture import SIZES, EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.trial import Seeds, Trial, content_hash

settings = hypothesis_settings(deadline=None)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
contents = st.dictionaries(st.text(), leaves | st.dictionaries(st.text(), leaves), max_size=6)
ratios = st.floats(0, 1, exclude_min=True)


def trial() -> Trial:
    return Trial(
        encoder=SIZES["tiny"],
        objective=ElectraConfig(kind="electra"),
        budget=Budget(kind="flops", amount=1e12),
    )


def different(value: Any) -> Any:
    """Return a different value of the same type, which need not be a valid setting."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 + 1
        case _:
            return f"{value}-other"


def changes(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield every copy of `config` that differs from it in one leaf, with the leaf's path."""
    for field in fields(config):
        value = getattr(config, field.name)
        inner = changes(value) if is_dataclass(value) else [("", different(value))]
        for path, changed in inner:
            if isinstance(config, EncoderConfig) and field.name in {"hidden", "heads"}:
                changed = {"hidden": 2 * value, "heads": 1}[field.name]
            yield f"{field.name}.{path}".strip("."), replace(config, **{field.name: changed})


CHANGES = dict(changes(trial()))
# Settings that the fingerprint of the prepared text covers (tested in tests/data).
NAMED_BY_TEXT = {path for path in CHANGES if path.startswith(("data.source.", "data.tokenizer."))}
NAMED_BY_TEXT |= {"data.decontaminate"}


def test_equal_trials_have_equal_fingerprints() -> None:
    assert trial().fingerprint("text") == trial().fingerprint("text")


@pytest.mark.parametrize("path", sorted(CHANGES.keys() - NAMED_BY_TEXT))
def test_fingerprint_depends_on_every_setting(path: str) -> None:
    assert CHANGES[path].fingerprint("text") != trial().fingerprint("text")


def test_changes_cover_every_field_of_a_trial() -> None:
    assert {path.partition(".")[0] for path in CHANGES} == {f.name for f in fields(Trial)}
    assert {"objective.generator.width", "seeds.mask", "optim.eps"} <= CHANGES.keys()
    fingerprints = {changed.fingerprint("text") for changed in CHANGES.values()}
    # Changes in NAMED_BY_TEXT all have the fingerprint of the unchanged trial.
    assert len(fingerprints) == len(CHANGES) - len(NAMED_BY_TEXT) + 1


@pytest.mark.parametrize("path", sorted(NAMED_BY_TEXT))
def test_settings_of_the_text_affect_the_fingerprint_through_the_text_only(path: str) -> None:
    assert CHANGES[path].fingerprint("text") == trial().fingerprint("text")


def test_fingerprint_depends_on_the_objective() -> None:
    mlm = replace(trial(), objective=MlmConfig(kind="mlm"))
    assert mlm.fingerprint("text") != trial().fingerprint("text")


def test_fingerprint_depends_on_text_and_code_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial().fingerprint("text")
    assert trial().fingerprint("other text") != before
    monkeypatch.setattr(trial_module, "__version__", "0.0.other")
    assert trial().fingerprint("text") != before


@given(content=contents)
@settings
def test_content_hash_does_not_depend_on_the_order_of_keys(content: dict[str, object]) -> None:
    reordered = dict(reversed(content.items()))
    assert content_hash(reordered) == content_hash(content)
    assert len(content_hash(content)) == 12


@given(number=st.integers(0, 1_000), seed=st.integers(0, 1_000))
@settings
def test_repeat_adds_its_number_to_every_seed(number: int, seed: int) -> None:
    seeds = Seeds(init=seed, order=seed + 1, mask=seed + 2)
    repeated = seeds.repeat(number)
    assert seeds.repeat(0) == seeds
    for name in ("init", "order", "mask"):
        assert getattr(repeated, name) - getattr(seeds, name) == number


@given(a=st.integers(0, 50), b=st.integers(0, 50))
@settings
def test_repeat_numbers_add_up(a: int, b: int) -> None:
    assert Seeds().repeat(a).repeat(b) == Seeds().repeat(a + b)


# Paper, table 6: ratio, and the generator's hidden size, heads, ffn and layers.
@pytest.mark.parametrize(
    ("size", "ratio", "hidden", "heads", "layers"),
    [("small", 1 / 4, 64, 1, 12), ("base", 1 / 3, 256, 4, 12), ("large", 1 / 4, 256, 4, 24)],
)
def test_generators_have_the_shapes_of_the_paper(
    size: str, ratio: float, hidden: int, heads: int, layers: int
) -> None:
    shape = GeneratorConfig(width=ratio).derive_shape(SIZES[size])
    assert (shape.hidden, shape.heads, shape.layers) == (hidden, heads, layers)
    assert shape.ffn == 4 * hidden
    assert shape.embedding == SIZES[size].embedding  # the table is shared


@pytest.mark.parametrize("size", SIZES)
def test_generator_of_ratio_one_has_the_discriminators_shape(size: str) -> None:
    assert GeneratorConfig(width=1.0, depth=1.0).derive_shape(SIZES[size]) == SIZES[size]


@pytest.mark.parametrize(("depth", "layers"), [(0.5, 6), (1 / 3, 4), (0.05, 1)])
def test_depth_changes_the_number_of_layers_only(depth: float, layers: int) -> None:
    shape = GeneratorConfig(width=1.0, depth=depth).derive_shape(SIZES["base"])
    assert shape == replace(SIZES["base"], layers=layers)


def rejection(encoder: EncoderConfig, width: float, depth: float = 1.0) -> str:
    """Return the error message for a generator's size; empty if the size is valid."""
    try:
        GeneratorConfig(width=width, depth=depth).derive_shape(encoder)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("size", SIZES)
@given(width=st.integers(1, 64).map(lambda part: part / 64), depth=ratios)
@settings
def test_generator_is_a_valid_encoder_no_larger_than_its_discriminator(
    size: str, width: float, depth: float
) -> None:
    encoder = SIZES[size]
    assume(not rejection(encoder, width, depth))
    shape = GeneratorConfig(width=width, depth=depth).derive_shape(encoder)
    assert shape.hidden % shape.heads == 0
    assert 2 <= shape.hidden <= encoder.hidden
    assert 1 <= shape.layers <= encoder.layers


def test_error_about_a_width_has_the_number_of_heads() -> None:
    message = rejection(SIZES["base"], 200 / 768)
    assert "hidden size 200, which is not a multiple of its 3 heads" in message


@pytest.mark.parametrize("hidden", [200, 250, 515])
def test_width_that_the_error_suggests_is_valid(hidden: int) -> None:
    hint = re.search(
        r"largest valid width below is ([\d.]+)", rejection(SIZES["base"], hidden / 768)
    )
    assert hint
    assert not rejection(SIZES["base"], float(hint[1]))


@pytest.mark.parametrize("hidden", [100, 101])
def test_hidden_size_must_be_a_multiple_of_the_heads(hidden: int) -> None:
    with pytest.raises(ValueError, match=f"hidden {hidden} is not a multiple of its 3 heads"):
        EncoderConfig(layers=1, hidden=hidden, ffn=8, heads=3, embedding=8)


def test_named_sizes_are_those_of_the_paper() -> None:
    shapes = {
        name: (size.layers, size.hidden, size.ffn, size.heads, size.embedding)
        for name, size in SIZES.items()
    }
    assert shapes["small"] == (12, 256, 1024, 4, 128)
    assert shapes["base"] == (12, 768, 3072, 12, 768)
    assert shapes["large"] == (24, 1024, 4096, 16, 1024)


def test_trial_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        trial().batch = 1  # type: ignore[misc]
