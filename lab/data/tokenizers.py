"""Build the vocabulary of a text: learned from it, from a WordPiece file, or of `transformers`."""

import errno
import hashlib
import os
from collections import Counter
from dataclasses import asdict
from importlib import resources
from typing import Any, assert_never

from tokenizers import Tokenizer, decoders, models, processors

from lab.config.data import (
    LEAST_VOCAB,
    ByteLevelTokenizer,
    PretrainedTokenizer,
    TokenizerConfig,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.data.text_files import expand_home
from lab.data.tokenization.long_words import Texts
from lab.data.tokenization.training import as_bert, train_tokenizer
from lab.data.vocabulary import CLS, ROLES, SEP, SPECIAL, Vocabulary
from lab.errors import UserError

BERT = "bert-uncased"  # name of the vocabulary file included in the package


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
        case TrainedTokenizer() | ByteLevelTokenizer():
            vocabulary = _wrap(train_tokenizer(settings, vocab, texts))
        case WordPieceFile():
            vocabulary = _wrap(_load_wordpieces(settings))
        case PretrainedTokenizer():
            vocabulary = _load_pretrained(settings)
        case _:
            assert_never(settings)
    if vocabulary.size != vocab:
        raise UserError(f"base.data.vocab: {vocab} requested, {_advice(settings, vocabulary.size)}")
    return vocabulary


def _advice(settings: TokenizerConfig, size: int) -> str:
    if isinstance(settings, WordPieceFile | PretrainedTokenizer):
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
        case TrainedTokenizer() | ByteLevelTokenizer():
            return asdict(settings)
        case WordPieceFile():
            digest = hashlib.sha256("\n".join(_pieces(settings.file)).encode()).hexdigest()
            return asdict(settings) | {"file": digest}
        case PretrainedTokenizer():
            return _load_pretrained(settings).fingerprint()
        case _:
            assert_never(settings)


def _wrap(tokenizer: Tokenizer) -> Vocabulary:
    """Add special tokens, ELECTRA's template of two segments and a decoder to a tokenizer."""
    tokenizer.add_special_tokens(list(SPECIAL))
    cls, sep = SPECIAL[CLS], SPECIAL[SEP]
    template = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    if isinstance(tokenizer.model, models.BPE):
        # The spans of byte-level tokens do not contain the space before a word.
        trim = processors.ByteLevel(trim_offsets=True, add_prefix_space=True)
        tokenizer.post_processor = processors.Sequence([trim, template])
        tokenizer.decoder = _byte_level_decoder()
    else:
        tokenizer.post_processor = template
        tokenizer.decoder = _wordpiece_decoder()
    return Vocabulary(tokenizer, dict(zip(ROLES, SPECIAL, strict=True)))


def _wordpiece_decoder() -> Any:
    return decoders.WordPiece()


def _byte_level_decoder() -> Any:
    return decoders.ByteLevel()


def _load_wordpieces(settings: WordPieceFile) -> Tokenizer:
    pieces = _pieces(settings.file)
    numbers = {piece: number for number, piece in enumerate(pieces)}
    if len(numbers) < len(pieces):
        duplicate = next(piece for piece, count in Counter(pieces).items() if count > 1)
        raise UserError(f"base.data.tokenizer.file: {settings.file}: {duplicate!r} occurs twice")
    missing = [token for token in SPECIAL if token not in numbers]
    if missing:
        raise UserError(f"base.data.tokenizer.file: {settings.file}: missing {', '.join(missing)}")
    return as_bert(settings, numbers)


def _pieces(file: str) -> list[str]:
    if file == BERT:
        source = resources.files("lab").joinpath("text", "bert_uncased_vocab.txt")
        return source.read_text(encoding="utf-8").splitlines()
    path = expand_home(file)
    try:
        if path.is_fifo():  # opening it would wait for a writer
            raise OSError(errno.EINVAL, "not a regular file")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"base.data.tokenizer.file: {file}: not valid UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: the path contains a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"base.data.tokenizer.file: {file}: {reason}") from None
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
        raise UserError(f"base.data.tokenizer.name: {settings.name}: {reason}") from None
    if not loaded.is_fast:
        raise UserError(
            f"base.data.tokenizer.name: {settings.name}: no fast tokenizer (tokenizer.json)"
        )
    special = {role: getattr(loaded, f"{role}_token") for role in ROLES}
    missing = [f"{role}_token" for role, token in special.items() if token is None]
    if missing:
        raise UserError(f"base.data.tokenizer.name: {settings.name}: missing {', '.join(missing)}")
    tokenizer = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    return Vocabulary(tokenizer, {role: str(token) for role, token in special.items()})
