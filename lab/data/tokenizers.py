"""Build the vocabulary of a text: trained on it, from a WordPiece file, or of `transformers`."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import resources
from typing import Any, assert_never

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.normalizers import Normalizer

from lab.config.data import (
    LEAST_VOCAB,
    PretrainedTokenizer,
    TokenizerConfig,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.data.text_files import expand_home
from lab.data.vocabulary import CLS, ROLES, SEP, SPECIAL, UNK, Vocabulary
from lab.errors import UserError

BERT = "bert-uncased"  # name of the vocabulary file included in the package

_COVERAGE = 0.9995  # share of the text's characters in the alphabet; rarer characters are [UNK]
_LONGEST = 100  # characters; longer words are [UNK], as in BERT's `WordpieceTokenizer`

Texts = Callable[[], Iterable[str]]


def build_vocabulary(settings: TokenizerConfig, vocab: int, texts: Texts) -> Vocabulary:
    """Return the vocabulary described by `settings`.

    Args:
        settings: kind and options of the tokenizer.
        vocab: required number of tokens.
        texts: function that returns the texts to train on, the same in every call.

    Raises:
        UserError: the vocabulary cannot be read or trained, lacks a special token, or has another
            size than `vocab`.
    """
    match settings:
        case TrainedTokenizer():
            vocabulary = _wrap(train_wordpiece(settings, vocab, texts))
        case WordPieceFile():
            vocabulary = _wrap(_load_wordpieces(settings))
        case PretrainedTokenizer():
            vocabulary = _load_pretrained(settings)
        case _:
            assert_never(settings)
    if vocabulary.size != vocab:
        raise UserError(f"data.vocab: {vocab} requested, {_advice(settings, vocabulary.size)}")
    return vocabulary


def _advice(settings: TokenizerConfig, size: int) -> str:
    if not isinstance(settings, TrainedTokenizer):
        return f"but the tokenizer has {size} tokens; set {size}"
    if size < LEAST_VOCAB:
        return f"but the text yields {size}, the minimum is {LEAST_VOCAB}; use more text"
    return f"but the text yields {size}; set {size} or less"


def tokenizer_identity(settings: TokenizerConfig) -> object:
    """Return a JSON value that identifies the tokenizer; files are replaced by their hash.

    Raises:
        UserError: the vocabulary file or the tokenizer cannot be read.
    """
    match settings:
        case TrainedTokenizer():
            return asdict(settings)
        case WordPieceFile():
            digest = hashlib.sha256("\n".join(_pieces(settings.file)).encode()).hexdigest()
            return asdict(settings) | {"file": digest}
        case PretrainedTokenizer():
            return _load_pretrained(settings).fingerprint()
        case _:
            assert_never(settings)


def train_wordpiece(settings: TrainedTokenizer, vocab: int, texts: Texts) -> Tokenizer:
    """Train a WordPiece tokenizer with BERT's splitting of words, deterministically.

    `tokenizers` numbers the alphabet in the order of a hash map and breaks ties between merges by
    these numbers, so the vocabulary would differ from run to run. Training therefore runs twice:
    the first run finds the tokens of the alphabet, the second gets them in sorted order.

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
    return _as_bert(settings, pieces)


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
    tokenizer = _as_bert(settings, None)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab,
        special_tokens=list(first),
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    pieces: dict[str, int] = tokenizer.get_vocab()
    return pieces


def frequent_characters(settings: TrainedTokenizer, texts: Texts) -> list[str]:
    """Return the most frequent characters that cover `_COVERAGE` of the text, in that order."""
    normalizer = _normalizer(settings)
    counts: Counter[str] = Counter()
    for text in texts():
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


def _as_bert(
    settings: TrainedTokenizer | WordPieceFile, pieces: dict[str, int] | None
) -> Tokenizer:
    """Return a WordPiece tokenizer with BERT's splitting; untrained if `pieces` is None."""
    model: Any = models.WordPiece(
        **({} if pieces is None else {"vocab": pieces}),
        unk_token=SPECIAL[UNK],
        max_input_chars_per_word=_LONGEST,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _normalizer(settings: TrainedTokenizer | WordPieceFile) -> Normalizer:
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.ideographs,
        strip_accents=settings.accents == "strip",
        lowercase=not settings.cased,
    )
    if isinstance(settings, WordPieceFile):
        return bert
    form = normalizers.NFKC() if settings.normalization == "nfkc" else normalizers.NFC()
    return normalizers.Sequence([form, bert])


def _wrap(tokenizer: Tokenizer) -> Vocabulary:
    """Add special tokens, ELECTRA's template of two segments and a decoder to a tokenizer."""
    tokenizer.add_special_tokens(list(SPECIAL))
    cls, sep = SPECIAL[CLS], SPECIAL[SEP]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    tokenizer.decoder = _decoder()
    return Vocabulary(tokenizer, dict(zip(ROLES, SPECIAL, strict=True)))


def _decoder() -> Any:
    from tokenizers import decoders

    return decoders.WordPiece()


def _load_wordpieces(settings: WordPieceFile) -> Tokenizer:
    pieces = _pieces(settings.file)
    numbers = {piece: number for number, piece in enumerate(pieces)}
    if len(numbers) < len(pieces):
        duplicate = next(piece for piece, count in Counter(pieces).items() if count > 1)
        raise UserError(f"data.tokenizer.file: {settings.file}: {duplicate!r} occurs twice")
    missing = [token for token in SPECIAL if token not in numbers]
    if missing:
        raise UserError(f"data.tokenizer.file: {settings.file}: missing {', '.join(missing)}")
    return _as_bert(settings, numbers)


def _pieces(file: str) -> list[str]:
    if file == BERT:
        source = resources.files("lab").joinpath("text", "bert_uncased_vocab.txt")
        return source.read_text(encoding="utf-8").splitlines()
    try:
        text = expand_home(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"data.tokenizer.file: {file}: not valid UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: the path contains a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data.tokenizer.file: {file}: {reason}") from None
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def _load_pretrained(settings: PretrainedTokenizer) -> Vocabulary:
    """Load a fast tokenizer with `transformers`; code in its repository is not run."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            settings.name, revision=settings.revision, use_fast=True, trust_remote_code=False
        )
    except Exception as error:  # of several libraries, without a common base class
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(f"data.tokenizer.name: {settings.name}: {reason}") from None
    if not loaded.is_fast:
        raise UserError(f"data.tokenizer.name: {settings.name}: no fast tokenizer (tokenizer.json)")
    special = {role: getattr(loaded, f"{role}_token") for role in ROLES}
    missing = [f"{role}_token" for role, token in special.items() if token is None]
    if missing:
        raise UserError(f"data.tokenizer.name: {settings.name}: missing {', '.join(missing)}")
    tokenizer = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    return Vocabulary(tokenizer, {role: str(token) for role, token in special.items()})
