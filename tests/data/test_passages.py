"""Passages of held-out documents: bounded in number and length, independent of the tokenizer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.config.data import DataConfig, TextFiles, WordPieceFile
from lab.data import batches, passages, preparation
from lab.data.passages import read_passages, split_passages, write_passages
from lab.data.vocabulary import SPECIAL
from lab.tasks import embedded


@given(st.text(alphabet="ab \n", max_size=200))
def test_passages_of_a_document_are_its_text_without_blank_rests(document: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "_PASSAGE", 12)
        cut = list(split_passages(document))
    assert document.startswith("".join(cut))
    assert not document[len("".join(cut)) :].strip()
    assert all(0 < len(passage) <= 12 for passage in cut)


def test_words_are_cut_only_if_they_are_longer_than_a_passage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passages, "_PASSAGE", 12)
    assert list(split_passages("one two three four")) == ["one two", " three four"]
    assert list(split_passages("a" * 30)) == ["a" * 12, "a" * 12, "a" * 6]


def test_passages_of_long_text_are_evenly_spaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [f"document {number:04}" for number in range(1_000)]
    monkeypatch.setattr(passages, "_CHARACTERS", 1_300)
    write_passages(tmp_path, documents, sum(map(len, documents)))
    expected = tuple((number, documents[number]) for number in range(9, 1_000, 10))
    assert read_passages(tmp_path) == expected


def test_all_passages_of_short_text_are_kept(tmp_path: Path) -> None:
    write_passages(tmp_path, ["one", " ", "two"], 7)
    assert read_passages(tmp_path) == ((0, "one"), (2, "two"))


def test_passages_of_a_document_have_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "_PASSAGE", 12)
    write_passages(tmp_path, ["one two three four", "five"], 22)
    assert [passage.document for passage in read_passages(tmp_path)] == [0, 0, 1]


def test_passages_are_those_of_held_out_documents_for_each_tokenizer_and_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "evaluation_texts", lambda _: ["a b"])
    documents = [f"{chr(97 + number)} b c d e f g h i j k {number}" for number in range(26)]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(documents))
    found = []
    for length, pieces in ((8, "abcdefghijk"), (16, "abcdefghijklmnopqrstuvwxyz")):
        vocabulary = tmp_path / f"{length}.txt"
        unused = [f"unused{number}" for number in range(295 - len(pieces))]
        vocabulary.write_text("\n".join([*SPECIAL, *pieces, *unused]))
        settings = DataConfig(
            source=TextFiles(kind="files", paths=(str(text),), documents="line"),
            tokenizer=WordPieceFile(kind="wordpieces", file=str(vocabulary)),
            vocab=300,
            length=length,
            held_out=0.3,
        )
        folder = preparation.prepare_text(settings, tmp_path / "cache")
        found.append(batches.open_corpus(folder).passages)
    assert found[0] == found[1]
    assert 1 < len(found[0]) < 20
    assert {passage.text for passage in found[0]} < set(documents)
