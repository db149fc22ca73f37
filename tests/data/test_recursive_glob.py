"""`**` enters each folder once, and never by a link to a folder above it."""

import glob
from pathlib import Path

import pytest

from lab.config.data import TextFiles
from lab.data.recursive_glob import find_paths
from lab.data.sources import SourceReader, matching_files
from lab.errors import UserError

PATTERNS = ("**/*.txt", "*/**/*.txt", "a/**/c/*", "**/b/**/*.txt", "a/**", "**", "*.txt", "no/**/*")


def write(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path, "1.txt", "a/2.txt", "a/b/3.txt", "a/b/c/4.txt", "d[1]/b/5.txt", "a/6.csv")
    write(tmp_path, ".hidden/7.txt", "a/.hidden/8.txt", "a/.9.txt")
    return tmp_path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_files_without_links_are_those_of_glob(tree: Path, pattern: str) -> None:
    expected = glob.glob(str(tree / pattern), recursive=True)  # noqa: PTH207
    files = [path for path in find_paths(str(tree / pattern)) if Path(path).is_file()]
    assert sorted(set(files)) == sorted({path for path in expected if Path(path).is_file()})


def found(root: Path) -> list[str]:
    source = TextFiles(kind="files", paths=(str(root / "**" / "*.txt"),))
    return [file.relative_to(root).as_posix() for file in matching_files(source)]


@pytest.mark.reported
def test_links_upwards_are_not_followed(tree: Path) -> None:
    before = found(tree)
    (tree / "a" / "up").symlink_to(tree)
    (tree / "a" / "b" / "self").symlink_to(".")
    (tree / "a" / "b" / "c" / "root").symlink_to("/")
    assert found(tree) == before


def test_folders_that_link_to_each_other_are_entered_once(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    write(root, "1.txt", "a/2.txt")
    write(other, "3.txt")
    (root / "a" / "other").symlink_to(other)
    (root / "twice").symlink_to(other)
    (other / "back").symlink_to(root / "a")
    names = found(root)
    assert len(names) == 3
    assert {Path(name).name for name in names} == {"1.txt", "2.txt", "3.txt"}


@pytest.mark.reported
def test_name_with_a_line_feed_is_one_line_of_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "a\nb.txt").write_bytes(b"bad \x00 text\n")
    source = TextFiles(kind="files", paths=(str(tmp_path / "*.txt"),))
    with pytest.raises(UserError, match=r"a\\nb\.txt:1: control character") as caught:
        list(SourceReader(source, "refuse").documents())
    assert "\n" not in str(caught.value)
