"""Files named by their content: each storage has one file for some settings."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from prepared_text import PreparedText

from lab.evaluation import corruption
from lab.evaluation.content_index import find_file, find_or_make, hash_arrays
from lab.execution.prerequisites import TrialInputs
from lab.storage.mirror import LocalOnly, Mirror
from lab.storage.remote import Remote

LOCAL = LocalOnly()


def write(folder: Path, content: str) -> Callable[[], Path]:
    """Return a function that makes a file named by its content."""

    def make() -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"made-{content}"
        file.write_text(content)
        return file

    return make


def never() -> Path:
    pytest.fail("made again")


def machine(name: str, tmp_path: Path) -> tuple[Path, Mirror]:
    """Return the cache and the mirror of a machine that uses a remote storage."""
    root = tmp_path / name
    (root / "cache").mkdir(parents=True)
    return root / "cache", Remote(root, f"file://{tmp_path}/far")


def test_file_is_made_once(tmp_path: Path) -> None:
    index = tmp_path / "index.txt"
    assert find_file(index) is None
    made = find_or_make(index, write(tmp_path, "a"), LOCAL)
    assert made == find_file(index) == find_or_make(index, never, LOCAL) == tmp_path / "made-a"


def test_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    index = tmp_path / "index.txt"
    find_or_make(index, write(tmp_path, "a"), LOCAL).unlink()
    assert find_file(index) is None
    assert find_or_make(index, write(tmp_path, "b"), LOCAL).name == "made-b"
    assert find_or_make(index, never, LOCAL).name == "made-b"


def test_file_that_another_process_has_made_meanwhile_is_used(tmp_path: Path) -> None:
    index = tmp_path / "index.txt"

    def make_after_another() -> Path:
        find_or_make(index, write(tmp_path, "other"), LOCAL)
        return write(tmp_path, "own")()

    assert find_or_make(index, make_after_another, LOCAL).name == "made-other"
    assert find_or_make(index, never, LOCAL).name == "made-other"


def test_sweeps_that_make_a_file_at_once_use_the_same(tmp_path: Path) -> None:
    index, start = tmp_path / "index.txt", threading.Barrier(4)

    def make_at_once(number: int) -> str:
        def make() -> Path:
            start.wait()
            return write(tmp_path, str(number))()

        return find_or_make(index, make, LOCAL).name

    with ThreadPoolExecutor(4) as pool:
        used = set(pool.map(make_at_once, range(4)))
    assert len(used) == 1
    assert find_or_make(index, never, LOCAL).name == used.pop()


def test_second_machine_uses_the_file_of_the_remote_storage(tmp_path: Path) -> None:
    first, first_mirror = machine("first", tmp_path)
    second, second_mirror = machine("second", tmp_path)
    find_or_make(first / "index.txt", write(first, "a"), first_mirror)
    used = find_or_make(second / "index.txt", never, second_mirror)
    assert used == second / "made-a"
    assert used.read_text() == "a"


def test_machine_that_ends_second_uses_the_file_of_the_first(tmp_path: Path) -> None:
    first, first_mirror = machine("first", tmp_path)
    second, second_mirror = machine("second", tmp_path)

    def make_while_the_first_ends() -> Path:
        find_or_make(first / "index.txt", write(first, "a"), first_mirror)
        return write(second, "b")()

    used = find_or_make(second / "index.txt", make_while_the_first_ends, second_mirror)
    assert used == second / "made-a"


def test_process_killed_before_the_upload_uploads_next_time(tmp_path: Path) -> None:
    first, first_mirror = machine("first", tmp_path)
    find_or_make(first / "index.txt", write(first, "a"), LOCAL)  # nothing is uploaded
    find_or_make(first / "index.txt", never, first_mirror)
    second, second_mirror = machine("second", tmp_path)
    assert find_or_make(second / "index.txt", never, second_mirror).read_text() == "a"


def test_hash_depends_on_names_types_shapes_and_values() -> None:
    zeros = np.zeros((2, 3), np.uint16)
    others = [
        {"b": zeros},
        {"a": zeros.astype(np.uint32)},
        {"a": zeros.reshape(3, 2)},
        {"a": zeros + 1},
        {"a": zeros, "b": zeros},
    ]
    hashes = [hash_arrays(arrays) for arrays in ({"a": zeros}, *others)]
    assert len(set(hashes)) == len(hashes)
    assert hash_arrays({"a": zeros.T.copy().T}) == hashes[0]  # memory order is no content


def test_corruptions_with_another_token_give_trials_another_identity(
    held_out: Path,
    prepared_text: PreparedText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corrupt = corruption._corrupt

    def with_another_token(name: str, *rest: object) -> object:
        array_NT = corrupt(name, *rest)
        array_NT[0, 1] ^= 1
        return array_NT

    monkeypatch.setattr(corruption, "_corrupt", with_another_token)
    other = corruption.prepare_held_out(prepared_text.corpus, prepared_text.data, tmp_path)
    index = corruption._index_file(prepared_text.corpus, prepared_text.data, tmp_path)
    same_settings = corruption._index_file(
        prepared_text.corpus, prepared_text.data, held_out.parent
    )
    assert index.name == same_settings.name
    assert other.name != held_out.name
    text = prepared_text.text
    identities = {
        TrialInputs(text=text, held_out=file, pairs=text, start=None).identity
        for file in (held_out, other)
    }
    assert len(identities) == 2


def test_name_is_the_hash_of_the_content(held_out: Path) -> None:
    read = corruption.open_held_out(held_out)
    arrays = {"original": read.original_NT, "document": read.document_N, **read.corrupted_NT}
    with np.load(held_out, allow_pickle=False) as stored:
        types = {name: stored[name].dtype for name in stored.files}
    again = {
        name: torch.Tensor.numpy(array_NT).astype(types[name]) for name, array_NT in arrays.items()
    }
    assert held_out.name == f"held-out-{hash_arrays(again)}.npz"


def test_file_of_older_code_is_made_again_with_the_tables_of_the_present_code(
    held_out: Path,
    prepared_text: PreparedText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its windows are the same and so is its name, but it lacks a table."""
    corpus, data = prepared_text.corpus, prepared_text.data
    complete = corruption.open_held_out(held_out).baselines
    lacking = "baseline/bigram/mlm/own_head/nats_per_character"
    tables = {name: score for name, score in complete.items() if name != lacking}
    with monkeypatch.context() as older:
        older.setattr(corruption, "code_digest", lambda _: "older")
        older.setattr(corruption, "_score_tables", lambda *_: tables)
        file = corruption.prepare_held_out(corpus, data, tmp_path)
    assert lacking not in corruption.open_held_out(file).baselines
    assert corruption.find_held_out(corpus, data, tmp_path) is None
    again = corruption.prepare_held_out(corpus, data, tmp_path)
    assert again == file
    assert set(corruption.open_held_out(again).baselines) == set(complete)
