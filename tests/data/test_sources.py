"""Tests of reading sources: all formats, invalid rows, the hub, identity and bounded memory."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hub_server import COMMIT, served
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from lab.config.data import EmbeddedText, HubDataset, SavedDataset, SingleSource, TextFiles
from lab.data.sources import SourceReader, source_identity
from lab.data.text_files import LONGEST, PIECE
from lab.errors import UserError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".bz2": lambda content: bz2.compress(content, 1),
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
DOCUMENTS = ["The first.\nOf two lines.", 'A "second", with a comma;\ttab', "Третий — 三, ﬁn"]


def frame(documents: list[str]) -> pandas.DataFrame:
    return pandas.DataFrame({"id": range(len(documents)), "text": documents})


def objects(documents: list[str]) -> bytes:
    rows = [{"id": n, "text": text} for n, text in enumerate(documents)]
    return "\n".join(
        json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(rows)
    ).encode()


def table(documents: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(len(documents)), "text": documents}), sink)
    return sink.getvalue().to_pybytes()


WRITE: dict[str, Callable[[list[str]], bytes]] = {
    ".txt": lambda documents: "\n\n\n".join(documents).encode(),
    ".jsonl": objects,
    ".json": objects,
    ".csv": lambda documents: frame(documents).to_csv(index=False).encode(),
    ".tsv": lambda documents: frame(documents).to_csv(index=False, sep="\t").encode(),
    ".parquet": table,
}


def files(*paths: Path | str, **more: Any) -> TextFiles:
    return TextFiles(kind="files", paths=tuple(map(str, paths)), **more)


def read(source: SingleSource) -> list[str]:
    return list(SourceReader(source, "refuse").documents())


def refusal(source: SingleSource, bad_text: Any = "refuse") -> str:
    with pytest.raises(UserError) as refused:
        list(SourceReader(source, bad_text).documents())
    assert "\n" not in str(refused.value)
    return str(refused.value)


LINE = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffd\ufeff")
    | st.just("\t"),
    min_size=1,
    max_size=30,
).filter(lambda line: bool(line.strip()))
DOCUMENT = st.lists(LINE, min_size=1, max_size=3).map("\n".join)


@pytest.mark.parametrize("ending", WRITE)
@settings(max_examples=40, deadline=None)
@given(documents=st.lists(DOCUMENT, min_size=1, max_size=4), packed=st.sampled_from(list(PACK)))
def test_all_formats_return_the_documents_that_were_written(
    ending: str, documents: list[str], packed: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"text{ending}{packed}"
        file.write_bytes(PACK[packed](WRITE[ending](documents)))
        assert read(files(file)) == documents


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("ending", WRITE)
def test_all_formats_can_be_compressed_in_all_ways(
    tmp_path: Path, ending: str, packed: str
) -> None:
    file = tmp_path / f"text{ending}{packed}".upper()
    file.write_bytes(PACK[packed](WRITE[ending](DOCUMENTS)))
    assert read(files(file)) == DOCUMENTS


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
def test_concatenated_compressed_streams_are_one_file(tmp_path: Path, packed: str) -> None:
    file = tmp_path / f"text.txt{packed}"
    file.write_bytes(PACK[packed](b"one\n\ntw") + PACK[packed](b"o\n"))
    assert read(files(file)) == ["one", "two"]


def test_csv_is_read_as_by_pandas(tmp_path: Path) -> None:
    file = tmp_path / "text.csv"
    content = 'id,text\r\n1,NA\r\n\r\n2,"a ""b"", c"\r\n3," d\n e"\r\n4,5\r\n'
    file.write_bytes(content.encode())
    expected = pandas.read_csv(file, dtype=str, keep_default_na=False)["text"].tolist()
    assert read(files(file)) == expected == ["NA", 'a "b", c', " d\n e", "5"]


def test_embedded_text_is_that_of_the_package_files() -> None:
    folder = ROOT / "lab" / "text" / "corpus"
    rows = [
        json.loads(row)
        for file in sorted(folder.glob("*.xz"))
        for row in lzma.decompress(file.read_bytes()).decode().splitlines()
    ]
    assert read(EmbeddedText()) == [row["text"] for row in rows]


def test_rows_of_a_saved_folder_are_read(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict({"id": [1, 2, 3], "text": DOCUMENTS})
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    splits = datasets.DatasetDict({"train": whole, "rest": whole.select([2, 0])})
    splits.save_to_disk(tmp_path / "many")
    assert read(SavedDataset(kind="saved", path=str(tmp_path / "one"))) == DOCUMENTS
    assert read(SavedDataset(kind="saved", path=str(tmp_path / "many"))) == DOCUMENTS
    rest = SavedDataset(kind="saved", path=str(tmp_path / "many"), split="rest")
    assert read(rest) == [DOCUMENTS[2], DOCUMENTS[0]]


def test_rows_of_a_saved_folder_mapped_several_times_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [f"document {n}" for n in range(1000)]
    datasets.Dataset.from_dict({"text": documents}).save_to_disk(tmp_path, num_shards=3)
    monkeypatch.setattr("lab.data.hub._MAPPED", 1500)
    assert read(SavedDataset(kind="saved", path=str(tmp_path))) == documents


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("paragraph", ["one\ntwo", "three"]),
        ("line", ["one", "two", "three"]),
        ("file", ["one\ntwo\n \n\nthree"]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_plain_text_is_divided_into_documents(
    tmp_path: Path, documents: Any, expected: list[str], end: str, mark: bytes
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(mark + end.join(["one", "two", " ", "", "three", ""]).encode())
    assert read(files(file, documents=documents)) == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "shift_jis", "gb18030", "iso2022_jp"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv"])
def test_text_is_decoded_with_the_given_encoding(
    tmp_path: Path, encoding: str, ending: str
) -> None:
    text = {"latin-1": "crème brûlée", "cp1251": "Привет"}.get(encoding, "日本")
    file = tmp_path / f"text{ending}"
    content = {".txt": text, ".jsonl": f'{{"text": "{text}"}}', ".csv": f'text\n"{text}"\n'}
    file.write_bytes(content[ending].encode(encoding))
    assert read(files(file, encoding=encoding)) == [text]


def parquet_of(cells: list[bytes | None]) -> bytes:
    """Return a Parquet file with these bytes in its text column, valid UTF-8 or not."""
    plain = pa.array(cells, pa.binary())
    text = pa.StringArray.from_buffers(len(plain), *plain.buffers()[1:], plain.buffers()[0])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": text}), sink)
    return sink.getvalue().to_pybytes()


LONG = b"x" * (LONGEST + 1)
# Name of the case: file name, content, position and reason of the error, valid documents.
BAD = {
    "not utf-8": ("a.txt", b"one\n\ncaf\xe9\n\ntwo", ":3", "wrong encoding (byte 0xE9)", "one two"),
    "not utf-8 in a packed file": (
        "a.txt.gz", gzip.compress(b"one\n\n\xff\xfe"), ":3", "wrong encoding (byte 0xFF)", "one",
    ),
    "null character": ("a.txt", b"one\n\nt\0wo", ":3", "control character U+0000", "one"),
    "escape": ("a.txt", b"one\n\n\x1b[0m", ":3", "control character U+001B", "one"),
    "delete": ("a.txt", b"\x7f\n\none", ":1", "control character U+007F", "one"),
    "C1": ("a.txt", "one\n\n\x85".encode(), ":3", "control character U+0085", "one"),
    "replacement character": ("a.txt", "one\n\ncaf\ufffd".encode(), ":3",
                              "invalid character (U+FFFD)", "one"),
    "line beyond the limit": ("a.txt", b"one\n\n" + LONG + b"\n\ntwo", ":3", "longer than 8 MiB",
                              "one two"),
    "not JSON": ("a.jsonl", b'{"text": "one"}\n{"text": \n{"text": "two"}', ":2", "not JSON (",
                 "one two"),
    "deeply nested JSON": ("a.jsonl", b'{"text": "one"}\n' + b'{"a":' * 100_000, ":2", "not JSON (",
                        "one"),
    "number of JSON": ("a.jsonl", b'{"text": "one"}\n\n12', ":3", "not a JSON object", "one"),
    "object without the column": (
        "a.jsonl", b'{"text": "one"}\n{"body": 1, "id": 2}', ":2",
        "no column 'text' (columns: 'body', 'id')", "one",
    ),
    "null of JSON": ("a.jsonl", b'{"text": null}\n{"text": "one"}', ":1", "not text (null)",
                     "one"),
    "list of JSON": ("a.jsonl", b'{"text": ["a"]}\n{"text": "one"}', ":1", 'not text (["a"])',
                     "one"),
    "unpaired surrogate": (
        "a.jsonl", rb'{"text": "\ud83d"}' + b'\n{"text": "one"}', ":1",
        "invalid character (U+D83D)", "one",
    ),
    "object not utf-8": ("a.jsonl", b'{"text": "\xe9"}\n{"text": "one"}', ":1",
                         "wrong encoding (byte 0xE9)", "one"),
    "object beyond the limit": (
        "a.jsonl", b'{"text": "' + LONG + b'"}\n{"text": "one"}', ":1", "longer than 8 MiB", "one",
    ),
    "cell not utf-8": ("a.csv", b'id,text\n1,one\n2,"a\nb\xe9"\n3,two', ":3",
                       "wrong encoding (byte 0xE9)", "one two"),
    "control character in a cell": ("a.csv", b"text\none\n\0\ntwo", ":3",
                                    "control character U+0000", "one two"),
    "too few cells": ("a.csv", b"id,text\n1\n2,one", ":2",
                      "number of cells differs from the header (1 for 2)", "one"),
    "too many cells": ("a.tsv", b"id\ttext\n1\tone\n2\ta\tb", ":3",
                       "number of cells differs from the header (3 for 2)", "one"),
    "stray quote": ("a.csv", b'text\none\n"a"b\ntwo', ":3", "not CSV (", "one two"),
    "unclosed quote": ("a.csv", b'text\none\n"two\nthree\nfour', ":3", "not CSV (", "one"),
    "unclosed quote in a long file": (
        "a.csv", b'text\none\n"two\n' + (b"a" * 1023 + b"\n") * (LONGEST // 1024) + b"x\n", ":3",
        "longer than 8 MiB (the rest of the file is skipped)", "one",
    ),
    "cell beyond the limit": (
        "a.csv", b"text\none\n" + LONG + b"\ntwo", ":3",
        "longer than 8 MiB (the rest of the file is skipped)", "one",
    ),
    "null of Parquet": ("a.parquet", parquet_of([b"one", None, b"two"]), ":2", "not text (null)",
                        "one two"),
    "Parquet not utf-8": ("a.parquet", parquet_of([b"one", b"\xe9", b"two"]), ":2",
                          "wrong encoding (byte 0xE9)", "one two"),
    "Parquet beyond the limit": ("a.parquet", parquet_of([b"one", LONG, b"two"]), ":2",
                                 "longer than 8 MiB", "one two"),
    "not Parquet": ("a.parquet", b"PAR1 but not Parquet", "", "damaged from some row", ""),
    "truncated Parquet": ("a.parquet", table(["one"])[:-9], "", "damaged from some row", ""),
    **{f"empty {ending}": (f"a{ending}", b"", "", "empty file", "")
       for ending in (".txt", ".jsonl", ".csv", ".tsv")},
    **{f"blank {ending}": (f"a{ending}", b"\n \r\n\n", "", "empty file", "")
       for ending in (".txt", ".jsonl")},
    "empty compressed file": ("a.txt.bz2", bz2.compress(b""), "", "empty file", ""),
    "header only": ("a.csv", b"id,text\n", "", "empty file", ""),
    "Parquet without rows": ("a.parquet", parquet_of([]), "", "empty file", ""),
    **{f"not {packed}": (f"a.txt{packed}", b"Not compressed.", ":1", "damaged from here",
                        "") for packed in PACK if packed},
    **{f"Parquet, not {packed}": (f"a.parquet{packed}", b"Not packed", "", "damaged from here", "")
       for packed in PACK if packed},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_error_names_file_and_row_of_invalid_text(tmp_path: Path, name: str) -> None:
    file, content, where, reason, _ = BAD[name]
    (tmp_path / file).write_bytes(content)
    assert refusal(files(tmp_path / file)).startswith(f"{tmp_path / file}{where}: {reason}")


@pytest.mark.reported
@pytest.mark.parametrize("name", BAD)
def test_invalid_text_is_skipped_and_counted(tmp_path: Path, name: str) -> None:
    file, content, where, reason, valid = BAD[name]
    (tmp_path / file).write_bytes(content)
    (tmp_path / "b.txt").write_text("the next file")
    reader = SourceReader(files(tmp_path / "*"), "skip")
    for _ in range(2):  # the second stream starts with counts of zero
        assert list(reader.documents()) == [*valid.split(), "the next file"]
        assert list(reader.skipped.values()) == [1]
        assert reader.examples[0].startswith(f"{tmp_path / file}{where}: {reason}")
    assert next(iter(reader.skipped)).startswith(reason.split(" (")[0])


@pytest.mark.reported
@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".parquet"])
def test_truncated_compressed_file_is_detected(tmp_path: Path, ending: str, packed: str) -> None:
    documents = [f"{n} {os.urandom(9).hex()}" for n in range(10_000)]
    content = PACK[packed](WRITE[ending](documents))
    (tmp_path / f"a{ending}{packed}").write_bytes(content[: len(content) * 3 // 4])
    assert ": damaged from here to the end of the file" in refusal(files(tmp_path / "*"))
    reader = SourceReader(files(tmp_path / "*"), "skip")
    read = list(reader.documents())
    assert read == documents[: len(read)]
    assert ending == ".parquet" or len(read) > 100
    assert reader.skipped == {"damaged from here to the end of the file": 1}


def test_rows_before_a_damaged_page_of_parquet_are_read(tmp_path: Path) -> None:
    documents = [f"document {n:07}" * 50 for n in range(2000)]
    rows = pa.table({"text": documents})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=500, compression="zstd")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    begin = pq.read_metadata(tmp_path / "a.parquet").row_group(2).column(0).dictionary_page_offset
    content[begin : begin + 40] = b"?" * 40
    (tmp_path / "a.parquet").write_bytes(content)
    reader = SourceReader(files(tmp_path / "a.parquet"), "skip")
    read = list(reader.documents())
    assert read == documents[: len(read)]
    assert len(read) >= 900
    assert reader.skipped == {"damaged from some row to the end of the file": 1}


def test_examples_are_the_first_five_skipped_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0\n" * 100 + b"one\n" + b"\xff\n" * 10)
    reader = SourceReader(files(tmp_path / "a.txt"), "skip")
    assert list(reader.documents()) == ["one"]
    assert reader.skipped == {"control character U+0000": 100, "wrong encoding": 10}
    assert [line.split(":")[1] for line in reader.examples] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("bad_text", ["refuse", "skip"])
class TestAlwaysRefused:
    """Errors of the source as a whole, which `bad_text: skip` does not suppress."""

    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
    def test_file_without_the_column(self, tmp_path: Path, ending: str, bad_text: str) -> None:
        file = tmp_path / f"text{ending}"
        file.write_bytes(WRITE[ending](DOCUMENTS))
        message = refusal(files(file, column="body"), bad_text)
        assert message == f"{file}: no column 'body'; columns: 'id', 'text'"

    def test_saved_folder_without_the_column_or_split(self, tmp_path: Path, bad_text: str) -> None:
        rows = datasets.Dataset.from_dict({"id": [1], "text": ["one"]})
        datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path)
        source = SavedDataset(kind="saved", path=str(tmp_path), column="body")
        assert refusal(source, bad_text) == f"{tmp_path}: no column 'body'; columns: 'id', 'text'"
        source = SavedDataset(kind="saved", path=str(tmp_path), split="test")
        assert refusal(source, bad_text).endswith("has no split 'test'; splits: 'train'")

    def test_column_of_numbers(self, tmp_path: Path, bad_text: str) -> None:
        (tmp_path / "text.parquet").write_bytes(table(["one"]))
        message = refusal(files(tmp_path / "text.parquet", column="id"), bad_text)
        assert message == f"{tmp_path / 'text.parquet'}: column 'id' has type int64, expected text"

    @pytest.mark.reported
    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
    def test_two_columns_of_one_name(self, tmp_path: Path, ending: str, bad_text: str) -> None:
        """Only one of them would be read."""
        file = tmp_path / f"text{ending}"
        names, cells = ["text", "id", "text"], ["one", "1", "another"]
        if ending == ".parquet":
            columns = [pa.array([cell]) for cell in cells]
            pq.write_table(pa.Table.from_arrays(columns, names=names), file)
        else:
            comma = "," if ending == ".csv" else "\t"
            file.write_text(f"{comma.join(names)}\n{comma.join(cells)}\n")
        message = refusal(files(file), bad_text)
        assert message == f"{file}: two columns have the name 'text'; rename one of them"

    @pytest.mark.reported
    @pytest.mark.parametrize("cell", [["a", "list"], b"bytes", {"a": "structure"}, 1.5])
    def test_column_of_another_type(self, tmp_path: Path, cell: object, bad_text: str) -> None:
        pq.write_table(pa.table({"text": [cell]}), tmp_path / "text.parquet")
        message = refusal(files(tmp_path / "text.parquet"), bad_text)
        assert message.startswith(f"{tmp_path / 'text.parquet'}: column 'text' has type ")
        assert message.endswith(", expected text")

    @pytest.mark.parametrize("size", [1, 100_000])
    @pytest.mark.parametrize("indent", [None, 1])
    def test_json_array(self, tmp_path: Path, size: int, indent: int | None, bad_text: str) -> None:
        rows = [{"text": "x" * 100}] * size
        (tmp_path / "text.json").write_text(json.dumps(rows, indent=indent))
        message = refusal(files(tmp_path / "text.json"), bad_text)
        assert "a JSON array" in message
        assert "jq -c '.[]'" in message

    def test_glob_that_matches_nothing(self, tmp_path: Path, bad_text: str) -> None:
        (tmp_path / "folder.txt").mkdir()
        for path in ("text.txt", "*.txt", "**/*.csv"):
            assert f"no file matches '{tmp_path / path}'" in refusal(
                files(tmp_path / path), bad_text
            )

    def test_folder(self, tmp_path: Path, bad_text: str) -> None:
        message = refusal(files(tmp_path), bad_text)
        assert (
            f"{str(tmp_path)!r} is not a file; use '{tmp_path}/*.txt' for the files of" in message
        )

    @pytest.mark.parametrize("name", ["text.pdf", "text", "text.gz", "txt.zip", "text.txt.gz.gz"])
    def test_unknown_extension(self, tmp_path: Path, name: str, bad_text: str) -> None:
        (tmp_path / name).write_text("text")
        message = refusal(files(tmp_path / name), bad_text)
        assert (
            ".txt .jsonl .json .csv .tsv .parquet, each also compressed as .gz .bz2 .xz .zst"
            in message
        )

    @pytest.mark.parametrize("encoding", ["rot13", "base64", "idna", "x", ""])
    def test_unsupported_encoding(self, tmp_path: Path, encoding: str, bad_text: str) -> None:
        (tmp_path / "text.txt").write_text("text")
        message = refusal(files(tmp_path / "text.txt", encoding=encoding), bad_text)
        assert message.startswith("base.data.source.encoding: ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can read all files")
    def test_unreadable_file(self, tmp_path: Path, bad_text: str) -> None:
        (tmp_path / "text.txt").write_text("text")
        (tmp_path / "text.txt").chmod(0)
        assert "Permission denied" in refusal(files(tmp_path / "text.txt"), bad_text)

    def test_folder_that_was_not_saved(self, tmp_path: Path, bad_text: str) -> None:
        for path in (tmp_path, tmp_path / "missing"):
            message = refusal(SavedDataset(kind="saved", path=str(path)), bad_text)
            assert message.startswith(f"base.data.source.path: {str(path)!r}: ")

    def test_unreachable_hub(self, bad_text: str) -> None:
        source = HubDataset(kind="hub", name="wikimedia/wikipedia", configuration="20231101.fi")
        assert "wikimedia/wikipedia 20231101.fi train at main on the hub" in refusal(
            source, bad_text
        )
        with pytest.raises(UserError, match="on the hub: Cannot reach"):
            source_identity(source)

    def test_local_folder_as_name_of_a_data_set(self, tmp_path: Path, bad_text: str) -> None:
        assert "is a local folder" in refusal(HubDataset(kind="hub", name=str(tmp_path)), bad_text)


def test_files_are_read_once_in_the_order_of_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/x.txt", "a.txt", "c.txt", "b/[1].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    expected = ["a.txt", "b/[1].txt", "b/x.txt", "c.txt"]
    assert read(files("**/*.txt")) == read(files("c.txt", "b/[1].txt", "**/*.txt")) == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(files("~/b/*.txt")) == expected[1:3]
    assert "no file matches '~/z.txt'" in refusal(files("~/z.txt"))


def test_identity_depends_on_names_and_contents_of_files(tmp_path: Path) -> None:
    first, second = tmp_path / "one" / "a.txt", tmp_path / "two" / "a.txt"
    for file in (first, second):
        file.parent.mkdir()
        file.write_text("text")
    os.utime(second, (1, 1))
    identity = source_identity(files(first))
    assert json.loads(json.dumps(identity)) == identity == source_identity(files(second))
    second.write_text("tex7")
    assert source_identity(files(second)) != identity
    assert source_identity(files(first.rename(tmp_path / "b.txt"))) != identity
    assert source_identity(EmbeddedText()) == source_identity(EmbeddedText())


def test_identity_of_a_saved_folder_depends_on_its_content(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["one"]})
    rows.save_to_disk(tmp_path / "a")
    source = SavedDataset(kind="saved", path=str(tmp_path / "a"))
    identity = source_identity(source)
    for file in (tmp_path / "a").iterdir():
        os.utime(file, (1, 1))
    assert json.loads(json.dumps(identity)) == identity == source_identity(source)
    rows.map(lambda row: {"text": row["text"] + "!"}).save_to_disk(tmp_path / "b")
    assert source_identity(SavedDataset(kind="saved", path=str(tmp_path / "b"))) != identity
    with pytest.raises(UserError, match="does not exist"):
        source_identity(SavedDataset(kind="saved", path=str(tmp_path / "missing")))


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".parquet"])
def test_long_document_is_divided_at_line_ends(tmp_path: Path, ending: str) -> None:
    lines = [f"line {n} " + "x" * (n % 500) for n in range(20_000)]
    file = tmp_path / f"text{ending}"
    file.write_bytes(WRITE[ending](["\n".join(lines)]))
    pieces = read(files(file))
    assert "\n".join(pieces).split("\n") == lines
    assert len(pieces) == 5
    assert all(PIECE * 0.9 < len(piece) <= PIECE for piece in pieces[:-1])


READ_HUB = """
import json, sys
from lab.errors import UserError
from lab.data.sources import SourceReader, source_identity
from lab.config.data import HubDataset

for fields in json.loads(sys.argv[1]):
    source = HubDataset(kind="hub", **fields)
    try:
        result = [source_identity(source), list(SourceReader(source, "refuse").documents())]
    except UserError as error:
        result = str(error)
    print(json.dumps(result))
"""


def read_hub(endpoint: str, home: Path, *sources: dict[str, str]) -> list[Any]:
    """Return [identity, documents] or the error of each source, read in an online process."""
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", READ_HUB, json.dumps(sources)],
        check=True, capture_output=True, text=True, env=os.environ | online,
    )  # fmt: skip
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_data_sets_of_the_hub_are_read_at_their_commit(tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'ran')!r}, 'w')"
    folders = {
        "owner/tables": {
            "train-00000-of-00002.parquet": table(DOCUMENTS[:2]),
            "train-00001-of-00002.parquet": table(DOCUMENTS[2:]),
        },
        "owner/lines": {"train.jsonl.zst": PACK[".zst"](objects(DOCUMENTS))},
        "owner/bad": {"train.jsonl": b'{"text": "one"}\n{"text": null}\n'},
        "owner/script": {"script.py": script.encode(), "train.jsonl": objects(DOCUMENTS)},
    }
    with served(folders) as hub:
        results = read_hub(
            f"http://127.0.0.1:{hub.server_port}",
            tmp_path / "home",
            {"name": "owner/tables"},
            {"name": "owner/lines", "revision": COMMIT},
            {"name": "owner/bad"},
            {"name": "owner/script"},
            {"name": "owner/tables", "split": "test"},
            {"name": "owner/tables", "configuration": "20231101.fi"},
            {"name": "owner/tables", "column": "body"},
            {"name": "owner/lines", "column": "body"},
            {"name": "owner/tables", "revision": "v2"},
            {"name": "owner/none"},
        )
    assert results[0] == [["owner/tables", "", "train", COMMIT], DOCUMENTS]
    assert results[1] == [["owner/lines", "", "train", COMMIT], DOCUMENTS]
    assert results[2].startswith("owner/bad:2: not text (null)")
    reasons = [
        "scripts are no longer supported", "Bad split: test", "'20231101.fi' not found",
        "no column 'body'; columns: 'id', 'text'", "no column 'body'; columns: 'id', 'text'",
        "404", "404",
    ]  # fmt: skip
    for refused, reason in zip(results[3:], reasons, strict=True):
        assert reason in refused
        assert "\n" not in refused
    assert not (tmp_path / "ran").exists()
    assert all("/datasets/owner/" in path for path in hub.requested_paths)  # no other requests


memory = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs the peak of memory in /proc"
)
BOUND = {"files": 100, "saved": 300}  # MB above the memory after the imports
# Imports once, and measures each source in a fork, whose peak starts at its present memory.
MEASURE = """
import json, os, re, sys
import datasets, pyarrow.parquet
from lab.data.sources import SourceReader
from lab.config.data import SavedDataset, TextFiles

def peak():  # ru_maxrss would start at the value of the parent process
    with open("/proc/self/status") as status:
        return int(re.search("VmHWM:\\s+([0-9]+) kB", status.read())[1]) // 1024

for line in sys.stdin:
    if os.fork():
        os.wait()
        continue
    kind, path = json.loads(line)
    if kind == "saved":
        source = SavedDataset(kind="saved", path=path)
    else:
        source = TextFiles(kind="files", paths=(path,), documents="file")
    before, reader = peak(), SourceReader(source, "skip")
    size = sum(map(len, reader.documents()))
    print(json.dumps([size, sum(reader.skipped.values()), peak() - before]), flush=True)
    os._exit(0)
"""
Measure = Callable[[str, Path], tuple[int, int, int]]


@pytest.fixture(scope="module")
def measure() -> Iterator[Measure]:
    """Return a function of the kind and the path of a source that measures its reading.

    It returns the characters read, the rows skipped and the peak memory in MB above the imports.
    """
    with subprocess.Popen(
        [sys.executable, "-c", MEASURE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        requests, results = process.stdin, process.stdout
        assert results is not None

        def measured(kind: str, path: Path) -> tuple[int, int, int]:
            requests.write(json.dumps([kind, str(path)]) + "\n")
            requests.flush()
            size, skipped, peak = json.loads(results.readline())
            return size, skipped, peak

        yield measured


def write_repeated(file: Path, head: bytes, block: bytes, times: int, tail: bytes) -> None:
    with zstandard.open(file, "wb") as packed:
        packed.write(head)
        for _ in range(times):
            packed.write(block)
        packed.write(tail)


@pytest.mark.reported
@memory
@pytest.mark.parametrize(
    ("name", "head", "tail", "characters"),
    [
        ("text.txt", b"one\n", b"\none\n", len("one\none")),
        ("text.jsonl", b'{"text": "', b'"}\n{"text": "one"}\n', len("one")),
        ("text.csv", b"text\none\n", b"\none\n", len("one")),
    ],
)
def test_memory_does_not_grow_with_the_length_of_a_line(
    tmp_path: Path, measure: Measure, name: str, head: bytes, tail: bytes, characters: int
) -> None:
    file = tmp_path / f"{name}.zst"
    write_repeated(file, head, b"x" * 2**20, 300, tail)
    size, skipped, peak = measure("files", file)
    assert (size, skipped) == (characters, 1)
    assert peak < BOUND["files"]


@memory
@pytest.mark.parametrize(
    ("name", "head", "block", "characters"),
    [
        ("text.txt", b"", b"A line of a document. ".ljust(399, b".") + b"\n", 500_000 * 400),
        ("text.csv", b'text\n"', b"A line after a quote. ".ljust(399, b".") + b"\n", 0),
    ],
)
def test_memory_does_not_grow_with_the_length_of_a_document(
    tmp_path: Path, measure: Measure, name: str, head: bytes, block: bytes, characters: int
) -> None:
    file = tmp_path / f"{name}.zst"
    write_repeated(file, head, block * 1000, 500, b"")
    size, skipped, peak = measure("files", file)
    assert abs(size - characters) <= characters // 2**19  # line ends between pieces are dropped
    assert skipped == (characters == 0)
    assert peak < BOUND["files"]


@memory
@pytest.mark.parametrize("kind", ["files", "saved"])
def test_memory_does_not_grow_with_the_size_of_a_table(
    tmp_path: Path, measure: Measure, kind: str
) -> None:
    thousands = {"files": 75, "saved": 175}[kind]
    texts = pa.array([f"{n:08}" + "x" * 1992 for n in range(1000)])
    one = pa.table({"text": pa.chunked_array([texts] * thousands)})  # 2 MB each
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        if kind == "files":
            path = Path(folder) / "text.parquet"
            pq.write_table(one, path, row_group_size=thousands * 1000, use_dictionary=False)
        else:
            path = Path(folder)
            datasets.Dataset(one).save_to_disk(path)
        size, skipped, peak = measure(kind, path)
    assert (size, skipped) == (thousands * 2_000_000, 0)
    assert peak < BOUND[kind]
