"""Random texts in several scripts: Zipf-distributed words of syllables, and Chinese characters."""

import random
from functools import cache
from itertools import accumulate, product

ENGLISH = tuple(a + b for a, b in product("bdfghlmnprst", "aeiou"))
FRENCH = tuple(a + b for a, b in product("bdflmnprst", ["a", "e", "é", "ou", "è", "ï"]))
RUSSIAN = tuple(a + b for a, b in product("бвгдзклмнпрстй", "аеиоуы"))
# The 3,755 common characters of level 1 of GB 2312.
CHINESE = [
    bytes([row, cell]).decode("gb2312")
    for row in range(0xB0, 0xD7)
    for cell in range(0xA1, 0xFF if row < 0xD6 else 0xFA)
]


@cache
def sentences(syllables: tuple[str, ...], count: int, seed: int = 0) -> tuple[str, ...]:
    """Return `count` random sentences of six to eighteen words."""
    chance = random.Random(seed)  # noqa: S311
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(3_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    return tuple(
        " ".join(chance.choices(words, cum_weights=weights, k=chance.randint(6, 18))).capitalize()
        + "."
        for _ in range(count)
    )


@cache
def chinese(count: int, seed: int = 0) -> tuple[str, ...]:
    """Return `count` random sentences of 12 to 40 characters without spaces."""
    chance = random.Random(seed)  # noqa: S311
    weights = list(accumulate(1 / rank for rank in range(1, 1_501)))
    characters = CHINESE[:1_500]
    return tuple(
        "".join(chance.choices(characters, cum_weights=weights, k=chance.randint(12, 40))) + "。"
        for _ in range(count)
    )
