"""Train the tokenizer of a text, deterministically.

`tokenizers` numbers the alphabet in the order of a hash map and breaks ties between merges by these
numbers, so a vocabulary would differ from run to run. Here the alphabet is numbered in sorted
order. No word is longer than a limit (`long_words`), so the time of training grows in proportion
to the text.
"""

import json
from collections import Counter
from typing import Any, assert_never

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from lab.config.data import ByteLevelTokenizer, LearnedTokenizer, TrainedTokenizer, WordPieceFile
from lab.data.tokenization import normalization
from lab.data.tokenization.long_words import Texts, cut_runs
from lab.data.tokenization.marks import resolve_marks
from lab.data.vocabulary import SPECIAL, UNK

_COVERAGE = 0.9995  # share of the text's characters in the alphabet; rarer characters are [UNK]
_LONGEST_RUN = 512  # characters without white space that a byte-level tokenizer learns from


def train_tokenizer(settings: LearnedTokenizer, vocab: int, texts: Texts) -> Tokenizer:
    """Train a tokenizer of at most `vocab` tokens.

    Args:
        settings: kind and options of the tokenizer.
        vocab: largest number of tokens.
        texts: function that returns the texts to train on, the same in every call.
    """
    match settings:
        case TrainedTokenizer():
            return train_wordpiece(resolve_marks(settings, texts), vocab, texts)
        case ByteLevelTokenizer():
            return train_byte_level(settings, vocab, texts)
        case _:
            assert_never(settings)


def train_byte_level(settings: ByteLevelTokenizer, vocab: int, texts: Texts) -> Tokenizer:
    """Train a byte-level BPE tokenizer; all 256 bytes are tokens.

    Args:
        settings: normalization.
        vocab: largest number of tokens.
        texts: function that returns the texts to train on.
    """
    tokenizer = _as_byte_level(settings, models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[*SPECIAL, *sorted(ByteLevel.alphabet())],
        show_progress=False,
    )
    tokenizer.train_from_iterator(cut_runs(texts, _LONGEST_RUN), trainer)
    # A tokenizer in which the bytes are ordinary tokens.
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    return _as_byte_level(settings, models.BPE(vocab=learned["vocab"], merges=merges))


def _as_byte_level(settings: ByteLevelTokenizer, model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalization.byte_level_normalizer(settings)
    tokenizer.pre_tokenizer = normalization.byte_level_splitter()
    return tokenizer


def train_wordpiece(settings: TrainedTokenizer, vocab: int, texts: Texts) -> Tokenizer:
    """Train a WordPiece tokenizer with BERT's splitting of words.

    Training runs twice: the first run finds the tokens of the alphabet, the second gets them in
    sorted order.

    The alphabet consists of the most frequent characters, enough to cover `_COVERAGE` of the text,
    but at first at most half of the vocabulary. If the merges leave room, for example when every
    character is a word, the alphabet is enlarged.

    Args:
        settings: normalization and splitting.
        vocab: largest number of tokens.
        texts: function that returns the texts to train on, the same in every call.
    """
    characters = frequent_characters(settings, texts)
    most = (
        vocab - len(SPECIAL)
    ) // 2  # two tokens per character: at the start of a word, and inside
    pieces = _learn_pieces(settings, texts, vocab, characters[:most])
    while len(pieces) < vocab and most < len(characters):
        most += max(1, (vocab - len(pieces)) // 2)
        more = _learn_pieces(settings, texts, vocab, characters[:most])
        if len(more) > vocab:
            break
        pieces = more
    return as_bert(settings, pieces)


def _learn_pieces(
    settings: TrainedTokenizer, texts: Texts, vocab: int, characters: list[str]
) -> dict[str, int]:
    """Return the pieces trained with an alphabet, by number.

    There are more than `vocab` only if the alphabet alone has more.
    """
    alphabet = sorted(set(_train(settings, texts, 0, SPECIAL, characters)) - set(SPECIAL))
    return _train(settings, texts, vocab, (*SPECIAL, *alphabet), characters)


def _train(
    settings: TrainedTokenizer,
    texts: Texts,
    vocab: int,
    first: tuple[str, ...],
    characters: list[str],
) -> dict[str, int]:
    tokenizer = as_bert(settings, None)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab,
        special_tokens=list(first),
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        normalization.word_limit(settings).without_long_words(texts), trainer
    )
    pieces: dict[str, int] = tokenizer.get_vocab()
    return pieces


def frequent_characters(settings: TrainedTokenizer, texts: Texts) -> list[str]:
    """Return the most frequent characters that cover `_COVERAGE` of the text, in that order."""
    normalizer = normalization.bert_normalizer(settings)
    counts: Counter[str] = Counter()
    for text in normalization.word_limit(settings).without_long_words(texts):
        counts.update(normalizer.normalize_str(text))
    covering: list[str] = []
    remaining = _COVERAGE * sum(n for c, n in counts.items() if not c.isspace())
    for character, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if remaining <= 0:
            break
        if not character.isspace():
            covering.append(character)
            remaining -= count
    return covering


def as_bert(settings: TrainedTokenizer | WordPieceFile, pieces: dict[str, int] | None) -> Tokenizer:
    """Return a WordPiece tokenizer with BERT's splitting; untrained if `pieces` is None."""
    model: Any = models.WordPiece(
        **({} if pieces is None else {"vocab": pieces}),
        unk_token=SPECIAL[UNK],
        max_input_chars_per_word=settings.longest_word,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalization.bert_normalizer(settings)
    tokenizer.pre_tokenizer = normalization.bert_splitter()
    return tokenizer
