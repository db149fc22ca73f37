"""A pickle in place of a file that the lab reads is refused, and its code never runs."""

import hashlib
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.config.tasks import FileRows, SavedRows
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.evaluation.corruption import open_held_out
from lab.evaluation.prepared_pairs import open_pairs
from lab.loading import yaml_text
from lab.reporting.verification.report_file import read_report_file
from lab.search import point_notes
from lab.storage import databases, record, record_damage
from lab.tasks import hf_datasets
from lab.tasks.examples import open_examples
from lab.tasks.rows import read_rows
from lab.training import checkpoint

pytestmark = pytest.mark.reported


class Payload:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._marker), "w")


def read_checkpoint(folder: Path, payload: bytes) -> None:
    """The digests of the checkpoint are those of the planted file."""
    (folder / "state.safetensors").write_bytes(payload)
    spent = {"steps": 1, "tokens": 1, "flops": 1, "paper_flops": 1, "six_n": 1, "seconds": 1.0}
    place = {"evaluations": 1, "score": None, "counts": {}, "micro_batch_limit": None}
    body = {"place": place | {"spent": spent}, "sha256": hashlib.sha256(payload).hexdigest()}
    (folder / "state.json").write_text(json.dumps(body | {"seal": checkpoint._seal(body)}))
    checkpoint._read(folder)


def read_position(folder: Path, payload: bytes) -> None:
    (folder / "state.json").write_bytes(payload)
    checkpoint._read(folder)


def read_held_out(folder: Path, payload: bytes) -> None:
    array = np.array([Payload(folder.parent / "loaded")], dtype=object)
    np.savez(folder / "held-out.npz", original=array)
    open_held_out(folder / "held-out.npz")


def read_held_out_file(folder: Path, payload: bytes) -> None:
    (folder / "held-out.npz").write_bytes(payload)
    open_held_out(folder / "held-out.npz")


def read_task(folder: Path, payload: bytes) -> None:
    (folder / "task.json").write_bytes(payload)
    open_examples(folder / "task.json")


def read_pairs(folder: Path, payload: bytes) -> None:
    (folder / "pairs.json").write_bytes(payload)
    open_pairs(folder / "pairs.json")


def read_vocabulary(folder: Path, payload: bytes) -> None:
    (folder / "special.json").write_text("{}")
    (folder / "tokenizer.json").write_bytes(payload)
    open_vocabulary(folder)


def read_table(folder: Path, payload: bytes) -> None:
    (folder / "rows.parquet").write_bytes(payload)
    read_rows(FileRows(kind="file", path=str(folder / "rows.parquet")), "task")


def read_saved(folder: Path, payload: bytes) -> None:
    for name in ("dataset_info.json", "state.json", "data-00000-of-00001.arrow"):
        (folder / name).write_bytes(payload)
    hf_datasets.open_saved(SavedRows(kind="saved", path=str(folder), split="train"), "task")


def read_report(folder: Path, payload: bytes) -> None:
    (folder / "report.json").write_bytes(payload)
    read_report_file(folder / "report.json")


def read_yaml(folder: Path, payload: bytes) -> None:
    (folder / "space.yaml").write_bytes(payload)
    yaml_text.read(folder / "space.yaml")


def call_from_yaml(folder: Path, payload: bytes) -> None:
    marker = folder.parent / "loaded"
    (folder / "space.yaml").write_text(f"a: !!python/object/apply:open ['{marker}', w]")
    yaml_text.read(folder / "space.yaml")


REFUSING = (
    read_checkpoint, read_position, read_held_out, read_held_out_file, read_task, read_pairs,
    read_vocabulary, read_table, read_saved, read_report, read_yaml, call_from_yaml,
)  # fmt: skip


@pytest.mark.parametrize("read", REFUSING)
def test_pickle_is_refused_and_not_loaded(
    tmp_path: Path, read: Callable[[Path, bytes], None]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"\S") as error:  # `UserError` and `DamagedError` are some
        read(tmp_path / "folder", pickle.dumps(Payload(tmp_path / "loaded")))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "loaded").exists()


def test_pickles_in_place_of_a_record_and_of_databases_count_as_damaged(tmp_path: Path) -> None:
    payload = pickle.dumps(Payload(tmp_path / "loaded"))
    for name in (*record.CORE_FILES, "notes.jsonl", "optuna.db"):
        (tmp_path / name).write_bytes(payload)
    assert record.read_outcome(tmp_path) is None
    assert record.read_curve(tmp_path) == ()
    assert record.read_blocks(tmp_path) == {}
    assert len(record_damage.find_damage(tmp_path)) >= 2
    assert point_notes.read_notes(tmp_path / "notes.jsonl") == {}
    assert databases.is_damaged(tmp_path / "optuna.db")
    assert not (tmp_path / "loaded").exists()


def test_type_of_an_arrow_column_that_is_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    """Arrow loaded such types before version 14 (CVE-2023-47248)."""
    payload = pickle.dumps(Payload(tmp_path / "loaded"))
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": payload,
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=metadata)])
    parquet.write_table(pa.table({"text": ["a"]}, schema=schema), tmp_path / "rows.parquet")
    with suppress(UserError):
        read_rows(FileRows(kind="file", path=str(tmp_path / "rows.parquet")), "task")
    assert not (tmp_path / "loaded").exists()
