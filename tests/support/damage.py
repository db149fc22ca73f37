"""Damage a file in the ways in which disks, copies and edits damage files."""

from collections.abc import Callable
from pathlib import Path


def flip_bit(file: Path, position: float = 0.5) -> None:
    """Flip a bit of the first letter after a share of the file's length, or of the byte there.

    A letter always changes the content, whereas another last digit may be that of an equal number.
    The result may not be UTF-8.
    """
    content = bytearray(file.read_bytes())
    start = min(int(len(content) * position), len(content) - 1)
    letters = (at for at in range(start, len(content)) if bytes([content[at]]).isalpha())
    content[next(letters, start)] ^= 0x01
    file.write_bytes(content)


def change_byte(file: Path) -> None:
    """Replace the byte in the middle by one that is not UTF-8."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] = 0xFF
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Remove the second half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def empty(file: Path) -> None:
    """Remove the content of a file."""
    file.write_bytes(b"")


def remove(file: Path) -> None:
    """Remove a file."""
    file.unlink()


def replace_by_json(file: Path) -> None:
    """Replace the content by other JSON."""
    file.write_text("[5]\n")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip_bit,
    "not-utf-8": change_byte,
    "truncated": truncate,
    "emptied": empty,
    "removed": remove,
    "other-json": replace_by_json,
}
