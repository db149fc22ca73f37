"""Tests of line ends, white space and encodings of files, and of the advice on them."""

import codecs
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.config.data import DataConfig, Mixture, MixturePart, TextFiles, WordPieceFile
from lab.data import preparation, prepared_files, text_files
from lab.data.sources import SourceReader
from lab.data.text_files import BadText, read_lines
from lab.errors import UserError
from lab.prepare import lines
from lab.tasks import embedded

CAFE = [f"le café numéro {number} est fermé" for number in range(40)]


def files(path: Path, **more: Any) -> TextFiles:
    return TextFiles(kind="files", paths=(str(path),), **more)


def read(source: TextFiles) -> list[str]:
    return list(SourceReader(source, "refuse").documents())


def refusal(source: TextFiles) -> str:
    with pytest.raises(UserError) as refused:
        read(source)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.reported
@pytest.mark.parametrize("longest", [4, 5, 6, 7, 2**20])
@given(st.text(st.sampled_from("ab\r\n"), max_size=30))
def test_lines_end_at_lf_crlf_or_cr_at_any_place_of_a_block(longest: int, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "LONGEST", longest)
        found = list(read_lines("name", io.BytesIO(text.encode()), "utf-8"))
    expected = io.StringIO(text, newline=None).read().split("\n")
    expected = expected[:-1] if expected[-1] == "" else expected
    assert [None if isinstance(line, BadText) else line for line in found] == [
        None if len(line) > longest else line for line in expected
    ]


@pytest.mark.reported
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv"])
def test_files_of_all_systems_have_the_same_documents(
    tmp_path: Path, end: str, ending: str
) -> None:
    rows = {
        ".txt": ["one", "two", "", "three"],
        ".jsonl": [json.dumps({"text": text}) for text in ("one\ntwo", "three")],
        ".csv": ["text", '"one', 'two"', "three"],
    }[ending]
    file = tmp_path / f"text{ending}"
    file.write_bytes(end.join([*rows, ""]).encode())
    assert read(files(file)) == ["one\ntwo", "three"]


@pytest.mark.reported
@pytest.mark.parametrize("space", ["\f", "\v", "\t"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_control_characters_of_white_space_separate_words(
    tmp_path: Path, space: str, ending: str
) -> None:
    """Manual pages and RFCs have a form feed between two pages."""
    file, text = tmp_path / f"text{ending}", f"page one{space}page two"
    file.write_text(text if ending == ".txt" else json.dumps({"text": text}))
    assert read(files(file))[0].split() == ["page", "one", "page", "two"]


@pytest.mark.reported
@pytest.mark.parametrize(
    ("encoding", "named"),
    [("latin-1", "latin-1"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16le"), ("utf-32", "utf-32")],
)
@pytest.mark.parametrize("bad_text", ["refuse", "skip"])
def test_the_advice_names_the_encoding_and_reads_the_file(
    tmp_path: Path, encoding: str, named: str, bad_text: Any
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("\n\n".join(CAFE).encode(encoding))
    advice = f"set `base.data.source.encoding: {named}`"
    if bad_text == "refuse":
        assert advice in refusal(files(file))
    else:
        reader = SourceReader(files(file), bad_text)
        list(reader.documents())
        assert advice in reader.examples[0]
    assert read(files(file, encoding=named)) == CAFE


def test_an_encoding_of_a_file_with_another_mark_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(codecs.BOM_UTF8 + "\n\n".join(CAFE).encode())
    message = refusal(files(file, encoding="latin-1"))
    assert "set `base.data.source.encoding: utf-8`" in message


def test_marks_of_joined_files_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes((codecs.BOM_UTF8 + b"one\n\n") * 2)
    assert read(files(file)) == ["one", "one"]


def test_a_few_invalid_bytes_of_utf_8_are_no_other_encoding(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("\n\n".join(CAFE).encode() + b"\n\n\xff")
    assert "set `base.data.bad_text: skip`" in refusal(files(file))


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffd")),
    seed=st.integers(0, 9),
)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "cp037"])
def test_wide_encodings_are_read_in_blocks(encoding: str, text: str, seed: int) -> None:
    if encoding == "cp037":
        text = text.encode("latin-1", "ignore").decode("latin-1")
    chance = random.Random(seed)  # noqa: S311
    expected = [text, *[text[::-1]] * chance.randint(0, 1), "end"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.data.encodings.transcoding._BLOCK", chance.randint(1, 7))
        stream = io.BytesIO("\n".join(expected).encode(encoding))
        assert list(read_lines("name", stream, encoding)) == expected


@pytest.mark.reported
@pytest.mark.parametrize(
    ("content", "more", "cause"),
    [
        ("\n\n".join(CAFE).encode("latin-1"), {}, "encoding: latin-1"),
        (b"", {}, "no text in it; skipped rows: 1 empty file"),
        (b" \n\n \n", {}, "no text in it; skipped rows: 1 empty file"),
        (b"only one document", {}, "a single document"),
        (b"the same\n\n" * 9, {}, "9 copies of one document"),
        (
            b"\n\n".join(b"%d a document" % n for n in range(9)),
            {"share": 1e-9},
            "data.share: 1e-09",
        ),
    ],
)
def test_the_cause_of_an_empty_text_is_named(
    tmp_path: Path, content: bytes, more: dict[str, Any], cause: str
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    data = DataConfig(source=files(file), bad_text="skip", vocab=300, **more)
    with pytest.raises(UserError) as refused:
        preparation.prepare_text(data, tmp_path / "cache")
    message = str(refused.value)
    assert cause in message
    assert message.startswith("base.data.")
    assert "\n" not in message


@pytest.mark.reported
@pytest.mark.parametrize("bad", ["missing.txt", "latin1.txt", "empty.pdf"])
def test_advice_on_a_part_of_a_mixture_has_its_whole_path(tmp_path: Path, bad: str) -> None:
    (tmp_path / "good.txt").write_text("\n\n".join(CAFE))
    (tmp_path / "latin1.txt").write_bytes("\n\n".join(CAFE).encode("latin-1"))
    (tmp_path / "empty.pdf").touch()
    parts = tuple(
        MixturePart(weight=1, source=files(tmp_path / name)) for name in ("good.txt", bad)
    )
    data = DataConfig(source=Mixture(kind="mixture", parts=parts), vocab=300)
    with pytest.raises(UserError, match=r"base\.data\.source\.parts\.1\.source\.(paths|enc)"):
        preparation.prepare_text(data, tmp_path / "cache")


@pytest.mark.reported
def test_documents_too_short_for_a_window_are_counted_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_texts = embedded.evaluation_texts
    monkeypatch.setattr(embedded, "evaluation_texts", lambda task: all_texts(task)[:20])
    chance = random.Random(3)  # noqa: S311
    long = [" ".join(chance.choices("abcdefghijklmnop", k=60)) for _ in range(160)]
    short = [" ".join(chance.choices("abcdefghijklmnop", k=3)) for _ in range(40)]
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join([*long, *dict.fromkeys(short)]))
    vocab = tmp_path / "vocab.txt"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
    vocab.write_text("\n".join([*names, *(f"filler{n}" for n in range(279))]) + "\n")
    data = DataConfig(
        source=files(file),
        tokenizer=WordPieceFile(kind="wordpieces", file=str(vocab)),
        vocab=300,
    )
    facts = prepared_files.read_facts(preparation.prepare_text(data, tmp_path / "cache"))
    count = len(set(short))
    assert facts["train"]["without_window"] + facts["held_out"]["without_window"] == count
    printed = "\n".join(lines(facts))
    assert f"too short:           {count} ({count / (160 + count):.1%})" in printed
    assert "fewer tokens than 8" in printed
