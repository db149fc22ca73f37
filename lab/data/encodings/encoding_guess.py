"""Recognize the encoding of a file from its first bytes.

UTF-8, UTF-16, UTF-32 with a byte order mark, and the Western European encodings Latin-1 and
Windows-1252 are recognized. All other encodings are refused: byte counts do not separate the many
one-byte encodings reliably.
"""

import codecs
import re
from dataclasses import dataclass

from lab.errors import UserError

# UTF-32 is tested first: its little-endian mark begins with the mark of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DAMAGED = 0.01  # largest number of invalid bytes per non-ASCII character of UTF-8
# UTF-16 has zero bytes: half of all bytes in Western text, and those of spaces in other scripts.
# All of them are the first bytes of a character, or all are the second.
_NULS, _ONE_SIDED = 0.01, 0.9  # share of zero bytes in the sample; share of them on one side
# In Western European text, except Icelandic and Vietnamese, at most an eighth of the letters are
# accented. Cyrillic or Greek in a one-byte encoding has hardly any ASCII letters.
_WESTERN = 0.3  # largest share of accented letters
_EXAMPLES = 3  # words that the reason quotes


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A recognized encoding.

    Attributes:
        name: name of the codec, as `lab.data.text_files` takes it.
        because: one sentence with the figures by which the encoding was recognized.
        damaged: whether the sample has bytes that are invalid in this encoding.
    """

    name: str
    because: str
    damaged: bool = False


def guess_encoding(file: str, sample: bytes) -> Encoding:
    """Return the encoding of a file.

    Args:
        file: name of the file, for error messages.
        sample: the first bytes of the file; the last character may be incomplete.

    Raises:
        UserError: the encoding is none of these; the message contains the command that converts
            the file.
    """
    for mark, name in _MARKS.items():
        if sample.startswith(mark):
            return Encoding(name=name, because=f"It begins with the byte order mark of {name}.")
    zeros, second = sample.count(0), sample[1::2].count(0)
    if zeros > _NULS * len(sample):
        reason = f"{zeros / len(sample):.0%} of its bytes are zero"
        if max(second, zeros - second) > _ONE_SIDED * zeros:
            name = "utf-16le" if second > zeros - second else "utf-16be"
            return Encoding(name=name, because=f"{reason}, all on one side of two.")
        raise _refusal(file, f"{reason}: it is not text, or text in an encoding such as UTF-32")
    text = sample.decode("utf-8", errors="surrogateescape")
    invalid = _count_invalid(text, sample)
    beyond = sum(map(len, re.findall("[^\x00-\x7f\udc80-\udcff]+", text)))
    if not invalid:
        marked = " after a byte order mark" if sample.startswith(codecs.BOM_UTF8) else ""
        return Encoding(name="utf-8", because=f"All bytes that were read are valid UTF-8{marked}.")
    if invalid <= max(1, _DAMAGED * beyond) and beyond > invalid:
        return Encoding(
            name="utf-8",
            because=f"UTF-8 with {invalid:,} invalid bytes and {beyond:,} non-ASCII characters.",
            damaged=True,
        )
    return _one_byte(file, sample, invalid)


def _count_invalid(text: str, sample: bytes) -> int:
    """Return the number of bytes that are not UTF-8, except a character that the sample cuts."""
    cut = len(re.search("[\udc80-\udcff]{0,3}$", text)[0])  # type: ignore[index]
    if cut:
        tail = sample[-cut:]
        try:
            codecs.getincrementaldecoder("utf-8")().decode(tail)
        except UnicodeDecodeError:
            cut = 0
    return len(re.findall("[\udc80-\udcff]", text)) - cut


def _one_byte(file: str, sample: bytes, invalid: int) -> Encoding:
    """Return Latin-1, or Windows-1252 if the sample has the bytes 0x80 to 0x9F.

    These bytes are control characters in Latin-1.
    """
    name = "cp1252" if re.search(b"[\x80-\x9f]", sample) else "latin-1"
    try:
        text = sample.decode(name)
    except UnicodeDecodeError as error:
        byte = sample[error.start]
        raise _refusal(file, f"byte 0x{byte:02X} is neither UTF-8 nor Windows-1252") from None
    letters = re.findall(r"[^\W\d_]", text)
    beyond = sum(letter > "\x7f" for letter in letters)
    share = beyond / max(1, len(letters))
    if not beyond or share > _WESTERN:
        raise _refusal(
            file, f"not UTF-8, and {share:.0%} of its letters would be accented ones in {name}"
        )
    words = dict.fromkeys(re.findall(r"[^\W\d_]*[\xc0-\xff][^\W\d_]*", text))
    shown = ", ".join(list(words)[:_EXAMPLES])
    return Encoding(
        name=name,
        because=f"{invalid:,} bytes are not UTF-8; as {name} they give words such as {shown}. "
        f"If these look wrong, replace it by the encoding that the file was saved in.",
    )


def _refusal(file: str, reason: str, name: str = "ENCODING") -> UserError:
    return UserError(
        f"{file}: {reason}; convert it: iconv -f {name} -t utf-8 {file!r} > converted.txt".replace(
            "'", '"'
        )
    )


def describe_encoding(file: str, sample: bytes, encoding: str) -> str | None:
    """Return advice on a file with text that is invalid in an encoding; None without any.

    Args:
        file: name of the file.
        sample: the first bytes of the file.
        encoding: encoding in which the file was read.
    """
    try:
        guess = guess_encoding(file, sample)
    except UserError as error:
        return str(error).removeprefix(f"{file}: ")
    if guess.damaged or codecs.lookup(guess.name).name == codecs.lookup(encoding).name:
        return None
    return (
        f"set `base.data.source.encoding: {guess.name}` "
        f"({guess.because[0].lower()}{guess.because[1:].partition('. ')[0].removesuffix('.')})"
    )
