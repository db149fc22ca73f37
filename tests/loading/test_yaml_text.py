"""YAML is read with the scalars of YAML 1.2, and without characters that no reader should see."""

from pathlib import Path
from typing import Any

import pytest

from lab.loading import yaml_text
from lab.loading.error_messages import SpaceError


@pytest.mark.reported
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),  # 90 in YAML 1.1, as are the next ones a number, a truth value or a date
        ("1:30:00.5", "1:30:00.5"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("0b11", "0b11"),
        ("on", "on"),
        ("No", "No"),
        ("y", "y"),
        ("2026-01-02", "2026-01-02"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("1e-3", 0.001),
        ("1_000", 1_000),
        ("1_", "1_"),
        ("1__0", "1__0"),
        ("1\u0662", "1\u0662"),  # an Arabic digit, which Python takes for a 2
        ("-.5", -0.5),
        ("0", 0),
        ("0.50", 0.5),
        ("1.0", 1.0),
        ("1.5e3", 1_500),
        ("1e11", 10**11),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
    ],
)
def test_only_plain_numbers_and_truth_values_are_no_texts(text: str, value: Any) -> None:
    read = yaml_text.parse(text)
    assert (read, type(read)) == (value, type(value))


def test_merge_keys_still_work() -> None:
    assert yaml_text.parse("a: &x {b: 1}\nc: {<<: *x, d: 2}")["c"] == {"b": 1, "d": 2}


def test_a_text_like_a_number_is_written_so_that_it_is_read_back(tmp_path: Path) -> None:
    content = {"a": "1:30", "b": "010", "c": "on", "d": 1e-07, "e": 1e16, "f": "1e-3", "g": None}
    file = tmp_path / "a.yaml"
    file.write_text(yaml_text.write(content))
    assert yaml_text.read(file) == content


@pytest.mark.reported
@pytest.mark.parametrize("escape", [r"\0", r"\e", r"\r", r"\x7f", r"\u009b", r"\u202e", r"\u2066"])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('question: "a{}b"', "question"),
        ('base: {{tasks: [x, "a{}b"]}}', "base.tasks.1"),
        ('compare: {{"a{}b": 1}}', "compare"),
    ],
)
def test_control_characters_are_refused_with_their_path(
    tmp_path: Path, text: str, path: str, escape: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text.format(escape))
    with pytest.raises(SpaceError) as error:
        yaml_text.read(file)
    assert str(error.value).startswith(f"{file}: {path}: control character U+")
    assert str(error.value).isprintable()


def test_an_override_with_a_control_character_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"control character U\+001B in"):
        yaml_text.override({}, r'question="a\eb"')


def test_lines_and_joiners_of_scripts_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text('question: "one\\n\\ttwo می\\u200cخواهم"')
    assert yaml_text.read(file)["question"] == "one\n\ttwo می\u200cخواهم"
