"""Windows, splits, the cache of prepared text, and batches that are a function of the step."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import PreparedText
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import data
from lab.data import Batches, Corpus, windows
from lab.spec import Data
from lab.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP, SPECIAL, UNK

SMALL = Data(vocab=600, length=16)
DOCUMENTS = 150


def word(number: int) -> str:
    return "".join(chr(ord("a") + number // 26**place % 26) for place in range(3))


def synthetic() -> list[tuple[str, str]]:
    """Return documents that each repeat one word of their own, so that tokens tell documents."""
    return [(f"doc/{n}", f"{word(n)} " * (5 + 7 * n % 60)) for n in range(DOCUMENTS)]


@pytest.fixture
def synthetic_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "documents", lambda: iter(synthetic()))
    monkeypatch.setattr(data, "_HELD_OUT", 0.2)


def prepared(tmp_path: Path, settings: Data = SMALL) -> Corpus:
    return data.open_corpus(data.prepare(settings, tmp_path))


def words_of(corpus: Corpus, windows_NT: npt.NDArray[np.uint16]) -> list[set[str]]:
    """Return the different words of each window; tokens of one word joined again."""
    texts = [corpus.vocabulary.tokenizer.decode(row.tolist()) for row in windows_NT]
    return [set(text.replace(" ##", "").split()) for text in texts]


@given(tokens=st.integers(0, 200), length=st.integers(8, 40))
def test_windows_hold_the_document_in_order_and_drop_only_a_short_tail(
    tokens: int, length: int
) -> None:
    ids = list(range(FIRST_WORD, FIRST_WORD + tokens))
    rows, room = list(windows(ids, length)), length - 2
    assert all(len(row) == length and row[0] == CLS for row in rows)
    pieces = [row[1 : row.index(SEP)] for row in rows]
    assert all(
        row[len(piece) + 2 :] == [PAD] * (room - len(piece))
        for row, piece in zip(rows, pieces, strict=True)
    )
    kept = [token for piece in pieces for token in piece]
    assert kept == ids[: len(kept)]
    assert all(len(piece) == room for piece in pieces[:-1])
    assert tokens - len(kept) < min(8, room)
    assert all(len(piece) >= min(8, room) for piece in pieces)


@pytest.mark.usefixtures("synthetic_text")
def test_windows_never_cross_documents(tmp_path: Path) -> None:
    corpus = prepared(tmp_path)
    for windows_NT in (corpus.train_NT, corpus.held_out_NT):
        assert {len(words) for words in words_of(corpus, windows_NT)} == {1}


@pytest.mark.usefixtures("synthetic_text")
def test_held_out_documents_are_never_trained_on(tmp_path: Path) -> None:
    corpus = prepared(tmp_path)
    train = set[str]().union(*words_of(corpus, corpus.train_NT))
    held_out = set[str]().union(*words_of(corpus, corpus.held_out_NT))
    assert not train & held_out
    assert len(held_out) / len(train | held_out) == pytest.approx(0.2, abs=0.12)
    # Not even by the tokenizer: the words it has whole are training words.
    whole = set(corpus.vocabulary.tokenizer.get_vocab()) & {word(n) for n in range(DOCUMENTS)}
    assert whole
    assert not whole & held_out


def test_split_survives_another_order_of_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_text: None
) -> None:
    corpus = prepared(tmp_path / "a")
    monkeypatch.setattr(data, "documents", lambda: iter(reversed(synthetic())))
    other = prepared(tmp_path / "b")
    first = sorted(map(sorted, words_of(corpus, corpus.held_out_NT)))
    assert sorted(map(sorted, words_of(other, other.held_out_NT))) == first


@pytest.mark.usefixtures("synthetic_text")
def test_smaller_share_is_a_part_of_a_larger_one(tmp_path: Path) -> None:
    shares = [prepared(tmp_path, replace(SMALL, share=share)) for share in (0.3, 0.6)]
    less, more = (
        {word for words in words_of(corpus, corpus.train_NT) for word in words} for corpus in shares
    )
    assert less < more


def test_prepared_text_has_the_shape_that_was_asked_for(prepared_text: PreparedText) -> None:
    settings, _, corpus = prepared_text
    for windows_NT in (corpus.train_NT, corpus.held_out_NT):
        assert windows_NT.dtype == np.uint16
        assert windows_NT.shape[1] == settings.length
        assert (windows_NT[:, 0] == CLS).all()
        assert ((windows_NT == SEP).sum(1) == 1).all()
        assert ((windows_NT == CLS).sum(1) == 1).all()
        assert not (windows_NT == MASK).any()
        after_end_NT = np.cumsum(windows_NT == SEP, axis=1) - (windows_NT == SEP) > 0
        assert ((windows_NT == PAD) == after_end_NT).all()
        assert (windows_NT < settings.vocab).all()


def test_special_tokens_have_their_numbers(prepared_text: PreparedText) -> None:
    tokenizer = prepared_text.corpus.vocabulary.tokenizer
    assert tokenizer.get_vocab_size() == 400
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [PAD, UNK, CLS, SEP, MASK]
    assert tokenizer.encode("ÉCOLE").tokens == tokenizer.encode("ecole").tokens


def test_counts_are_of_training_words(prepared_text: PreparedText) -> None:
    corpus = prepared_text.corpus
    counts_V = corpus.counts_V
    assert len(counts_V) == 400
    assert (counts_V[[PAD, CLS, SEP, MASK]] == 0).all()
    assert counts_V.sum() == (~np.isin(corpus.train_NT, [PAD, CLS, SEP, MASK])).sum()
    assert counts_V[100] == (corpus.train_NT == 100).sum()


@pytest.mark.parametrize(
    "other", [{"share": 0.5}, {"vocab": 700}, {"length": 17}], ids=lambda x: next(iter(x))
)
@pytest.mark.usefixtures("synthetic_text")
def test_fingerprint_changes_with_the_settings(tmp_path: Path, other: dict[str, Any]) -> None:
    first, second = prepared(tmp_path), prepared(tmp_path, replace(SMALL, **other))
    assert first.fingerprint != second.fingerprint
    assert len(list(tmp_path.iterdir())) == 2


def test_preparing_again_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_text: None
) -> None:
    folder = data.prepare(SMALL, tmp_path)
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    monkeypatch.setattr(data, "_write", None)
    assert data.prepare(SMALL, tmp_path) == folder
    after = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert after == before


@pytest.mark.usefixtures("synthetic_text")
def test_prepared_text_is_the_same_wherever_it_is_prepared(tmp_path: Path) -> None:
    first, second = (data.prepare(SMALL, tmp_path / name) for name in "ab")
    assert first.name == second.name
    for file in first.iterdir():
        assert (second / file.name).read_bytes() == file.read_bytes()


def test_two_may_prepare_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_text: None
) -> None:
    write = data._write

    def overtaken(settings: Data, partial: Path) -> None:
        monkeypatch.setattr(data, "_write", write)
        data.prepare(settings, tmp_path)  # another sweep begins and ends meanwhile
        write(settings, partial)

    monkeypatch.setattr(data, "_write", overtaken)
    folder = data.prepare(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    assert len(data.open_corpus(folder).train_NT) > 0


def test_interrupted_preparation_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_text: None
) -> None:
    write = data._write

    def interrupted(settings: Data, partial: Path) -> None:
        write(settings, partial)
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.prepare(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_text: None
) -> None:
    def full(settings: Data, partial: Path) -> None:
        shutil.rmtree(partial)
        raise OSError("No space left on device")

    monkeypatch.setattr(data, "_write", full)
    with pytest.raises(OSError, match="No space"):
        data.prepare(SMALL, tmp_path)


def rows(count: int) -> npt.NDArray[np.uint16]:
    return np.arange(count * 8, dtype=np.uint16).reshape(count, 8)


def test_batch_is_windows_and_their_identities() -> None:
    windows_NT = rows(20)
    batch = Batches(windows_NT, 6, seed=0)[2]
    assert batch.ids_BT.shape == (6, 8)
    assert batch.ids_BT.numpy().tolist() == windows_NT[batch.example_B.numpy()].tolist()


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 12),
    seed=st.integers(0, 2**31 - 1),
    asked=st.lists(st.integers(0, 60), min_size=1, max_size=10),
)
@settings(deadline=None)
def test_batch_is_a_function_of_its_step(
    count: int, size: int, seed: int, asked: list[int]
) -> None:
    one = Batches(rows(count), size, seed)
    in_order = [one[step].example_B.tolist() for step in range(61)]
    # In any order, again, and by an object that has seen nothing before: a resumed run.
    for step in [*asked, *asked]:
        assert one[step].example_B.tolist() == in_order[step]
        assert Batches(rows(count), size, seed)[step].example_B.tolist() == in_order[step]


@given(count=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 2**31 - 1))
@settings(deadline=None)
def test_every_epoch_is_a_permutation(count: int, size: int, seed: int) -> None:
    batches = Batches(rows(count), size, seed)
    seen = [row for step in range(3 * count) for row in batches[step].example_B.tolist()]
    for epoch in range(len(seen) // count):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return Batches(rows(50), 50, seed)[epoch].example_B.tolist()

    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == len(orders)
