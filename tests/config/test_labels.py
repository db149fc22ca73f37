"""Labels of cells: short, and different for cells that differ."""

from itertools import product
from pathlib import Path

import pytest
from project import ROOT

from lab.config.labels import label
from lab.config.trial import Value
from lab.loading import search_space

SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))


def labels(name: str) -> list[str]:
    (file,) = (file for file in SPACES if file.stem == name)
    experiment = search_space.load_experiment(file)
    return [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]


def test_label_of_a_frozen_generator_has_two_words() -> None:
    generators, starts = ("electra", "generator frozen"), ("scratch", "mlm")
    assert labels("frozen") == [", ".join(each) for each in product(generators, starts)]


def test_labels_of_growing_windows_show_when_they_grow() -> None:
    assert labels("windows") == ["full", "growing, until 0.6", "growing, until 0.85"]


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_labels_of_shipped_search_spaces_fit_into_a_table(file: Path) -> None:
    experiment = search_space.load_experiment(file)
    names = [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 64, names


def test_compared_kinds_are_labeled_with_their_section() -> None:
    assert labels("optimizer") == ["optim adam", "optim adamw", "optim muon"]


def test_single_value_is_labeled_by_its_kind() -> None:
    assert label({"objective": {"kind": "electra", "mask_prob": 0.3}}, {}) == "electra"


def test_values_that_differ_inside_a_list_or_a_nested_mapping_have_different_labels() -> None:
    compared = {"objective": [{"kind": "a", "x": {"y": [1]}}, {"kind": "a", "x": {"y": [2]}}]}
    names = [label({"objective": value}, compared) for value in compared["objective"]]
    assert names == ["a, y [1]", "a, y [2]"]


def test_long_values_have_short_labels_that_differ_where_the_values_do() -> None:
    files = [f"/corpora/{number:04}.txt" for number in range(300)]
    values: list[Value] = [
        files,
        files[:-1],
        [*files[:150], "x", *files[151:]],
        "a" * 500,
        "a" * 501,
    ]
    labels = [label({"data.paths": value}, {"data.paths": values}) for value in values]
    assert len(set(labels)) == len(values)
    assert max(map(len, labels)) <= 90
    assert labels[0].startswith("paths 300 values, /corpora/0000.txt … /corpora/0299.txt (")


def test_values_of_up_to_80_characters_are_not_abbreviated() -> None:
    assert label({"a.path": "x" * 80}, {}) == f"path {'x' * 80}"


def test_mappings_without_a_kind_are_labeled_by_the_entries_in_which_they_differ() -> None:
    shapes: list[Value] = [
        {
            "layers": 1,
            "heads": 2,
            "embedding": 32,
            "init_std": 0.1,
            "dropout": 0,
            "hidden": hidden,
            "ffn": 4 * hidden,
            **extra,
        }
        for hidden in (32, 64)
        for extra in ({}, {"parametrization": {"kind": "mup"}})
    ]
    labels = [label({"encoder": shape}, {"encoder": shapes}) for shape in shapes]
    assert labels[:2] == ["hidden 32, ffn 128", "hidden 32, ffn 128, parametrization mup"]
    assert len(set(labels)) == 4
