"""Configuration of the training text: its source, its tokenizer, and the windows cut from it."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval, MinLen
from pydantic import Field

from lab.config.base import StrictConfig
from lab.config.bounds import Name, NameOrEmpty

LEAST_VOCAB = 300
LONGEST_WORD = 100  # characters, as in BERT's `WordpieceTokenizer`
LongestWord = Annotated[int, Interval(ge=10, le=1_000)]


@dataclass(frozen=True, kw_only=True)
class EmbeddedText(StrictConfig):
    """The 25 MB of English text that the package contains (NOTICE lists its origin)."""

    kind: Literal["embedded"] = "embedded"


@dataclass(frozen=True, kw_only=True)
class TextFiles(StrictConfig):
    """Local files: .txt, .jsonl (or .json with one object a line), .csv, .tsv or .parquet.

    Each file may be compressed as .gz, .bz2, .xz or .zst.

    Attributes:
        paths: file names or glob patterns (`**` matches any number of folders), relative to the
            working directory of the command.
        column: name of the column that holds the text; not used for plain text.
        documents: unit that is one document in plain text: `paragraph` is a block between blank
            lines, as in BERT's and ELECTRA's scripts; `line` is one line; `file` is a whole file.
        encoding: character encoding of plain text, JSON Lines and CSV files.
    """

    kind: Literal["files"]
    paths: Annotated[tuple[Name, ...], MinLen(1)]
    column: Name = "text"
    documents: Literal["paragraph", "line", "file"] = "paragraph"
    encoding: Name = "utf-8"


@dataclass(frozen=True, kw_only=True)
class SavedDataset(StrictConfig):
    """A folder that the `datasets` library saved (`save_to_disk`).

    Attributes:
        path: path of the folder.
        split: split to read, if the folder holds several.
        column: name of the column that holds the text.
    """

    kind: Literal["saved"]
    path: Name
    split: Name = "train"
    column: Name = "text"


@dataclass(frozen=True, kw_only=True)
class HubDataset(StrictConfig):
    """A data set of the Hugging Face hub. Code in the data set's repository is never run.

    Attributes:
        name: name of the data set on the hub, for example `wikimedia/wikipedia`.
        configuration: configuration of the data set, for example `20231101.fi`; empty if the data
            set has only one.
        split: split to read.
        column: name of the column that holds the text.
        revision: branch, tag or commit of the data set's repository.
    """

    kind: Literal["hub"]
    name: Name
    configuration: NameOrEmpty = ""
    split: Name = "train"
    column: Name = "text"
    revision: Name = "main"


SingleSource = EmbeddedText | TextFiles | SavedDataset | HubDataset


@dataclass(frozen=True, kw_only=True)
class MixturePart(StrictConfig):
    """One part of a mixture.

    Attributes:
        weight: share of the windows that a trial reads from this part, relative to the weights of
            the other parts.
        source: source of the part's text.
    """

    weight: Annotated[float, Interval(gt=0, le=1e6)]
    source: Annotated[SingleSource, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class Mixture(StrictConfig):
    """Several sources, read in proportion to their weights.

    A small part with a large weight is repeated more often than a large part with a small weight.

    Attributes:
        parts: two or more sources with their weights.
    """

    kind: Literal["mixture"]
    parts: Annotated[tuple[MixturePart, ...], MinLen(2)]


TextSource = SingleSource | Mixture


@dataclass(frozen=True, kw_only=True)
class TrainedTokenizer(StrictConfig):
    """A WordPiece vocabulary of `data.vocab` pieces, trained on the training text.

    Text is split into words as in BERT.

    Attributes:
        cased: whether upper and lower case are distinguished.
        accents: treatment of accents and other nonspacing marks; `strip` turns é into e, removes
            vowel signs and takes Hangul syllables apart; `auto` strips them if at most 0.2 % of
            the letters have one, as in English, and keeps them otherwise.
        joiners: treatment of zero-width joiners and non-joiners between letters; `auto` keeps them
            in a text that uses them, such as Persian.
        normalization: Unicode normalization applied first; `nfkc` also replaces ligatures and
            half- and full-width forms by the usual characters.
        ideographs: whether each Chinese character is a word of its own.
        longest_word: number of characters of a word; a longer word is one unknown token. The time
            to encode a word grows with the square of its length or faster.
    """

    kind: Literal["trained"] = "trained"
    cased: bool = False
    accents: Literal["auto", "strip", "keep"] = "auto"
    joiners: Literal["auto", "keep", "remove"] = "auto"
    normalization: Literal["nfc", "nfkc"] = "nfc"
    ideographs: bool = True
    longest_word: LongestWord = LONGEST_WORD


@dataclass(frozen=True, kw_only=True)
class ByteLevelTokenizer(StrictConfig):
    """A byte-level BPE vocabulary of `data.vocab` tokens, trained on the training text.

    Every text of every script has tokens: there are no unknown ones, and words have any length.
    Text is split as in GPT-2 and RoBERTa; a run of white space counts as one space. Marks, joiners
    and Hangul syllables are kept.

    Attributes:
        cased: whether upper and lower case are distinguished.
        normalization: Unicode normalization applied first, as for `trained`.
    """

    kind: Literal["byte_level"]
    cased: bool = False
    normalization: Literal["nfc", "nfkc"] = "nfc"


@dataclass(frozen=True, kw_only=True)
class WordPieceFile(StrictConfig):
    """A WordPiece vocabulary from a file with one piece a line, such as BERT's `vocab.txt`.

    Attributes:
        file: path of the vocabulary file, or `bert-uncased` for BERT's vocabulary of 30,522
            pieces, which the package contains.
        cased: whether upper and lower case are distinguished.
        accents: treatment of accents; `strip` turns é into e.
        ideographs: whether each Chinese character is a word of its own.
        longest_word: number of characters of a word; a longer word is one unknown token.
    """

    kind: Literal["wordpieces"]
    file: Name
    cased: bool = False
    accents: Literal["strip", "keep"] = "strip"
    ideographs: bool = True
    longest_word: LongestWord = LONGEST_WORD


@dataclass(frozen=True, kw_only=True)
class PretrainedTokenizer(StrictConfig):
    """A fast tokenizer of the `transformers` library.

    Attributes:
        name: folder of the tokenizer, or its name on the Hugging Face hub.
        revision: branch, tag or commit of the tokenizer's repository on the hub.
    """

    kind: Literal["transformers"]
    name: Name
    revision: Name = "main"


LearnedTokenizer = TrainedTokenizer | ByteLevelTokenizer
TokenizerConfig = LearnedTokenizer | WordPieceFile | PretrainedTokenizer


@dataclass(frozen=True, kw_only=True)
class DataConfig(StrictConfig):
    """Training text, tokenizer and windows.

    Attributes:
        source: source of the text.
        share: share of the source's documents that is used; documents are chosen by a hash of
            their text.
        held_out: share of the used documents that is excluded from training and kept for
            evaluation; chosen by a hash of their text.
        bad_text: treatment of invalid text (wrong encoding, missing text column, control
            characters, overlong lines, …); `refuse` ends the preparation with an error, `skip`
            omits and counts it.
        decontaminate: tasks (names or YAML files); passages of 13 or more tokens that the training
            text shares with the evaluation splits of these tasks are removed. The overlap is
            reported even if this list is empty.
        tokenizer: method that turns text into tokens.
        vocab: number of distinct tokens; a given vocabulary must have this size.
        length: number of positions of a window, [CLS] and [SEP] included; a window never crosses
            the border between two documents.
        layout: arrangement of tokens in a window; `full` fills each window with consecutive tokens
            of a document; `segments` makes the examples of ELECTRA's
            `build_pretraining_dataset.py`: whole lines in two segments, one window in ten with a
            single segment, one in twenty of a random length.
    """

    source: Annotated[TextSource, Field(discriminator="kind")] = field(default_factory=EmbeddedText)
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.02
    bad_text: Literal["refuse", "skip"] = "refuse"
    decontaminate: tuple[Name, ...] = ()
    tokenizer: Annotated[TokenizerConfig, Field(discriminator="kind")] = field(
        default_factory=TrainedTokenizer
    )
    vocab: Annotated[int, Interval(ge=LEAST_VOCAB, le=2_000_000)] = 2_048
    length: Annotated[int, Interval(ge=8, le=4_096)] = 16
    layout: Literal["full", "segments"] = "full"
