"""Tests of files of windows: correct counts, order, removal of unwanted lines, document store."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from lab.config.data import DataConfig
from lab.data import windows
from lab.data.contamination import NGRAM, EvaluationNgrams
from lab.data.document_store import DocumentStore, first_occurrence_D, hash_fraction_D, hash_text
from lab.data.packing import pack_document
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, ROLES, SEP, SPECIAL, UNK, Vocabulary
from lab.data.windows import (
    Document,
    WindowCounts,
    WindowWriter,
    batch_documents,
    process_ahead,
    remaining_stretches,
    window_type,
)

LENGTH = 12


def vocabulary(words: int = 500) -> Vocabulary:
    """Return a vocabulary of numbers: the word `17` is token 17 + FIRST_WORD."""
    names = [*SPECIAL, *map(str, range(words))]
    model: Any = models.WordLevel({name: n for n, name in enumerate(names)}, unk_token=SPECIAL[UNK])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Vocabulary(tokenizer, dict(zip(ROLES, SPECIAL, strict=True)))


NUMBERS = vocabulary()

lines = st.lists(st.integers(0, 520), max_size=30).map(lambda line: " ".join(map(str, line)))
texts = st.lists(lines, min_size=1, max_size=4).map("\n".join)
documents = st.lists(
    st.builds(Document, texts, st.integers(0, 2**64 - 1), st.integers(0, 2)), max_size=12
).map(lambda several: sorted(several, key=lambda document: document.part))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows") / "windows.bin"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_MOST", 40)  # characters; few documents make several batches


def tokens(line: str) -> npt.NDArray[np.int64]:
    words = [int(word) + FIRST_WORD for word in line.split()]
    return np.array([word if word < 505 else UNK for word in words], np.int64)


def write(
    writer: WindowWriter, file: Path, read: list[Document]
) -> tuple[WindowCounts, npt.NDArray[np.int64]]:
    counts = writer.write(file, read)
    dtype = window_type(writer.vocabulary.size)
    return counts, np.fromfile(file, dtype).astype(np.int64).reshape(-1, writer.data.length)


def window_writer(layout: Any = "full", **more: Any) -> WindowWriter:
    data = DataConfig(length=LENGTH, layout=layout, decontaminate=("x",) if more else ())
    return WindowWriter(data=data, vocabulary=NUMBERS, parts=3, **more)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("layout", ["full", "segments"])
def test_counts_are_those_of_documents_and_windows(file: Path, layout: str) -> None:
    @given(read=documents)
    def check(read: list[Document]) -> None:
        counts, windows_NT = write(window_writer(layout), file, read)
        words = [word for document in read for word in document.text.split()]
        assert len(counts.windows_D) == len(read)
        assert counts.characters == sum(len(document.text) for document in read)
        assert counts.words == counts.tokens == len(words)
        assert counts.unknown == sum(int(word) >= 500 for word in words)
        assert counts.padding == (windows_NT == PAD).sum()
        assert counts.cut == 0
        plain = np.bincount(windows_NT.reshape(-1), minlength=NUMBERS.size)
        plain[[PAD, CLS, SEP, MASK]] = 0
        np.testing.assert_array_equal(counts.counts_V, plain)
        facts = counts.facts(LENGTH)
        assert facts["windows"] == sum(facts["parts"]) == len(windows_NT)
        assert facts["tokens_in_windows"] == plain.sum() <= facts["tokens"]
        assert facts["unknown_rate"] * max(1, len(words)) == pytest.approx(counts.unknown)
        assert facts["padded_share"] * max(1, windows_NT.size) == pytest.approx(counts.padding)

    check()


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("layout", ["full", "segments"])
def test_windows_are_those_of_the_documents_in_the_order_of_the_parts(
    file: Path, layout: Any
) -> None:
    @given(read=documents)
    def check(read: list[Document]) -> None:
        counts, windows_NT = write(window_writer(layout), file, read)
        rows = [
            pack_document([tokens(line) for line in text.split("\n")], LENGTH, layout, seed)
            for text, seed, _ in read
        ]
        expected = np.concatenate([np.empty((0, LENGTH), np.int64), *rows])
        np.testing.assert_array_equal(windows_NT, expected)
        parts = [0] * 3
        for row, document in zip(rows, read, strict=True):
            parts[document.part] += len(row)
        assert counts.windows == parts
        assert counts.windows_D.tolist() == [len(row) for row in rows]

    check()


def number_words(first: int, count: int = NGRAM) -> str:
    return " ".join(map(str, range(first, first + count)))


def test_only_unwanted_lines_are_removed(file: Path) -> None:
    question = tokens(number_words(300))
    read = [
        Document("\n".join([number_words(0, 10), number_words(300), number_words(100, 10)]), 1, 0),
        Document("\n".join([number_words(200, 10), number_words(300, NGRAM - 1)]), 2, 1),
        Document(f"{number_words(290, 30)}", 3, 2),
    ]
    ngrams = EvaluationNgrams({"x": [question]})
    counts, windows_NT = write(window_writer(unwanted=ngrams), file, read)
    assert counts.cut == 2
    assert counts.windows == [2, 2, 0], "a window ends at a removed line"
    bodies = [row[(row != PAD) & (row != CLS) & (row != SEP)].tolist() for row in windows_NT]
    expected = (
        tokens(number_words(200, 10)).tolist() + tokens(number_words(300, NGRAM - 1)).tolist()
    )
    assert bodies[:2] == [tokens(number_words(first, 10)).tolist() for first in (0, 100)]
    assert bodies[2] + bodies[3] == expected[:20], "12 consecutive tokens are no overlap"


def test_both_lines_of_a_question_across_a_line_end_are_removed(file: Path) -> None:
    text = "\n".join(
        [number_words(0, 10), number_words(300, 6), number_words(306, 7), number_words(100, 10)]
    )
    ngrams = EvaluationNgrams({"x": [tokens(number_words(300))]})
    counts, windows_NT = write(window_writer(unwanted=ngrams), file, [Document(text, 1, 0)])
    assert counts.cut == 2
    assert windows_NT[:, 1:-1].tolist() == [
        tokens(number_words(first, 10)).tolist() for first in (0, 100)
    ]


def test_overlap_with_reported_questions_is_counted_and_kept(file: Path) -> None:
    ngrams = EvaluationNgrams({"x": [tokens(number_words(300)), tokens(number_words(400))]})
    read = [Document(number_words(300, 20), 1, 0)]
    plain, expected = write(window_writer(), file, read)
    counts, windows_NT = write(window_writer(reported=ngrams), file, read)
    np.testing.assert_array_equal(windows_NT, expected)
    assert counts.cut == plain.cut == 0
    assert ngrams.overlaps()[0].found == 1


@given(removed=st.lists(st.booleans(), max_size=12))
def test_remaining_stretches_are_the_lines_between_removed_ones(removed: list[bool]) -> None:
    rows = [np.array([number]) for number in range(len(removed))]
    stretches = [[int(line[0]) for line in part] for part in remaining_stretches(rows, removed)]
    marks = "".join("|" if gone else chr(ord("a") + n) for n, gone in enumerate(removed))
    assert stretches == [[ord(c) - ord("a") for c in run] for run in marks.split("|") if run]


@given(sizes=st.lists(st.integers(0, 30), max_size=20))
def test_document_batches_keep_the_order_and_end_when_full(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_MOST", 40)
        read = [Document("x" * size, number, 0) for number, size in enumerate(sizes)]
        grouped = list(batch_documents(read))
    assert [document for batch in grouped for document in batch] == read
    assert all(grouped)
    lengths = [[len(document.text) for document in batch] for batch in grouped]
    assert all(sum(batch) >= 40 for batch in lengths[:-1])
    assert all(sum(batch[:-1]) < 40 for batch in lengths)


def test_process_ahead_keeps_the_order_and_works_on_the_next_item_meanwhile() -> None:
    started = [threading.Event() for _ in range(20)]

    def work(item: int) -> int:
        started[item].set()
        return item**2

    for item, result in process_ahead(work, range(20)):
        assert result == item**2
        assert item == 19 or started[item + 1].wait(10), "work on the next item has not begun"
    assert all(event.is_set() for event in started)


def test_process_ahead_raises_errors_of_the_work_after_the_earlier_results() -> None:
    results = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop collects the earlier results
        for _, result in process_ahead(lambda item: 6 // item, [3, 2, 0, 1]):
            results.append(result)
    assert results == [2, 3]


def test_process_ahead_raises_errors_of_the_reader() -> None:
    def read() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(process_ahead(str, read()))


def test_vocabularies_over_65536_tokens_use_four_bytes(file: Path) -> None:
    assert window_type(2**16) is np.uint16
    assert window_type(2**16 + 1) is np.uint32
    last = 2**16 + 9
    writer = WindowWriter(data=DataConfig(length=LENGTH), vocabulary=vocabulary(last + 1), parts=1)
    _, windows_NT = write(writer, file, [Document(number_words(last - 9, 10), 1, 0)])
    expected = list(range(last - 9 + FIRST_WORD, last + 1 + FIRST_WORD))
    assert windows_NT[0, 1:-1].tolist() == expected


@given(parts=st.lists(st.lists(st.text(), max_size=5), min_size=1, max_size=3), case=st.data())
def test_document_store_returns_the_selected_documents(
    parts: list[list[str]], case: st.DataObject, file: Path
) -> None:
    store = DocumentStore(file.with_name("documents.bin"))
    store.remove()
    for part in parts:
        sizes = list(store.add(part))
        assert sizes == [len(text.encode()) for text in part]
    all_texts = [text for part in parts for text in part]
    selected = case.draw(st.lists(st.booleans(), min_size=len(all_texts), max_size=len(all_texts)))
    expected = [text for text, use in zip(all_texts, selected, strict=True) if use]
    assert list(store.read(np.array(selected, bool))) == expected
    assert store.parts == [len(part) for part in parts]
    assert store.part_D().tolist() == [n for n, part in enumerate(parts) for _ in part]
    assert store.bytes_D().tolist() == [len(text.encode()) for text in all_texts]
    assert store.digests_D().tolist() == [hash_text(text.encode()) for text in all_texts]


def test_document_store_keeps_all_characters_and_can_be_removed(tmp_path: Path) -> None:
    texts = ["Ωμέγα\r\nä\x85ö", "", "漢字 😀\u2028", "\x00 ", "a"]
    store = DocumentStore(tmp_path / "documents.bin")
    list(store.add(texts))
    assert list(store.read(np.ones(5, bool))) == texts
    assert list(store.read(np.array([0, 0, 1, 0, 1], bool))) == [texts[2], texts[4]]
    store.remove()
    store.remove()
    assert not list(tmp_path.iterdir())


@given(texts=st.lists(st.sampled_from("abcdef"), max_size=20))
def test_first_occurrences_are_those_without_an_equal_before(texts: list[str]) -> None:
    digests_D = np.array([hash_text(text.encode()) for text in texts], np.uint64)
    expected = [text not in texts[:index] for index, text in enumerate(texts)]
    assert first_occurrence_D(digests_D).tolist() == expected


DIGESTS = np.array([hash_text(b"%d" % number) for number in range(20_000)], np.uint64)


@pytest.mark.parametrize("purpose", [1, 2, 3])
def test_hash_fractions_are_uniform(purpose: int) -> None:
    """The Kolmogorov-Smirnov distance exceeds 2.5 / √D with a probability of 1 in 130,000."""
    fractions = np.sort(hash_fraction_D(DIGESTS, purpose))
    assert 0 <= fractions[0] <= fractions[-1] < 1
    D = len(fractions)
    steps = np.arange(D + 1) / D
    distance = max(np.abs(fractions - steps[:-1]).max(), np.abs(fractions - steps[1:]).max())
    assert distance < 2.5 / D**0.5


@pytest.mark.parametrize(("a", "b"), [(1, 2), (1, 3), (2, 3)])
def test_hash_fractions_of_two_purposes_are_independent(a: int, b: int) -> None:
    """In a 10 x 10 table, χ² with 81 degrees of freedom exceeds 153 with a probability of 1e-6."""
    tens = [(hash_fraction_D(DIGESTS, purpose) * 10).astype(int) for purpose in (a, b)]
    table = np.bincount(tens[0] * 10 + tens[1], minlength=100).reshape(10, 10)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 153


def test_hash_fractions_do_not_depend_on_the_order_of_documents() -> None:
    permuted = np.random.default_rng(3).permutation(len(DIGESTS))
    np.testing.assert_array_equal(
        hash_fraction_D(DIGESTS[permuted], 2), hash_fraction_D(DIGESTS, 2)[permuted]
    )
    np.testing.assert_array_equal(hash_fraction_D(DIGESTS[:7], 2), hash_fraction_D(DIGESTS, 2)[:7])
