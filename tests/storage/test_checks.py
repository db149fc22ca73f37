"""Folders that a sweep cannot write to are refused before it trains anything."""

from pathlib import Path

import pytest

from lab.storage import checks

pytestmark = pytest.mark.reported


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Return a link to nothing."""
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    return tmp_path / "link"


@pytest.mark.parametrize("below", [".", "a/b"])
def test_a_link_to_nothing_is_no_folder_to_write_to(link: Path, below: str) -> None:
    with pytest.raises(checks.StorageError, match=r"--storage .*: cannot be written: no such file"):
        checks.check_storage(link / below)
    with pytest.raises(checks.StorageError, match=r"--reports .*: cannot be written: no such file"):
        checks.check_reports(link / below, "name")
    assert not (link.parent / "missing").exists()


def test_a_link_to_nothing_is_no_folder_of_a_report(link: Path) -> None:
    with pytest.raises(checks.StorageError, match="is a link to nothing; the report needs"):
        checks.check_reports(link.parent, link.name)
    (link.parent / "file").write_text("mine")
    with pytest.raises(checks.StorageError, match="is a file; the report needs"):
        checks.check_reports(link.parent, "file")


def test_a_link_to_a_folder_is_a_folder(link: Path) -> None:
    (link.parent / "missing").mkdir()
    checks.check_storage(link)
    checks.check_storage(link / "a" / "b")
    checks.check_reports(link, "name")
