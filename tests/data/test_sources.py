"""Reading: every format gives the same documents, and what is no text is named, never read."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
def test_every_format_packed_or_not_gives_the_documents_back(
    ending: str, documents: list[str], packed: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"it{ending}{packed}"
        file.write_bytes(PACK[packed](WRITE[ending](documents)))
        assert read(files(file)) == documents


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("ending", WRITE)
def test_every_format_can_be_packed_in_every_way(tmp_path: Path, ending: str, packed: str) -> None:
    file = tmp_path / f"it{ending}{packed}".upper()
    file.write_bytes(PACK[packed](WRITE[ending](DOCUMENTS)))
    assert read(files(file)) == DOCUMENTS


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
def test_packed_parts_one_after_another_are_one_file(tmp_path: Path, packed: str) -> None:
    file = tmp_path / f"it.txt{packed}"
    file.write_bytes(PACK[packed](b"one\n\ntw") + PACK[packed](b"o\n"))
    assert read(files(file)) == ["one", "two"]


def test_csv_is_what_pandas_reads(tmp_path: Path) -> None:
    file = tmp_path / "it.csv"
    content = 'id,text\r\n1,NA\r\n\r\n2,"a ""b"", c"\r\n3," d\n e"\r\n4,5\r\n'
    file.write_bytes(content.encode())
    expected = pandas.read_csv(file, dtype=str, keep_default_na=False)["text"].tolist()
    assert read(files(file)) == expected == ["NA", 'a "b", c', " d\n e", "5"]


def test_embedded_text_is_what_lies_in_the_package() -> None:
    folder = ROOT / "lab" / "text" / "corpus"
    rows = [
        json.loads(row)
        for file in sorted(folder.glob("*.xz"))
        for row in lzma.decompress(file.read_bytes()).decode().splitlines()
    ]
    assert read(EmbeddedText()) == [row["text"] for row in rows]


def test_saved_folder_gives_its_rows(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict({"id": [1, 2, 3], "text": DOCUMENTS})
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    splits = datasets.DatasetDict({"train": whole, "rest": whole.select([2, 0])})
    splits.save_to_disk(tmp_path / "many")
    assert read(SavedDataset(kind="saved", path=str(tmp_path / "one"))) == DOCUMENTS
    assert read(SavedDataset(kind="saved", path=str(tmp_path / "many"))) == DOCUMENTS
    rest = SavedDataset(kind="saved", path=str(tmp_path / "many"), split="rest")
    assert read(rest) == [DOCUMENTS[2], DOCUMENTS[0]]


def test_saved_folder_that_is_mapped_several_times_gives_each_row_once(
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
def test_documents_of_plain_text(
    tmp_path: Path, documents: Any, expected: list[str], end: str, mark: bytes
) -> None:
    file = tmp_path / "it.txt"
    file.write_bytes(mark + end.join(["one", "two", " ", "", "three", ""]).encode())
    assert read(files(file, documents=documents)) == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "shift_jis", "gb18030", "iso2022_jp"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv"])
def test_text_is_read_in_its_encoding(tmp_path: Path, encoding: str, ending: str) -> None:
    text = {"latin-1": "crème brûlée", "cp1251": "Привет"}.get(encoding, "日本")
    file = tmp_path / f"it{ending}"
    content = {".txt": text, ".jsonl": f'{{"text": "{text}"}}', ".csv": f'text\n"{text}"\n'}
    file.write_bytes(content[ending].encode(encoding))
    assert read(files(file, encoding=encoding)) == [text]


def parquet_of(cells: list[bytes | None]) -> bytes:
    """Return a file whose text column holds these bytes, UTF-8 or not."""
    plain = pa.array(cells, pa.binary())
    text = pa.StringArray.from_buffers(len(plain), *plain.buffers()[1:], plain.buffers()[0])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": text}), sink)
    return sink.getvalue().to_pybytes()


LONG = b"x" * (LONGEST + 1)
# file, its content, where it is bad, why, and which documents remain
BAD = {
    "not utf-8": ("a.txt", b"one\n\ncaf\xe9\n\ntwo", ":3", "wrong encoding (byte 0xE9)", "one two"),
    "not utf-8 in a packed file": (
        "a.txt.gz", gzip.compress(b"one\n\n\xff\xfe"), ":3", "wrong encoding (byte 0xFF)", "one",
    ),
    "null character": ("a.txt", b"one\n\nt\0wo", ":3", "control character U+0000", "one"),
    "escape": ("a.txt", b"one\n\n\x1b[0m", ":3", "control character U+001B", "one"),
    "delete": ("a.txt", b"\x7f\n\none", ":1", "control character U+007F", "one"),
    "C1": ("a.txt", "one\n\n\x85".encode(), ":3", "control character U+0085", "one"),
    "lost character": ("a.txt", "one\n\ncaf\ufffd".encode(), ":3", "not the text it was (U+FFFD)",
                       "one"),
    "line beyond the limit": ("a.txt", b"one\n\n" + LONG + b"\n\ntwo", ":3", "longer than 8 MiB",
                              "one two"),
    "not JSON": ("a.jsonl", b'{"text": "one"}\n{"text": \n{"text": "two"}', ":2", "not JSON (",
                 "one two"),
    "bottomless JSON": ("a.jsonl", b'{"text": "one"}\n' + b'{"a":' * 100_000, ":2", "not JSON (",
                        "one"),
    "number of JSON": ("a.jsonl", b'{"text": "one"}\n\n12', ":3", "not a JSON object", "one"),
    "object without the column": (
        "a.jsonl", b'{"text": "one"}\n{"body": 1, "id": 2}', ":2",
        "no column 'text' (it has 'body', 'id')", "one",
    ),
    "null of JSON": ("a.jsonl", b'{"text": null}\n{"text": "one"}', ":1", "not a text (null)",
                     "one"),
    "list of JSON": ("a.jsonl", b'{"text": ["a"]}\n{"text": "one"}', ":1", 'not a text (["a"])',
                     "one"),
    "half a surrogate pair": (
        "a.jsonl", rb'{"text": "\ud83d"}' + b'\n{"text": "one"}', ":1",
        "not the text it was (U+D83D)", "one",
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
                      "not as many cells as the header (1 for 2)", "one"),
    "too many cells": ("a.tsv", b"id\ttext\n1\tone\n2\ta\tb", ":3",
                       "not as many cells as the header (3 for 2)", "one"),
    "stray quote": ("a.csv", b'text\none\n"a"b\ntwo', ":3", "not CSV (", "one two"),
    "open quote": ("a.csv", b'text\none\n"two\nthree\nfour', ":3", "not CSV (", "one"),
    "open quote before much": (
        "a.csv", b'text\none\n"two\n' + b"abc\n" * (LONGEST // 4) + b"x\n", ":3",
        "longer than 8 MiB (the rest of the file is left out)", "one",
    ),
    "cell beyond the limit": (
        "a.csv", b"text\none\n" + LONG + b"\ntwo", ":3",
        "longer than 8 MiB (the rest of the file is left out)", "one",
    ),
    "null of Parquet": ("a.parquet", parquet_of([b"one", None, b"two"]), ":2", "not a text (null)",
                        "one two"),
    "Parquet not utf-8": ("a.parquet", parquet_of([b"one", b"\xe9", b"two"]), ":2",
                          "wrong encoding (byte 0xE9)", "one two"),
    "Parquet beyond the limit": ("a.parquet", parquet_of([b"one", LONG, b"two"]), ":2",
                                 "longer than 8 MiB", "one two"),
    "no Parquet": ("a.parquet", b"PAR1 said somebody", "", "damaged from some row", ""),
    "Parquet cut off": ("a.parquet", table(["one"])[:-9], "", "damaged from some row", ""),
    **{f"empty {ending}": (f"a{ending}", b"", "", "empty file", "")
       for ending in (".txt", ".jsonl", ".csv", ".tsv")},
    **{f"nothing in {ending}": (f"a{ending}", b"\n \r\n\n", "", "empty file", "")
       for ending in (".txt", ".jsonl")},
    "packed nothing": ("a.txt.bz2", bz2.compress(b""), "", "empty file", ""),
    "header alone": ("a.csv", b"id,text\n", "", "empty file", ""),
    "Parquet without rows": ("a.parquet", parquet_of([]), "", "empty file", ""),
    **{f"no {packed}": (f"a.txt{packed}", b"Not packed, but named so.", ":1", "damaged from here",
                        "") for packed in PACK if packed},
    **{f"Parquet in no {packed}": (f"a.parquet{packed}", b"Not packed", "", "damaged from here", "")
       for packed in PACK if packed},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_refused_by_file_and_row(tmp_path: Path, name: str) -> None:
    file, content, where, reason, _ = BAD[name]
    (tmp_path / file).write_bytes(content)
    assert refusal(files(tmp_path / file)).startswith(f"{tmp_path / file}{where}: {reason}")


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_skipped_and_counted(tmp_path: Path, name: str) -> None:
    file, content, where, reason, kept = BAD[name]
    (tmp_path / file).write_bytes(content)
    (tmp_path / "b.txt").write_text("the next file")
    reading = SourceReader(files(tmp_path / "*"), "skip")
    for _ in range(2):  # a second stream counts anew
        assert list(reading.documents()) == [*kept.split(), "the next file"]
        assert list(reading.skipped.values()) == [1]
        assert reading.examples[0].startswith(f"{tmp_path / file}{where}: {reason}")
    assert next(iter(reading.skipped)).startswith(reason.split(" (")[0])


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".parquet"])
def test_packed_file_that_was_cut_off_is_told_from_a_whole_one(
    tmp_path: Path, ending: str, packed: str
) -> None:
    documents = [f"{n} {os.urandom(9).hex()}" for n in range(30_000)]
    content = PACK[packed](WRITE[ending](documents))
    (tmp_path / f"a{ending}{packed}").write_bytes(content[: len(content) * 3 // 4])
    assert ": damaged from here to the file's end" in refusal(files(tmp_path / "*"))
    reading = SourceReader(files(tmp_path / "*"), "skip")
    read = list(reading.documents())
    assert read == documents[: len(read)]
    assert ending == ".parquet" or len(read) > 100
    assert reading.skipped == {"damaged from here to the file's end": 1}


def test_damaged_page_of_parquet_leaves_what_stands_before_it(tmp_path: Path) -> None:
    documents = [f"document {n:07}" * 50 for n in range(2000)]
    rows = pa.table({"text": documents})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=500, compression="zstd")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    begin = pq.read_metadata(tmp_path / "a.parquet").row_group(2).column(0).dictionary_page_offset
    content[begin : begin + 40] = b"?" * 40
    (tmp_path / "a.parquet").write_bytes(content)
    reading = SourceReader(files(tmp_path / "a.parquet"), "skip")
    read = list(reading.documents())
    assert read == documents[: len(read)]
    assert len(read) >= 900
    assert reading.skipped == {"damaged from some row to the file's end": 1}


def test_only_the_first_bad_rows_are_shown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0\n" * 100 + b"one\n" + b"\xff\n" * 10)
    reading = SourceReader(files(tmp_path / "a.txt"), "skip")
    assert list(reading.documents()) == ["one"]
    assert reading.skipped == {"control character U+0000": 100, "wrong encoding": 10}
    assert [line.split(":")[1] for line in reading.examples] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("bad_text", ["refuse", "skip"])
class TestAlwaysRefused:
    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
    def test_file_without_the_column(self, tmp_path: Path, ending: str, bad_text: str) -> None:
        file = tmp_path / f"it{ending}"
        file.write_bytes(WRITE[ending](DOCUMENTS))
        said = refusal(files(file, column="body"), bad_text)
        assert said == f"{file}: no column 'body'; it has 'id', 'text'"

    def test_saved_folder_without_the_column_or_split(self, tmp_path: Path, bad_text: str) -> None:
        rows = datasets.Dataset.from_dict({"id": [1], "text": ["one"]})
        datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path)
        it = SavedDataset(kind="saved", path=str(tmp_path), column="body")
        assert refusal(it, bad_text) == f"{tmp_path}: no column 'body'; it has 'id', 'text'"
        it = SavedDataset(kind="saved", path=str(tmp_path), split="test")
        assert refusal(it, bad_text).endswith("has no 'test'; it has 'train'")

    def test_column_of_numbers(self, tmp_path: Path, bad_text: str) -> None:
        (tmp_path / "it.parquet").write_bytes(table(["one"]))
        said = refusal(files(tmp_path / "it.parquet", column="id"), bad_text)
        assert said == f"{tmp_path / 'it.parquet'}: column 'id' holds int64, not text"

    @pytest.mark.parametrize("size", [1, 100_000])
    @pytest.mark.parametrize("indent", [None, 1])
    def test_array_of_json(
        self, tmp_path: Path, size: int, indent: int | None, bad_text: str
    ) -> None:
        rows = [{"text": "x" * 100}] * size
        (tmp_path / "it.json").write_text(json.dumps(rows, indent=indent))
        said = refusal(files(tmp_path / "it.json"), bad_text)
        assert "one JSON array" in said
        assert "jq -c '.[]'" in said

    def test_glob_that_matches_nothing(self, tmp_path: Path, bad_text: str) -> None:
        (tmp_path / "folder.txt").mkdir()
        for path in ("it.txt", "*.txt", "**/*.csv"):
            assert f"no file matches '{tmp_path / path}'" in refusal(
                files(tmp_path / path), bad_text
            )

    def test_folder(self, tmp_path: Path, bad_text: str) -> None:
        said = refusal(files(tmp_path), bad_text)
        assert f"{str(tmp_path)!r} is no file; for a folder's files take '{tmp_path}/*.txt'" in said

    @pytest.mark.parametrize("name", ["it.pdf", "it", "it.gz", "txt.zip", "it.txt.gz.gz"])
    def test_unknown_extension(self, tmp_path: Path, name: str, bad_text: str) -> None:
        (tmp_path / name).write_text("text")
        said = refusal(files(tmp_path / name), bad_text)
        assert ".txt .jsonl .json .csv .tsv .parquet, each also packed as .gz .bz2 .xz .zst" in said

    @pytest.mark.parametrize(
        "encoding", ["utf-16", "utf-32-le", "cp037", "rot13", "base64", "idna", "x", ""]
    )
    def test_encoding_without_lines(self, tmp_path: Path, encoding: str, bad_text: str) -> None:
        (tmp_path / "it.txt").write_text("text")
        said = refusal(files(tmp_path / "it.txt", encoding=encoding), bad_text)
        assert said.startswith("data.source.encoding: ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable_file(self, tmp_path: Path, bad_text: str) -> None:
        (tmp_path / "it.txt").write_text("text")
        (tmp_path / "it.txt").chmod(0)
        assert "Permission denied" in refusal(files(tmp_path / "it.txt"), bad_text)

    def test_folder_that_was_not_saved(self, tmp_path: Path, bad_text: str) -> None:
        for path in (tmp_path, tmp_path / "missing"):
            said = refusal(SavedDataset(kind="saved", path=str(path)), bad_text)
            assert said.startswith(f"data.source.path: {str(path)!r}: ")

    def test_hub_out_of_reach(self, bad_text: str) -> None:
        it = HubDataset(kind="hub", name="wikimedia/wikipedia", configuration="20231101.fi")
        assert "wikimedia/wikipedia 20231101.fi train at main on the hub" in refusal(it, bad_text)
        with pytest.raises(UserError, match="on the hub: Cannot reach"):
            source_identity(it)

    def test_folder_in_place_of_a_name_of_the_hub(self, tmp_path: Path, bad_text: str) -> None:
        assert "is a folder here" in refusal(HubDataset(kind="hub", name=str(tmp_path)), bad_text)


def test_files_come_in_the_order_of_their_names_each_once(
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


def test_identity_is_that_of_the_content(tmp_path: Path) -> None:
    first, second = tmp_path / "one" / "a.txt", tmp_path / "two" / "a.txt"
    for file in (first, second):
        file.parent.mkdir()
        file.write_text("text")
    os.utime(second, (1, 1))
    named = source_identity(files(first))
    assert json.loads(json.dumps(named)) == named == source_identity(files(second))
    second.write_text("tex7")
    assert source_identity(files(second)) != named
    assert source_identity(files(first.rename(tmp_path / "b.txt"))) != named
    assert source_identity(EmbeddedText()) == source_identity(EmbeddedText())


def test_identity_of_a_saved_folder_is_that_of_its_content(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["one"]})
    rows.save_to_disk(tmp_path / "a")
    it = SavedDataset(kind="saved", path=str(tmp_path / "a"))
    named = source_identity(it)
    for file in (tmp_path / "a").iterdir():
        os.utime(file, (1, 1))
    assert json.loads(json.dumps(named)) == named == source_identity(it)
    rows.map(lambda row: {"text": row["text"] + "!"}).save_to_disk(tmp_path / "b")
    assert source_identity(SavedDataset(kind="saved", path=str(tmp_path / "b"))) != named
    with pytest.raises(UserError, match="no folder"):
        source_identity(SavedDataset(kind="saved", path=str(tmp_path / "missing")))


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".parquet"])
def test_long_document_comes_in_pieces_that_end_with_a_line(tmp_path: Path, ending: str) -> None:
    lines = [f"line {n} " + "x" * (n % 500) for n in range(20_000)]
    file = tmp_path / f"it{ending}"
    file.write_bytes(WRITE[ending](["\n".join(lines)]))
    pieces = read(files(file))
    assert "\n".join(pieces).split("\n") == lines
    assert len(pieces) == 5
    assert all(PIECE * 0.9 < len(piece) <= PIECE for piece in pieces[:-1])


READ_HUB = """
import json, sys
from lab.errors import UserError
from lab.data.sources import Reading, identity
from lab.config.data import Hub

for asked in json.loads(sys.argv[1]):
    hub = Hub(kind="hub", **asked)
    try:
        said = [identity(hub), list(Reading(hub, "refuse").documents())]
    except UserError as error:
        said = str(error)
    print(json.dumps(said))
"""


def read_hub(endpoint: str, home: Path, *asked: dict[str, str]) -> list[Any]:
    """Return [identity, documents] or the refusal of each, in a process that is not offline."""
    offline = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", READ_HUB, json.dumps(asked)],
        check=True, capture_output=True, text=True, env=os.environ | offline,
    )  # fmt: skip
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub_gives_a_data_set_at_its_commit(tmp_path: Path) -> None:
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
        said = read_hub(
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
    assert said[0] == [["owner/tables", "", "train", COMMIT], DOCUMENTS]
    assert said[1] == [["owner/lines", "", "train", COMMIT], DOCUMENTS]
    assert said[2].startswith("owner/bad:2: not a text (null)")
    reasons = [
        "scripts are no longer supported", "Bad split: test", "'20231101.fi' not found",
        "no column 'body'; it has 'id', 'text'", "no column 'body'; it has 'id', 'text'",
        "404", "404",
    ]  # fmt: skip
    for refused, reason in zip(said[3:], reasons, strict=True):
        assert reason in refused
        assert "\n" not in refused
    assert not (tmp_path / "ran").exists()
    assert all("/datasets/owner/" in path for path in hub.asked)  # and nothing else was sent


memory = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
BOUND = 300  # MB above what the imports take
MEASURE = """
import re, sys
import datasets, pyarrow.parquet
from lab.data.sources import Reading
from lab.config.data import Files, Saved

def peak():  # ru_maxrss begins with that of the process that started this one
    with open("/proc/self/status") as status:
        return int(re.search("VmHWM:\\s+([0-9]+) kB", status.read())[1]) // 1024

kind, path = sys.argv[1:]
if kind == "saved":
    source = Saved(kind="saved", path=path)
else:
    source = Files(kind="files", paths=(path,), documents="file")
before, reading = peak(), Reading(source, "skip")
size = sum(map(len, reading.documents()))
print(size, sum(reading.skipped.values()), peak() - before)
"""


def measured(kind: str, path: Path) -> tuple[int, int, int]:
    """Return characters read, rows skipped and the peak of memory in MB above the imports."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, str(path)], check=True, capture_output=True, text=True
    )
    size, skipped, peak = map(int, done.stdout.split())
    return size, skipped, peak


def repeated(file: Path, head: bytes, block: bytes, times: int, tail: bytes) -> None:
    with zstandard.open(file, "wb") as packed:
        packed.write(head)
        for _ in range(times):
            packed.write(block)
        packed.write(tail)


@memory
@pytest.mark.parametrize(
    ("name", "head", "tail", "kept"),
    [
        ("it.txt", b"one\n", b"\none\n", len("one\none")),
        ("it.jsonl", b'{"text": "', b'"}\n{"text": "one"}\n', len("one")),
        ("it.csv", b"text\none\n", b"\none\n", len("one")),
    ],
)
def test_line_without_end_takes_no_memory(
    tmp_path: Path, name: str, head: bytes, tail: bytes, kept: int
) -> None:
    file = tmp_path / f"{name}.zst"
    repeated(file, head, b"x" * 2**20, 1000, tail)
    size, skipped, peak = measured("files", file)
    assert (size, skipped) == (kept, 1)
    assert peak < BOUND


@memory
@pytest.mark.parametrize(
    ("name", "head", "block", "kept"),
    [
        ("it.txt", b"", b"A line of a document. ".ljust(399, b".") + b"\n", 500_000 * 400),
        ("it.csv", b'text\n"', b"A line after a quote. ".ljust(399, b".") + b"\n", 0),
    ],
)
def test_document_without_end_takes_no_memory(
    tmp_path: Path, name: str, head: bytes, block: bytes, kept: int
) -> None:
    file = tmp_path / f"{name}.zst"
    repeated(file, head, block * 1000, 500, b"")
    size, skipped, peak = measured("files", file)
    assert abs(size - kept) <= kept // 2**19  # what separates pieces is in none
    assert skipped == (kept == 0)
    assert peak < BOUND


@memory
@pytest.mark.parametrize("kind", ["files", "saved"])
def test_large_tables_take_no_memory(tmp_path: Path, kind: str) -> None:
    texts = pa.array([f"{n:08}" + "x" * 1992 for n in range(1000)])
    one = pa.table({"text": pa.chunked_array([texts] * 175)})  # 350 MB
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        if kind == "files":
            path = Path(folder) / "it.parquet"
            pq.write_table(one, path, row_group_size=175_000, use_dictionary=False)
        else:
            path = Path(folder)
            datasets.Dataset(one).save_to_disk(path)
        size, skipped, peak = measured(kind, path)
    assert (size, skipped) == (350_000_000, 0)
    assert peak < BOUND
