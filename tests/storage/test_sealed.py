"""JSON with a seal: any change of a file or a line is detected."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.storage import sealed

CONTENT = {"b": [1, 2.5, None], "a": {"é": math.pi, "deep": {"x": True}}, "rows": 3}
VALUES = st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text(), min_size=1)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_content_reads_as_it_was_written(tmp_path: Path) -> None:
    sealed.write(tmp_path / "file", CONTENT, indent=2)
    assert sealed.read(tmp_path / "file") == CONTENT


def test_content_without_a_seal_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps(CONTENT))
    assert sealed.read(tmp_path / "file") == CONTENT
    assert sealed.from_line('{"a": 1}') == {"a": 1}


@given(VALUES)
def test_lines_are_read_as_they_were_written(content: dict[str, float | str]) -> None:
    content.pop("seal", None)
    line = sealed.to_line(content or {"a": 1.0})
    assert "\n" not in line
    assert sealed.from_line(line) == (content or {"a": 1.0})
    assert list(json.loads(line))[-1] == "seal"


@pytest.mark.reported
def test_each_changed_bit_of_a_file_is_detected_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    sealed.write(file, CONTENT)
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        file.write_bytes(flip(whole, bit))
        try:
            assert sealed.read(file) == CONTENT
        except sealed.DamagedError:
            continue


@pytest.mark.reported
def test_each_changed_bit_of_a_line_is_detected_or_changes_nothing() -> None:
    row = {"spent/steps": 4.0, "detect/bigram/auroc": 0.5125}
    whole = sealed.to_line(row).encode()
    for bit in range(8 * len(whole)):
        line = flip(whole, bit).decode(errors="replace")
        try:
            assert sealed.from_line(line) == row
        except sealed.DamagedError:
            continue


@pytest.mark.parametrize("text", ["", "{", "5", "[]", "[{}]", "null", '"x"', "{" * 10_000])
def test_other_content_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(sealed.DamagedError):
        sealed.read(tmp_path / "file")
    with pytest.raises(sealed.DamagedError):
        sealed.from_line(text)
