"""Where a text's tokens come from: trained on it, a vocabulary file, or a tokenizer that exists."""

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

BERT = "bert-uncased"  # the vocabulary that the lab carries

_COVERAGE = 0.9995  # of the text's characters; the rarest beyond it are unknown
_LONGEST = 100  # characters of a word that is still taken apart (tokenization.WordpieceTokenizer)

Texts = Callable[[], Iterable[str]]


def build_vocabulary(settings: TokenizerConfig, vocab: int, texts: Texts) -> Vocabulary:
    """Return the vocabulary that `settings` ask for.

    Args:
        settings: where it comes from.
        vocab: how many tokens it must have.
        texts: yields the text to train on, the same each time it is called.

    Raises:
        UserError: it cannot be had, lacks a special token, or has another size.
    """
    match settings:
        case TrainedTokenizer():
            vocabulary = _own(train_wordpiece(settings, vocab, texts))
        case WordPieceFile():
            vocabulary = _own(_wordpieces(settings))
        case PretrainedTokenizer():
            vocabulary = _pretrained(settings)
        case _:
            assert_never(settings)
    if vocabulary.size != vocab:
        raise UserError(f"data.vocab: {vocab} asked for, and {_advice(settings, vocabulary.size)}")
    return vocabulary


def _advice(settings: TokenizerConfig, size: int) -> str:
    if not isinstance(settings, TrainedTokenizer):
        return f"there are {size}; write {size}"
    if size < LEAST_VOCAB:
        return f"the text yields {size}; it takes {LEAST_VOCAB}, so read more text"
    return f"the text yields {size}; write {size} or less"


def tokenizer_identity(settings: TokenizerConfig) -> object:
    """Return what names the content of `settings`: a hash of its file, where it has one.

    Raises:
        UserError: it cannot be read.
    """
    match settings:
        case TrainedTokenizer():
            return asdict(settings)
        case WordPieceFile():
            digest = hashlib.sha256("\n".join(_pieces(settings.file)).encode()).hexdigest()
            return asdict(settings) | {"file": digest}
        case PretrainedTokenizer():
            return _pretrained(settings).fingerprint()
        case _:
            assert_never(settings)


def train_wordpiece(settings: TrainedTokenizer, vocab: int, texts: Texts) -> Tokenizer:
    """Train WordPiece with BERT's splitting.

    The library numbers the alphabet in the order of a hash map and breaks ties between merges by
    number, so the same text would give another vocabulary each time. Hence twice: once to find
    the alphabet's tokens, once with their order given. The alphabet is the most frequent
    characters, as many as cover the text, in half of the vocabulary; and in more where merges
    leave room, as in a script whose every character is a word.
    """
    characters = frequent_characters(settings, texts)
    most = (vocab - len(SPECIAL)) // 2  # a character is two tokens, at a word's start and within
    pieces = _learn(settings, texts, vocab, characters[:most])
    while len(pieces) < vocab and most < len(characters):
        most += max(1, (vocab - len(pieces)) // 2)
        more = _learn(settings, texts, vocab, characters[:most])
        if len(more) > vocab:
            break
        pieces = more
    return _as_bert(settings, pieces)


def _learn(
    settings: TrainedTokenizer, texts: Texts, vocab: int, characters: list[str]
) -> dict[str, int]:
    """Return the pieces of an alphabet, more than `vocab` only where the alphabet itself is."""
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
    """Return the characters that cover the text, the most frequent first."""
    normalizer = _normalizer(settings)
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(normalizer.normalize_str(text))
    kept: list[str] = []
    wanted = _COVERAGE * sum(n for c, n in counts.items() if not c.isspace())
    for character, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if wanted <= 0:
            break
        if not character.isspace():
            kept.append(character)
            wanted -= count
    return kept


def _as_bert(
    settings: TrainedTokenizer | WordPieceFile, pieces: dict[str, int] | None
) -> Tokenizer:
    """Return a WordPiece tokenizer; without pieces one that can be trained."""
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


def _own(tokenizer: Tokenizer) -> Vocabulary:
    """Complete a tokenizer with the lab's special tokens and ELECTRA's template."""
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


def _wordpieces(settings: WordPieceFile) -> Tokenizer:
    pieces = _pieces(settings.file)
    numbers = {piece: number for number, piece in enumerate(pieces)}
    if len(numbers) < len(pieces):
        twice = next(piece for piece, count in Counter(pieces).items() if count > 1)
        raise UserError(f"data.tokenizer.file: {settings.file}: {twice!r} stands twice")
    missing = [token for token in SPECIAL if token not in numbers]
    if missing:
        raise UserError(f"data.tokenizer.file: {settings.file}: no {', '.join(missing)}")
    return _as_bert(settings, numbers)


def _pieces(file: str) -> list[str]:
    if file == BERT:
        source = resources.files("lab").joinpath("text", "bert_uncased_vocab.txt")
        return source.read_text(encoding="utf-8").splitlines()
    try:
        text = expand_home(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"data.tokenizer.file: {file}: not UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: no path has a zero byte
        said = getattr(error, "strerror", None) or error
        raise UserError(f"data.tokenizer.file: {file}: {said}") from None
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def _pretrained(settings: PretrainedTokenizer) -> Vocabulary:
    """Load a tokenizer's rules and tables; code beside them is not run."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            settings.name, revision=settings.revision, use_fast=True, trust_remote_code=False
        )
    except Exception as error:  # of many libraries, with no common base
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(f"data.tokenizer.name: {settings.name}: {said}") from None
    if not loaded.is_fast:
        raise UserError(f"data.tokenizer.name: {settings.name}: no fast tokenizer (tokenizer.json)")
    special = {role: getattr(loaded, f"{role}_token") for role in ROLES}
    missing = [f"{role}_token" for role, token in special.items() if token is None]
    if missing:
        raise UserError(f"data.tokenizer.name: {settings.name}: it has no {', '.join(missing)}")
    tokenizer = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    return Vocabulary(tokenizer, {role: str(token) for role, token in special.items()})
