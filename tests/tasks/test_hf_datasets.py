"""Folders saved by `datasets` and data sets of the hub: texts and tasks read them alike."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from hub_server import COMMIT, served

from lab.config.data import HubDataset, SavedDataset
from lab.config.tasks import HubRows, SavedRows
from lab.data.sources import SourceReader
from lab.errors import UserError
from lab.tasks.rows import read_rows

ROWS = [{"text": "one", "label": 1}, {"text": "two", "label": 0}]


def save(folder: Path, *splits: str) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    whole = datasets.DatasetDict(dict.fromkeys(splits, rows)) if splits else rows
    whole.save_to_disk(folder)


def read_text(path: str, split: str) -> list[str]:
    source = SavedDataset(kind="saved", path=path, split=split)
    return list(SourceReader(source, "refuse").documents())


def read_task(path: str, split: str) -> list[str]:
    rows = read_rows(SavedRows(kind="saved", path=path, split=split), "mine: train")
    return [row["text"] for _, row in rows]


readers = pytest.mark.parametrize(
    ("read", "where"), [(read_text, "base.data.source"), (read_task, "mine: train")]
)


@readers
@pytest.mark.parametrize("splits", [(), ("train",), ("train", "test")])
def test_rows_of_a_saved_folder_are_read(
    read: Any, where: str, splits: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "saved", *splits)
    assert read(str(tmp_path / "saved"), "train") == ["one", "two"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/saved", "train") == ["one", "two"]


@readers
def test_missing_split_is_named_with_those_that_exist(
    read: Any, where: str, tmp_path: Path
) -> None:
    save(tmp_path, "train", "test")
    with pytest.raises(UserError) as refused:
        read(str(tmp_path), "rest")
    expected = f"{where}.split: {str(tmp_path)!r} has no split 'rest'; splits: 'train', 'test'"
    assert str(refused.value) == expected


@readers
def test_folder_that_was_not_saved_is_refused(read: Any, where: str, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError) as refused:
            read(str(path), "train")
        start = f"{where}.path: {str(path)!r}: not a folder saved by `datasets`: "
        assert str(refused.value).startswith(start)
        assert "\n" not in str(refused.value)


def test_local_folder_is_not_read_in_place_of_a_data_set_of_the_hub(tmp_path: Path) -> None:
    text = SourceReader(HubDataset(kind="hub", name=str(tmp_path)), "refuse")
    rows = HubRows(kind="hub", name=str(tmp_path), split="train")
    with pytest.raises(UserError, match=r"^base\.data\.source\.name: .* is a local folder; use"):
        list(text.documents())
    with pytest.raises(UserError, match=r"^mine: train\.name: .* is a local folder; use"):
        read_rows(rows, "mine: train")


READ_TASKS = """
import json, sys
from lab.config.tasks import HubRows
from lab.errors import UserError
from lab.tasks.rows import read_rows

for fields in json.loads(sys.argv[1]):
    try:
        result = read_rows(HubRows(kind="hub", **fields), "mine: train")
    except UserError as error:
        result = str(error)
    print(json.dumps(result))
"""


def test_rows_of_a_task_are_read_from_the_hub(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    sources: list[dict[str, str]] = [
        {"name": "owner/lines", "split": "train"},
        {"name": "owner/lines", "split": "train", "revision": COMMIT},
        {"name": "owner/lines", "split": "test"},
        {"name": "owner/none", "split": "train"},
    ]
    with served({"owner/lines": {"train.jsonl": lines}}) as hub:
        online = {
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "home"),
        }
        done = subprocess.run(
            [sys.executable, "-c", READ_TASKS, json.dumps(sources)],
            check=True, capture_output=True, text=True, env=os.environ | online,
        )  # fmt: skip
    first, second, *refused = map(json.loads, done.stdout.splitlines())
    assert [row for _, row in first] == [row for _, row in second] == ROWS
    for line, place in zip(refused, ["lines test", "none train"], strict=True):
        assert line.startswith(f"mine: train: owner/{place} at main on the hub: ")
        assert line.endswith("can be used instead, with --folder or in a YAML file")
    assert all("/datasets/owner/" in path for path in hub.requested_paths)  # no other requests
