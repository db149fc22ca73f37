"""Damaged files of a prepared text, of held-out corruptions, pairs and tasks are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from prepared_text import PreparedText

from lab.data import batches, preparation, prepared_files
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.evaluation import content_index, corruption
from lab.storage import digests
from lab.storage.digests import DamagedFileError

FILES = (
    "train.bin",
    "held_out.bin",
    "held_out_documents.npy",
    "counts.npy",
    "passages.json",
    "tokenizer.json",
    "special.json",
    "text.json",
)


def flip(file: Path, position: float) -> None:
    """Flip one bit of the byte at a position from 0 to 1."""
    content = bytearray(file.read_bytes())
    content[int(position * (len(content) - 1))] ^= 4
    file.write_bytes(content)


@pytest.fixture
def text(prepared_text: PreparedText, tmp_path: Path) -> Path:
    return shutil.copytree(prepared_text.text, tmp_path / "cache" / prepared_text.text.name)


def refusal(text: Path) -> str:
    with pytest.raises(DamagedFileError) as caught:
        batches.open_corpus(text)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_file_of_a_prepared_text_has_a_digest(text: Path) -> None:
    assert {file.name for file in text.iterdir()} == set(FILES)
    assert {*prepared_files.read_facts(text)["files"], "text.json"} == set(FILES)


@pytest.mark.reported
@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_of_a_prepared_text_is_refused_with_the_file_and_the_remedy(
    text: Path, name: str
) -> None:
    batches.open_corpus(text)
    flip(text / name, 0.7)
    assert refusal(text).startswith(f"{text / name}: damaged: ")
    assert f"delete {text} and run the same command again" in refusal(text)


@pytest.mark.parametrize("name", FILES)
def test_truncated_or_missing_file_of_a_prepared_text_is_refused(text: Path, name: str) -> None:
    content = (text / name).read_bytes()
    (text / name).write_bytes(content[:-1])
    assert str(text / name) in refusal(text)
    (text / name).unlink()
    assert str(text / name) in refusal(text)


@pytest.mark.parametrize("name", ["tokenizer.json", "special.json"])
def test_damaged_tokenizer_of_a_text_is_refused_by_commands_that_read_it_alone(
    text: Path, name: str
) -> None:
    open_vocabulary(text)
    flip(text / name, 0.5)
    with pytest.raises(DamagedFileError, match=name):
        open_vocabulary(text)


def test_damaged_text_is_not_used_and_is_prepared_again_once_deleted(
    text: Path, prepared_text: PreparedText
) -> None:
    flip(text / "train.bin", 0.5)
    with pytest.raises(DamagedFileError):
        preparation.prepare_text(prepared_text.data, text.parent)
    shutil.rmtree(text)
    assert preparation.prepare_text(prepared_text.data, text.parent) == text
    assert np.array_equal(batches.open_corpus(text).train_NT, prepared_text.corpus.train_NT)


def test_message_names_the_damaged_block(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_BLOCK", 1_000)
    facts = prepared_files.read_facts(text)
    del facts["files"]
    prepared_files.write_facts(text, facts)
    content = bytearray((text / "train.bin").read_bytes())
    content[2_500] ^= 1
    (text / "train.bin").write_bytes(content)
    assert "bytes 2,000 to 3,000 differ" in refusal(text)


def test_large_files_are_read_once_on_a_machine_until_they_change(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SMALL", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    reads: list[str] = []
    read = digests.digest_file
    monkeypatch.setattr(digests, "digest_file", lambda file: reads.append(file.name) or read(file))
    for _ in range(3):
        prepared_files.check_files(text)
    assert sorted(reads) == sorted(set(FILES) - {"text.json"})
    flip(text / "train.bin", 0.5)
    assert "train.bin" in refusal(text)
    flip(text / "train.bin", 0.5)
    prepared_files.check_files(text)
    assert reads.count("train.bin") == 3


def test_large_files_are_checked_where_no_note_can_be_written(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SMALL", 0)
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    batches.open_corpus(text)
    flip(text / "train.bin", 0.5)
    assert "train.bin" in refusal(text)


@pytest.mark.reported
@pytest.mark.parametrize("position", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0])
def test_changed_bit_of_held_out_corruptions_is_refused_or_changes_nothing(
    held_out: Path, tmp_path: Path, position: float
) -> None:
    file = Path(shutil.copy(held_out, tmp_path))
    flip(file, position)
    try:
        read = corruption.open_held_out(file)
    except DamagedFileError as error:
        message = str(error)
    else:  # a byte that neither the archive nor NumPy reads
        expected = corruption.open_held_out(held_out)
        assert read.original_NT.equal(expected.original_NT)
        assert read.baselines == expected.baselines
        return
    assert message.startswith(f"{file}: damaged: ")
    assert "\n" not in message


def test_held_out_corruptions_that_another_program_changed_are_refused(
    held_out: Path, tmp_path: Path
) -> None:
    """The archive is intact, so only the digest of the arrays detects it."""
    for name in ("mlm", "original"):
        with np.load(held_out) as stored:
            arrays = dict(stored)
        arrays[name][:, 3] ^= 1
        file = tmp_path / held_out.name
        np.savez(file, **arrays)
        with pytest.raises(DamagedFileError, match="differs from its SHA-256"):
            corruption.open_held_out(file)


@pytest.mark.parametrize("content", [b"", b"..", b"a/b\n", b"\xff\x00", b"held-out-0.npz\n"])
def test_damaged_index_is_as_a_missing_one(tmp_path: Path, content: bytes) -> None:
    index = tmp_path / "index.txt"
    index.write_bytes(content)
    assert content_index.find_file(index) is None


@pytest.mark.parametrize("position", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_changed_bit_of_a_json_file_with_a_digest_is_refused(
    tmp_path: Path, position: float
) -> None:
    file, content = tmp_path / "task.json", {"rows": [["ä", 1.5], ["b", None]]}
    digests.write_json(file, content)
    assert digests.read_json(file, "remedy") == content
    flip(file, position)
    with pytest.raises(DamagedFileError, match=r"task\.json: damaged: .*; remedy$"):
        digests.read_json(file, "remedy")
