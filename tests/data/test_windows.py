"""Documents become files: every count adds up, order is kept, only unwanted lines go."""

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
    """Return one whose words are numbers: `17` is token 17 + FIRST_WORD."""
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
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows") / "windows.bin"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_MOST", 40)  # bytes, so that a few documents are several


def tokens(line: str) -> npt.NDArray[np.int64]:
    words = [int(word) + FIRST_WORD for word in line.split()]
    return np.array([word if word < 505 else UNK for word in words], np.int64)


def written(
    how: WindowWriter, file: Path, read: list[Document]
) -> tuple[WindowCounts, npt.NDArray[np.int64]]:
    split = how.write(file, read)
    dtype = window_type(how.vocabulary.size)
    return split, np.fromfile(file, dtype).astype(np.int64).reshape(-1, how.data.length)


def settings(layout: Any = "full", **more: Any) -> WindowWriter:
    data = DataConfig(length=LENGTH, layout=layout, decontaminate=("x",) if more else ())
    return WindowWriter(data=data, vocabulary=NUMBERS, parts=3, **more)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("layout", ["full", "segments"])
def test_counts_add_up(place: Path, layout: str) -> None:
    @given(read=documents)
    def check(read: list[Document]) -> None:
        split, windows_NT = written(settings(layout), place, read)
        words = [word for document in read for word in document.text.split()]
        assert split.documents == len(read)
        assert split.characters == sum(len(document.text) for document in read)
        assert split.words == split.tokens == len(words)
        assert split.unknown == sum(int(word) >= 500 for word in words)
        assert split.padding == (windows_NT == PAD).sum()
        assert split.cut == 0
        plain = np.bincount(windows_NT.reshape(-1), minlength=NUMBERS.size)
        plain[[PAD, CLS, SEP, MASK]] = 0
        np.testing.assert_array_equal(split.counts_V, plain)
        facts = split.facts(LENGTH)
        assert facts["windows"] == sum(facts["parts"]) == len(windows_NT)
        assert facts["tokens_in_windows"] == plain.sum() <= facts["tokens"]
        assert facts["unknown_rate"] * max(1, len(words)) == pytest.approx(split.unknown)
        assert facts["padded_share"] * max(1, windows_NT.size) == pytest.approx(split.padding)

    check()


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("layout", ["full", "segments"])
def test_windows_are_those_of_each_document_and_parts_follow_each_other(
    place: Path, layout: Any
) -> None:
    @given(read=documents)
    def check(read: list[Document]) -> None:
        split, windows_NT = written(settings(layout), place, read)
        rows = [
            pack_document([tokens(line) for line in text.split("\n")], LENGTH, layout, seed)
            for text, seed, _ in read
        ]
        expected = np.concatenate([np.empty((0, LENGTH), np.int64), *rows])
        np.testing.assert_array_equal(windows_NT, expected)
        each = zip(rows, read, strict=True)
        parts = [0] * 3
        for row, document in each:
            parts[document.part] += len(row)
        assert split.windows == parts

    check()


def spelled(first: int, count: int = NGRAM) -> str:
    return " ".join(map(str, range(first, first + count)))


def test_unwanted_lines_are_gone_and_nothing_else(place: Path) -> None:
    question = tokens(spelled(300))
    read = [
        Document("\n".join([spelled(0, 10), spelled(300), spelled(100, 10)]), 1, 0),
        Document("\n".join([spelled(200, 10), spelled(300, NGRAM - 1)]), 2, 1),
        Document(f"{spelled(290, 30)}", 3, 2),
    ]
    asked = EvaluationNgrams({"x": [question]})
    split, windows_NT = written(settings(unwanted=asked), place, read)
    assert split.cut == 2
    assert split.windows == [2, 2, 0], "a gap in a document is the end of a window"
    kept = [row[(row != PAD) & (row != CLS) & (row != SEP)].tolist() for row in windows_NT]
    gathered = tokens(spelled(200, 10)).tolist() + tokens(spelled(300, NGRAM - 1)).tolist()
    assert kept[:2] == [tokens(spelled(first, 10)).tolist() for first in (0, 100)]
    assert kept[2] + kept[3] == gathered[:20], "and 12 in a row are no overlap"


def test_a_question_across_two_lines_takes_both(place: Path) -> None:
    text = "\n".join([spelled(0, 10), spelled(300, 6), spelled(306, 7), spelled(100, 10)])
    asked = EvaluationNgrams({"x": [tokens(spelled(300))]})
    split, windows_NT = written(settings(unwanted=asked), place, [Document(text, 1, 0)])
    assert split.cut == 2
    assert windows_NT[:, 1:-1].tolist() == [
        tokens(spelled(first, 10)).tolist() for first in (0, 100)
    ]


def test_what_is_only_reported_is_counted_and_stays(place: Path) -> None:
    asked = EvaluationNgrams({"x": [tokens(spelled(300)), tokens(spelled(400))]})
    read = [Document(spelled(300, 20), 1, 0)]
    plain, expected = written(settings(), place, read)
    split, windows_NT = written(settings(reported=asked), place, read)
    np.testing.assert_array_equal(windows_NT, expected)
    assert split.cut == plain.cut == 0
    assert asked.overlaps()[0].found == 1


@given(goes=st.lists(st.booleans(), max_size=12))
def test_stretches_are_what_stands_between_the_lines_that_are_gone(goes: list[bool]) -> None:
    rows = [np.array([number]) for number in range(len(goes))]
    found = [[int(line[0]) for line in left] for left in remaining_stretches(rows, goes)]
    marks = "".join("|" if gone else chr(ord("a") + n) for n, gone in enumerate(goes))
    assert found == [[ord(c) - ord("a") for c in run] for run in marks.split("|") if run]


@given(sizes=st.lists(st.integers(0, 30), max_size=20))
def test_batches_keep_order_and_close_once_they_are_full(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_MOST", 40)
        read = [Document("x" * size, number, 0) for number, size in enumerate(sizes)]
        found = list(batch_documents(read))
    assert [document for batch in found for document in batch] == read
    assert all(found)
    held = [[len(document.text) for document in batch] for batch in found]
    assert all(sum(batch) >= 40 for batch in held[:-1])
    assert all(sum(batch[:-1]) < 40 for batch in held)


def test_ahead_keeps_order_and_works_on_the_next_meanwhile() -> None:
    begun = [threading.Event() for _ in range(20)]

    def work(item: int) -> int:
        begun[item].set()
        return item**2

    for item, made in process_ahead(work, range(20)):
        assert made == item**2
        assert item == 19 or begun[item + 1].wait(10), "the next was not handed out"
    assert all(event.is_set() for event in begun)


def test_ahead_raises_what_the_worker_raises_after_what_came_before() -> None:
    done = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what came before is the point
        for _, made in process_ahead(lambda item: 6 // item, [3, 2, 0, 1]):
            done.append(made)
    assert done == [2, 3]


def test_ahead_raises_what_the_reader_raises() -> None:
    def read() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(process_ahead(str, read()))


def test_tokens_beyond_65536_take_four_bytes(place: Path) -> None:
    assert window_type(2**16) is np.uint16
    assert window_type(2**16 + 1) is np.uint32
    last = 2**16 + 9
    how = WindowWriter(data=DataConfig(length=LENGTH), vocabulary=vocabulary(last + 1), parts=1)
    _, windows_NT = written(how, place, [Document(spelled(last - 9, 10), 1, 0)])
    assert windows_NT[0, 1:-1].tolist() == tokens_of(last)


def tokens_of(last: int) -> list[int]:
    return list(range(last - 9 + FIRST_WORD, last + 1 + FIRST_WORD))


@given(parts=st.lists(st.lists(st.text(), max_size=5), min_size=1, max_size=3), case=st.data())
def test_spool_gives_back_what_was_written(
    parts: list[list[str]], case: st.DataObject, place: Path
) -> None:
    spool = DocumentStore(place.with_name("documents.bin"))
    spool.remove()
    for part in parts:
        sizes = list(spool.add(part))
        assert sizes == [len(text.encode()) for text in part]
    every = [text for part in parts for text in part]
    wanted = case.draw(st.lists(st.booleans(), min_size=len(every), max_size=len(every)))
    expected = [text for text, want in zip(every, wanted, strict=True) if want]
    assert list(spool.read(np.array(wanted, bool))) == expected
    assert spool.parts == [len(part) for part in parts]
    assert spool.part_D().tolist() == [n for n, part in enumerate(parts) for _ in part]
    assert spool.bytes_D().tolist() == [len(text.encode()) for text in every]
    assert spool.digests_D().tolist() == [hash_text(text.encode()) for text in every]


def test_spool_keeps_line_ends_and_scripts_and_goes(tmp_path: Path) -> None:
    texts = ["Ωμέγα\r\nä\x85ö", "", "漢字 😀\u2028", "\x00 ", "a"]
    spool = DocumentStore(tmp_path / "documents.bin")
    list(spool.add(texts))
    assert list(spool.read(np.ones(5, bool))) == texts
    assert list(spool.read(np.array([0, 0, 1, 0, 1], bool))) == [texts[2], texts[4]]
    spool.remove()
    spool.remove()
    assert not list(tmp_path.iterdir())


@given(texts=st.lists(st.sampled_from("abcdef"), max_size=20))
def test_first_is_the_first_of_its_kind(texts: list[str]) -> None:
    digests_D = np.array([hash_text(text.encode()) for text in texts], np.uint64)
    expected = [text not in texts[:place] for place, text in enumerate(texts)]
    assert first_occurrence_D(digests_D).tolist() == expected


DIGESTS = np.array([hash_text(b"%d" % number) for number in range(20_000)], np.uint64)


@pytest.mark.parametrize("purpose", [1, 2, 3])
def test_places_are_uniform(purpose: int) -> None:
    """Kolmogorov's distance stays under 2.5 / √D but for one chance in 130,000."""
    place = np.sort(hash_fraction_D(DIGESTS, purpose))
    assert 0 <= place[0] <= place[-1] < 1
    D = len(place)
    steps = np.arange(D + 1) / D
    distance = max(np.abs(place - steps[:-1]).max(), np.abs(place - steps[1:]).max())
    assert distance < 2.5 / D**0.5


@pytest.mark.parametrize(("a", "b"), [(1, 2), (1, 3), (2, 3)])
def test_places_of_two_purposes_are_independent(a: int, b: int) -> None:
    """A table of 10 x 10: χ² of 81 degrees of freedom stays under 153 but for one in a million."""
    tens = [(hash_fraction_D(DIGESTS, purpose) * 10).astype(int) for purpose in (a, b)]
    table = np.bincount(tens[0] * 10 + tens[1], minlength=100).reshape(10, 10)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 153


def test_places_belong_to_documents_and_not_to_their_order() -> None:
    turned = np.random.default_rng(3).permutation(len(DIGESTS))
    np.testing.assert_array_equal(
        hash_fraction_D(DIGESTS[turned], 2), hash_fraction_D(DIGESTS, 2)[turned]
    )
    np.testing.assert_array_equal(hash_fraction_D(DIGESTS[:7], 2), hash_fraction_D(DIGESTS, 2)[:7])
