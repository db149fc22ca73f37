"""Measure a tokenizer on a sample: the vocabulary that a text yields, its tokens, its windows."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from lab.config.data import LEAST_VOCAB, TrainedTokenizer
from lab.data import packing, tokenizers
from lab.data.vocabulary import SPECIAL, UNK
from lab.errors import UserError

# The sample is not the training text: documents are held out of that, and a vocabulary that it
# does not yield is refused. So more is asked of the sample than is asked of the text.
_MARGIN = 1.25
_ENCODED = 2**20  # characters of the sample that are counted as tokens
_SPARE = 1.5  # tokens of the vocabulary for each one that the alphabet takes
_ROUND = 256
_MOST = 16_384
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True, kw_only=True)
class TokenSurvey:
    """A sample as tokens.

    Attributes:
        vocab: tokens of the vocabulary, as many as asked for or as the text yields.
        asked: how many were asked for.
        alphabet: different characters that make up 99.95 % of the sample.
        per_character: tokens of a character.
        unknown: share of the tokens that are unknown.
        sizes: tokens of each document of the sample.
        tokenizer: what was learned from the sample.
    """

    vocab: int
    asked: int
    alphabet: int
    per_character: float
    unknown: float
    sizes: tuple[int, ...]
    tokenizer: Tokenizer = field(compare=False, repr=False)

    def quantile(self, share: float) -> int:
        """Return the tokens that this share of the documents has at most."""
        return int(np.quantile(self.sizes, share))

    def positions(self, length: int) -> float:
        """Return positions of windows of `length` that a token of the sample takes up."""
        windows = sum(packing.count_full_windows(size, length) for size in self.sizes)
        return length * windows / max(1, sum(self.sizes))

    def kept(self, length: int) -> float:
        """Return the share of the tokens that windows of `length` hold."""
        held = (
            min(size, (length - 2) * packing.count_full_windows(size, length))
            for size in self.sizes
        )
        return sum(held) / max(1, sum(self.sizes))


def survey_tokens(settings: TrainedTokenizer, vocab: int, sample: Sequence[str]) -> TokenSurvey:
    """Train a tokenizer on a sample and count.

    Args:
        settings: of the tokenizer.
        vocab: wanted; more where the alphabet calls for it, less where the sample yields less.
        sample: documents.

    Raises:
        UserError: the sample yields no vocabulary that the lab takes.
    """
    alphabet = tokenizers.frequent_characters(settings, lambda: sample)
    asked = min(_MOST, max(vocab, _called_for(alphabet, ideographs=settings.ideographs)))
    learned = tokenizers.train_wordpiece(settings, round(_MARGIN * asked), lambda: sample)
    size = learned.get_vocab_size()
    kept = min(asked, int(size / _MARGIN))
    if kept < LEAST_VOCAB:
        raise UserError(
            f"the text yields a vocabulary of {kept} tokens, and it takes {LEAST_VOCAB}: "
            f"{sum(map(len, sample)):,} characters are too few, or too much alike"
        )
    learned = tokenizers.train_wordpiece(settings, kept, lambda: sample)
    encoded = learned.encode_batch(_first(sample), add_special_tokens=False)
    sizes = tuple(len(one.ids) for one in encoded)
    return TokenSurvey(
        vocab=kept,
        asked=asked,
        alphabet=len(alphabet),
        per_character=sum(sizes) / max(1, sum(map(len, _first(sample)))),
        unknown=sum(one.tokens.count(SPECIAL[UNK]) for one in encoded) / max(1, sum(sizes)),
        sizes=sizes,
        tokenizer=learned,
    )


def _called_for(alphabet: Sequence[str], *, ideographs: bool) -> int:
    """Return the vocabulary for an alphabet: a letter is two tokens, at a word's start and within.

    An ideograph that is a word is one token.
    """
    whole = sum(bool(ideographs and _IDEOGRAPH.match(character)) for character in alphabet)
    tokens = whole + 2 * (len(alphabet) - whole)
    return math.ceil(_SPARE * tokens / _ROUND) * _ROUND


def _first(sample: Sequence[str]) -> list[str]:
    """Return evenly spread documents, `_ENCODED` characters of them."""
    step = max(1, -(-sum(map(len, sample)) // _ENCODED))
    return list(sample[::step])
