"""Labels of cells: short, and different for cells that differ."""

from itertools import product
from pathlib import Path

import pytest
from project import ROOT

from lab.config.labels import label
from lab.loading import search_space

SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))


def labels(name: str) -> list[str]:
    (file,) = (file for file in SPACES if file.stem == name)
    experiment = search_space.load_experiment(file)
    return [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]


def test_a_frozen_generator_is_told_from_one_that_learns_in_two_words() -> None:
    generators, starts = ("electra", "generator frozen"), ("scratch", "mlm")
    assert labels("frozen") == [", ".join(each) for each in product(generators, starts)]


def test_windows_that_grow_at_different_times_say_when() -> None:
    assert labels("windows") == ["full", "growing, until 0.6", "growing, until 0.85"]


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_labels_of_shipped_search_spaces_fit_into_a_table(file: Path) -> None:
    experiment = search_space.load_experiment(file)
    found = [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]
    assert len(set(found)) == len(found)
    assert max(map(len, found)) <= 60, found


def test_a_kind_is_named_by_what_it_is_a_kind_of() -> None:
    assert labels("optimizer") == ["optim adam", "optim muon"]


def test_a_value_alone_is_named_by_its_kind() -> None:
    assert label({"objective": {"kind": "electra", "mask_prob": 0.3}}, {}) == "electra"


def test_values_that_differ_inside_a_list_or_a_mapping_without_kind_are_told_apart() -> None:
    compared = {"objective": [{"kind": "a", "x": {"y": [1]}}, {"kind": "a", "x": {"y": [2]}}]}
    found = [label({"objective": value}, compared) for value in compared["objective"]]
    assert found == ["a, y [1]", "a, y [2]"]
