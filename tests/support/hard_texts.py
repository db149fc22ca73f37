"""Made-up texts in scripts and formats that tokenizers written for English lose or merge."""

import random
from collections.abc import Sequence

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_THAI = "ฉัน ไป ตลาด ซื้อ ผลไม้ และ ผัก ที่ สด มาก วันนี้ อากาศ ดี เรา เดิน เล่น ริม แม่น้ำ แล้ว กลับ บ้าน"
THAI = tuple(_THAI.split())
HINDI = tuple(
    letter + sign
    for letter in "कखगघचजटडतदनपबमयरलवसह"
    for sign in ["", "ा", "ि", "ी", "ु", "ू", "े", "ो", "ं", "्"]
)
PERSIAN = tuple(
    stem + ending
    for stem in ["کتاب", "خانه", "دوست", "شهر", "سال"]
    for ending in ["\u200cها", "\u200cام", "\u200cتر", "ی", ""]
)
HANGUL = tuple(chr(number) for number in range(0xAC00, 0xD7A3, 60))
LATIN = tuple(a + b for a in "bcdfghklmnprstvz" for b in "aeiou")


def words(syllables: Sequence[str], count: int, seed: int = 7) -> list[str]:
    """Return `count` distinct words of one to three syllables, sorted."""
    chance = random.Random(seed)  # noqa: S311
    made = {"".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(2 * count)}
    return sorted(made)[:count]


def documents(vocabulary: Sequence[str], count: int = 120, length: int = 40) -> list[str]:
    """Return `count` documents of `length` random words."""
    chance = random.Random(8)  # noqa: S311
    return [" ".join(chance.choices(vocabulary, k=length)) for _ in range(count)]


def proteins(count: int = 120) -> list[str]:
    """Return sequences of 150 to 500 amino acids."""
    chance = random.Random(9)  # noqa: S311
    return ["".join(chance.choices(AMINO_ACIDS, k=chance.randint(150, 500))) for _ in range(count)]


def thai(count: int = 80) -> list[str]:
    """Return documents in which most runs without spaces have more than 100 characters."""
    chance = random.Random(10)  # noqa: S311
    return [
        " ".join("".join(chance.choices(THAI, k=chance.choice([5, 30, 60]))) for _ in range(8))
        for _ in range(count)
    ]


def long_word(length: int = 2_000_000) -> str:
    """Return one word of random letters and digits."""
    chance = random.Random(11)  # noqa: S311
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "".join(chance.choices(letters, k=length))
