"""Encodings are recognized from the first bytes of a file."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from languages import ENGLISH, FRENCH, RUSSIAN, chinese, sentences

from lab.data.encodings.encoding_guess import guess_encoding
from lab.errors import UserError

FRENCH_TEXT = "\n".join(sentences(FRENCH, 50))
TEXTS = {
    "english": "\n".join(sentences(ENGLISH, 50)),
    "french": FRENCH_TEXT,
    "russian": "\n".join(sentences(RUSSIAN, 50)),
    "chinese": "\n".join(chinese(50)),
    "emoji": "smile \N{GRINNING FACE} " * 50,
}


@pytest.mark.parametrize("name", TEXTS)
def test_utf_8_is_recognized_if_the_sample_cuts_a_character(name: str) -> None:
    whole = TEXTS[name].encode()
    for end in range(100, 140):
        assert guess_encoding("a.txt", whole[:end]).name == "utf-8"
        assert not guess_encoding("a.txt", codecs.BOM_UTF8 + whole[:end]).damaged


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("latin-1", FRENCH_TEXT, "latin-1"),
        ("cp1252", FRENCH_TEXT, "latin-1"),  # the same bytes
        ("cp1252", f"“{FRENCH_TEXT}”", "cp1252"),
    ],
)
def test_western_one_byte_encodings_decode_to_the_same_text(
    encoding: str, text: str, expected: str
) -> None:
    sample = text.encode(encoding)
    guessed = guess_encoding("a.txt", sample)
    assert guessed.name == expected
    assert sample.decode(guessed.name) == text


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "gbk", "utf-32-le"])
def test_other_encodings_are_refused_with_a_conversion_command(encoding: str) -> None:
    text = TEXTS["chinese" if encoding == "gbk" else "russian"]
    with pytest.raises(UserError, match=r"iconv -f [\w-]+ -t utf-8 ") as refused:
        guess_encoding("a.txt", text.encode(encoding))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["english", "russian"])
def test_encodings_of_two_and_four_bytes_decode_to_the_same_text(encoding: str, name: str) -> None:
    sample = TEXTS[name].encode(encoding)
    guessed = guess_encoding("a.txt", sample)
    assert sample.decode(guessed.name) == TEXTS[name]


@pytest.mark.reported
@given(st.binary(max_size=200))
def test_any_bytes_are_recognized_or_refused_in_one_line(sample: bytes) -> None:
    try:
        result = guess_encoding("a.txt", sample).name
    except UserError as error:
        result = str(error)
    known = {"utf-8", "latin-1", "cp1252", "utf-16", "utf-16le", "utf-16be", "utf-32"}
    assert result in known or "iconv" in result
    assert "\n" not in result
