"""Train a tokenizer on a sample, and measure its vocabulary, tokens and windows."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from lab.config.data import LEAST_VOCAB, LearnedTokenizer, TrainedTokenizer
from lab.data import packing
from lab.data.tokenization import training
from lab.data.tokenization.marks import resolve_marks
from lab.data.vocabulary import SPECIAL, UNK
from lab.errors import UserError

# The tokenizer of a sweep is trained on other documents than the sample, and a text that yields a
# smaller vocabulary than requested is refused. The sample must therefore yield a larger one.
_MARGIN = 1.25
_ENCODED = 2**20  # characters of the sample that are encoded
_SPARE = 1.5  # tokens of the vocabulary per token that the alphabet needs
_ROUND = 256  # vocabularies for an alphabet are multiples of this
_MAX_VOCAB = 16_384
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True, kw_only=True)
class TokenSurvey:
    """Figures of a sample as tokens.

    Attributes:
        vocab: size of the vocabulary; less than `requested` if the sample yields less.
        requested: requested size of the vocabulary, enlarged for a large alphabet.
        alphabet: number of distinct characters that make up 99.95 % of the sample; 256 for bytes.
        per_character: mean number of tokens per character.
        unknown: share of unknown tokens.
        sizes: number of tokens of each document of the sample.
        tokenizer: tokenizer trained on the sample.
    """

    vocab: int
    requested: int
    alphabet: int
    per_character: float
    unknown: float
    sizes: tuple[int, ...]
    tokenizer: Tokenizer = field(compare=False, repr=False)

    def quantile(self, share: float) -> int:
        """Return the number of tokens that a share of the documents does not exceed."""
        return int(np.quantile(self.sizes, share))

    def positions_per_token(self, length: int) -> float:
        """Return the positions of windows of `length` per token of the sample."""
        windows = sum(packing.count_full_windows(size, length) for size in self.sizes)
        return length * windows / max(1, sum(self.sizes))

    def share_in_windows(self, length: int) -> float:
        """Return the share of the tokens that windows of `length` contain."""
        contained = (
            min(size, (length - 2) * packing.count_full_windows(size, length))
            for size in self.sizes
        )
        return sum(contained) / max(1, sum(self.sizes))


def survey_tokens(settings: LearnedTokenizer, vocab: int, sample: Sequence[str]) -> TokenSurvey:
    """Train a tokenizer on a sample and return the figures of the encoded sample.

    Args:
        settings: settings of the tokenizer.
        vocab: requested size of the vocabulary; it is increased for a large alphabet, and reduced
            if the sample yields less.
        sample: documents.

    Raises:
        UserError: the sample yields less than the smallest vocabulary, `LEAST_VOCAB`.
    """
    alphabet, needed = 256, LEAST_VOCAB  # bytes
    if isinstance(settings, TrainedTokenizer):
        settings = resolve_marks(settings, lambda: sample)
        frequent = training.frequent_characters(settings, lambda: sample)
        alphabet = len(frequent)
        needed = _vocab_of_alphabet(frequent, ideographs=settings.ideographs)
    requested = min(_MAX_VOCAB, max(vocab, needed))
    largest = training.train_tokenizer(settings, round(_MARGIN * requested), lambda: sample)
    size = min(requested, int(largest.get_vocab_size() / _MARGIN))
    if size < LEAST_VOCAB:
        raise UserError(
            f"the text yields a vocabulary of {size} tokens, and the lab needs {LEAST_VOCAB}: "
            f"{sum(map(len, sample)):,} characters are too few, or too repetitive"
        )
    tokenizer = training.train_tokenizer(settings, size, lambda: sample)
    documents = _spaced_documents(sample)
    encoded = tokenizer.encode_batch(documents, add_special_tokens=False)
    sizes = tuple(len(document.ids) for document in encoded)
    unknown = sum(document.tokens.count(SPECIAL[UNK]) for document in encoded)
    return TokenSurvey(
        vocab=size,
        requested=requested,
        alphabet=alphabet,
        per_character=sum(sizes) / max(1, sum(map(len, documents))),
        unknown=unknown / max(1, sum(sizes)),
        sizes=sizes,
        tokenizer=tokenizer,
    )


def _vocab_of_alphabet(alphabet: Sequence[str], *, ideographs: bool) -> int:
    """Return the size of a vocabulary that fits an alphabet.

    A letter needs two tokens, one for the start and one for the inside of a word. An ideograph
    needs one token if each ideograph is a word.

    Args:
        alphabet: distinct characters.
        ideographs: whether the tokenizer makes each ideograph a word.
    """
    whole = sum(bool(ideographs and _IDEOGRAPH.match(character)) for character in alphabet)
    tokens = whole + 2 * (len(alphabet) - whole)
    return math.ceil(_SPARE * tokens / _ROUND) * _ROUND


def _spaced_documents(sample: Sequence[str]) -> list[str]:
    """Return evenly spaced documents of about `_ENCODED` characters in total."""
    step = max(1, -(-sum(map(len, sample)) // _ENCODED))
    return list(sample[::step])
