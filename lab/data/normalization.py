"""Normalize text and split it into words, as the settings of a tokenizer say."""

from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer

from lab.config.data import ByteLevelTokenizer, TrainedTokenizer, WordPieceFile
from lab.data.long_words import WordLimit


def bert_normalizer(settings: TrainedTokenizer | WordPieceFile) -> Normalizer:
    """Return the normalizer of a WordPiece tokenizer."""
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.ideographs,
        strip_accents=settings.accents == "strip",
        lowercase=not settings.cased,
    )
    if isinstance(settings, WordPieceFile):
        return bert
    return normalizers.Sequence([_unicode_form(settings), bert])


def bert_splitter() -> Any:
    """Return BERT's splitting: at white space, punctuation and the spaces of the normalizer."""
    return pre_tokenizers.BertPreTokenizer()


def word_limit(settings: TrainedTokenizer | WordPieceFile) -> WordLimit:
    """Return the longest word of a WordPiece tokenizer."""
    return WordLimit(
        normalizer=bert_normalizer(settings),
        splitter=bert_splitter(),
        longest=settings.longest_word,
        ideographs=settings.ideographs,
    )


def byte_level_normalizer(settings: ByteLevelTokenizer) -> Normalizer:
    """Return the normalizer of a byte-level tokenizer; white space becomes single spaces."""
    return normalizers.Sequence(
        [
            _unicode_form(settings),
            *([] if settings.cased else [normalizers.Lowercase()]),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )


def byte_level_splitter() -> Any:
    """Return the splitting of RoBERTa; a word has the same tokens alone and after a space."""
    return pre_tokenizers.ByteLevel(add_prefix_space=True)


def _unicode_form(settings: TrainedTokenizer | ByteLevelTokenizer) -> Normalizer:
    return normalizers.NFKC() if settings.normalization == "nfkc" else normalizers.NFC()
