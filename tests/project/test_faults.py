"""docs/faults.md names tests and drills that exist, and the tests have the mark `reported`."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from project import ROOT

from tests.drills.__main__ import _DRILLS

TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))
MARK = "pytest.mark.reported"


def is_marked(decorated: list[ast.expr]) -> bool:
    return any(ast.unparse(each) == MARK for each in decorated)


@cache
def marked_tests(file: Path) -> dict[str, bool]:
    """Return whether each test of a file has the mark itself, or from its class or module."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: dict[str, bool] = {}

    def visit(body: list[ast.stmt], marked: bool) -> None:
        for node in body:
            match node:
                case ast.FunctionDef(name=name) if name.startswith("test_"):
                    found[name] = marked or is_marked(node.decorator_list)
                case ast.ClassDef():
                    visit(node.body, marked or is_marked(node.decorator_list))

    assigned = [node.value for node in tree.body if isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "pytestmark"]  # fmt: skip
    visit(tree.body, any(MARK in ast.unparse(value) for value in assigned))
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_named_test_exists_and_has_the_mark(file: str, name: str) -> None:
    assert (TESTS / file).is_file()
    assert marked_tests(TESTS / file).get(name) is True


def test_every_drill_is_named_and_every_named_drill_exists() -> None:
    assert set(re.findall(r"`drill ([\w-]+)`", PAGE)) == set(_DRILLS)


def test_every_fault_is_held_by_a_test_or_a_drill() -> None:
    assert len(ROWS) > 70
    assert [row for row in ROWS if not re.search(r"`([\w/]+\.py::|drill )", row)] == []


def test_every_marked_test_is_in_a_file_that_the_page_names() -> None:
    """Some rows name only one of several marked tests of a file."""
    files = {TESTS / file for file, _ in NAMED}
    marked = {file for file in TESTS.rglob("test_*.py") if any(marked_tests(file).values())}
    assert marked == files
