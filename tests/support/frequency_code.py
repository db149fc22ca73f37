"""Code of hidden words by the frequencies of words and letters, by counting in Python."""

import math
from collections import Counter

from lab.evaluation.hidden_words import HiddenWords


def code_of_frequencies(read: HiddenWords, classes: int) -> float:
    """Return the nats per character of the word frequencies of the other half, by hand."""
    total = 0.0
    halves = read.half_N.tolist()
    for scored in (True, False):
        fitted = [w for w, half in zip(read.words, halves, strict=True) if half != scored]
        ranked = sorted(Counter(fitted).items(), key=lambda item: (-item[1], item[0]))
        frequent = dict(ranked[: classes - 1])
        rare = [word for word in fitted if word not in frequent]
        letters = Counter("".join(rare))
        symbols = letters.total() + len(rare) + len(letters) + 2
        for word in (w for w, half in zip(read.words, halves, strict=True) if half == scored):
            count = frequent.get(word, len(rare))
            total -= math.log((count + 0.5) / (len(fitted) + 0.5 * (len(frequent) + 1)))
            if word not in frequent:
                total -= sum(math.log((letters[letter] + 1) / symbols) for letter in word)
                total -= math.log((len(rare) + 1) / symbols)
    return total / sum(map(len, read.words))
