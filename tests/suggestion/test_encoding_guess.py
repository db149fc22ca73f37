"""Encodings: recognised from bytes, wherever the sample ends."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from languages import ENGLISH, FRENCH, RUSSIAN, chinese, sentences

from lab.errors import UserError
from lab.suggestion.encoding_guess import guess_encoding

FRENCH_TEXT = "\n".join(sentences(FRENCH, 50))
TEXTS = {
    "english": "\n".join(sentences(ENGLISH, 50)),
    "french": FRENCH_TEXT,
    "russian": "\n".join(sentences(RUSSIAN, 50)),
    "chinese": "\n".join(chinese(50)),
    "emoji": "smile \N{GRINNING FACE} " * 50,
}


@pytest.mark.parametrize("name", TEXTS)
def test_utf_8_is_recognised_wherever_the_sample_ends(name: str) -> None:
    whole = TEXTS[name].encode()
    for end in range(100, 140):
        assert guess_encoding("a.txt", whole[:end]).name == "utf-8"
        assert not guess_encoding("a.txt", codecs.BOM_UTF8 + whole[:end]).damaged


@pytest.mark.parametrize(
    ("encoding", "text", "found"),
    [
        ("latin-1", FRENCH_TEXT, "latin-1"),
        ("cp1252", FRENCH_TEXT, "latin-1"),  # the same bytes
        ("cp1252", f"“{FRENCH_TEXT}”", "cp1252"),
    ],
)
def test_western_one_byte_encodings_give_the_text_back(
    encoding: str, text: str, found: str
) -> None:
    sample = text.encode(encoding)
    guessed = guess_encoding("a.txt", sample)
    assert guessed.name == found
    assert sample.decode(guessed.name) == text


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "gbk", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused_with_the_command_that_converts(encoding: str) -> None:
    text = TEXTS["chinese" if encoding == "gbk" else "russian"]
    with pytest.raises(UserError, match=r"iconv -f [\w-]+ -t utf-8 ") as refused:
        guess_encoding("a.txt", text.encode(encoding))
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_guessed_or_refused_in_one_line(sample: bytes) -> None:
    try:
        said = guess_encoding("a.txt", sample).name
    except UserError as error:
        said = str(error)
    assert said in {"utf-8", "latin-1", "cp1252"} or "iconv" in said
    assert "\n" not in said
