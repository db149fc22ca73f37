"""The paths of a new search space are those of the files that a user names."""

from pathlib import Path

import pytest

from lab.config.data import TextFiles
from lab.data.sources import matching_files
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
