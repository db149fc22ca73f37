"""The paths of a new search space are those of the files that a user names."""

import os
from pathlib import Path

import pytest

from lab.config.data import TextFiles
from lab.data.sources import matching_files
from lab.errors import UserError
from lab.suggestion import source_guess

pytestmark = pytest.mark.reported


def found(folder: Path) -> list[str]:
    paths = source_guess.expand_paths([str(folder)])
    files = matching_files(TextFiles(kind="files", paths=paths))
    return sorted(str(file.relative_to(folder.parent)) for file in files)


@pytest.mark.parametrize("name", ["texts[1]", "te?ts", "te*ts", "texts"])
def test_the_name_of_a_folder_is_no_pattern(tmp_path: Path, name: str) -> None:
    """`texts[1]` is also a pattern that `texts1` fits."""
    for folder in (name, "texts1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("text")
    assert found(tmp_path / name) == [f"{name}/a.txt"]


def test_files_of_a_folder_are_found_in_any_case_of_their_endings(tmp_path: Path) -> None:
    (tmp_path / "texts" / "below").mkdir(parents=True)
    names = ["a.txt", "B.TXT", "below/c.Txt.GZ", "d.pdf"]
    for name in names:
        (tmp_path / "texts" / name).write_text("text")
    assert found(tmp_path / "texts") == sorted(f"texts/{name}" for name in names[:3])


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_path_is_not_the_working_folder(text: str) -> None:
    with pytest.raises(UserError, match="an empty path; must be a file, a folder or a pattern"):
        source_guess.expand_paths([text])


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_regular_file_in_a_folder_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    if kind == "pipe":
        os.mkfifo(tmp_path / "z.txt")
    else:
        (tmp_path / "z.txt").symlink_to(tmp_path / "missing")
    with pytest.raises(UserError, match=r"/z\.txt: no regular file; remove it"):
        source_guess.expand_paths([str(tmp_path)])
