"""Normalize text and split it into words, as the settings of a tokenizer say."""

from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer

from lab.config.data import ByteLevelTokenizer, TrainedTokenizer, WordPieceFile
from lab.data.tokenization.long_words import WordLimit

# Control, format, private and unassigned characters, as BERT's cleaning, without the joiners.
_OTHER = Regex(r"[\p{C}&&[^\t\n\r\x{200C}\x{200D}]]")
# Joiners that do not stand between letters, such as those of emoji, and those after Latin letters.
_LOOSE_JOINERS = Regex(
    r"(?<![\p{L}\p{M}])[\x{200C}\x{200D}]|(?<=\p{Latin})[\x{200C}\x{200D}]"
    r"|[\x{200C}\x{200D}](?![\p{L}\p{M}])"
)


def bert_normalizer(settings: TrainedTokenizer | WordPieceFile) -> Normalizer:
    """Return the normalizer of a WordPiece tokenizer.

    Raises:
        ValueError: accents or joiners are `auto`; `marks.resolve_marks` decides these by the text.
    """
    if isinstance(settings, WordPieceFile):
        return _bert(settings, clean=True)
    if "auto" in (settings.accents, settings.joiners):
        raise ValueError("accents and joiners must be resolved")
    form = _unicode_form(settings)
    if settings.joiners == "remove":
        return normalizers.Sequence([form, _bert(settings, clean=True)])
    clean = [normalizers.Replace(_OTHER, ""), normalizers.Replace(_LOOSE_JOINERS, "")]
    return normalizers.Sequence([form, *clean, _bert(settings, clean=False)])


def _bert(settings: TrainedTokenizer | WordPieceFile, *, clean: bool) -> Normalizer:
    return normalizers.BertNormalizer(
        clean_text=clean,
        handle_chinese_chars=settings.ideographs,
        strip_accents=settings.accents == "strip",
        lowercase=not settings.cased,
    )


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
