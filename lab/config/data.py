"""What a trial reads: where its text comes from, how it becomes tokens, how these are cut."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval, MinLen
from pydantic import Field

from lab.config.base import StrictConfig

Name = Annotated[str, MinLen(1)]
LEAST_VOCAB = 300


@dataclass(frozen=True, kw_only=True)
class EmbeddedText(StrictConfig):
    """The 25 MB of English inside the package (NOTICE)."""

    kind: Literal["embedded"] = "embedded"


@dataclass(frozen=True, kw_only=True)
class TextFiles(StrictConfig):
    """Local files; .txt, .jsonl (or .json, one object a line), .csv, .tsv, .parquet.

    Each may be packed as .gz, .bz2, .xz or .zst.

    Attributes:
        paths: files or globs (`**` for any folders), from the folder the command is called in.
        column: of the text, in all but plain text.
        documents: what a document is in plain text: what blank lines separate, as BERT's and
            ELECTRA's scripts have it; a line; or a whole file.
        encoding: of plain text, JSON Lines and CSV.
    """

    kind: Literal["files"]
    paths: Annotated[tuple[Name, ...], MinLen(1)]
    column: Name = "text"
    documents: Literal["paragraph", "line", "file"] = "paragraph"
    encoding: Name = "utf-8"


@dataclass(frozen=True, kw_only=True)
class SavedDataset(StrictConfig):
    """A folder that `datasets` saved (`save_to_disk`).

    Attributes:
        path: of the folder.
        split: which, where it holds several.
        column: of the text.
    """

    kind: Literal["saved"]
    path: Name
    split: Name = "train"
    column: Name = "text"


@dataclass(frozen=True, kw_only=True)
class HubDataset(StrictConfig):
    """A data set of the Hugging Face hub. No code of it is run.

    Attributes:
        name: for example `wikimedia/wikipedia`.
        configuration: for example `20231101.fi`; empty for the only one.
        split: which.
        column: of the text.
        revision: branch, tag or commit.
    """

    kind: Literal["hub"]
    name: Name
    configuration: str = ""
    split: Name = "train"
    column: Name = "text"
    revision: Name = "main"


SingleSource = EmbeddedText | TextFiles | SavedDataset | HubDataset


@dataclass(frozen=True, kw_only=True)
class MixturePart(StrictConfig):
    """One ingredient of a mixture.

    Attributes:
        weight: its share of the windows that a trial reads, relative to the other parts' weights.
        source: where its text comes from.
    """

    weight: Annotated[float, Interval(gt=0, le=1e6)]
    source: Annotated[SingleSource, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class Mixture(StrictConfig):
    """Several sources. A small part with a large weight is read more often than a large one."""

    kind: Literal["mixture"]
    parts: Annotated[tuple[MixturePart, ...], MinLen(2)]


TextSource = SingleSource | Mixture


@dataclass(frozen=True, kw_only=True)
class TrainedTokenizer(StrictConfig):
    """WordPieces of the training text itself, as many as `vocab` (BERT's splitting of words).

    Attributes:
        cased: whether case is kept.
        accents: `strip` turns é into e, which suits English and breaks most other languages.
        normalization: Unicode normalisation before anything else; `nfkc` also folds half- and full-width
            forms and ligatures.
        ideographs: whether each Chinese character is a word of its own.
    """

    kind: Literal["trained"] = "trained"
    cased: bool = False
    accents: Literal["strip", "keep"] = "strip"
    normalization: Literal["nfc", "nfkc"] = "nfc"
    ideographs: bool = True


@dataclass(frozen=True, kw_only=True)
class WordPieceFile(StrictConfig):
    """A WordPiece vocabulary, one piece a line, as BERT's `vocab.txt`.

    Attributes:
        file: its path; `bert-uncased` is BERT's own 30,522, which the lab carries.
        cased: as in `TrainedTokenizer`, and so on.
    """

    kind: Literal["wordpieces"]
    file: Name
    cased: bool = False
    accents: Literal["strip", "keep"] = "strip"
    ideographs: bool = True


@dataclass(frozen=True, kw_only=True)
class PretrainedTokenizer(StrictConfig):
    """A fast tokenizer of `transformers`.

    Attributes:
        name: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub.
    """

    kind: Literal["transformers"]
    name: Name
    revision: Name = "main"


TokenizerConfig = TrainedTokenizer | WordPieceFile | PretrainedTokenizer


@dataclass(frozen=True, kw_only=True)
class DataConfig(StrictConfig):
    """Text, tokenizer and windows.

    Attributes:
        source: where the text comes from.
        share: of its documents that are used, chosen by a hash of their text.
        held_out: share of these that training never sees, chosen the same way.
        bad_text: whether text that is not what it should be (wrong encoding, no text column,
            control characters, lines without end, …) ends the preparation, or is skipped and
            counted.
        decontaminate: tasks (names or files); what the training text has in common with their
            evaluation splits, 13 tokens in a row, is cut out. Reported without it too.
        tokenizer: how text becomes tokens.
        vocab: how many different tokens; a vocabulary that is given must have as many.
        length: positions of a window, [CLS] and [SEP] included; windows never cross documents.
        layout: `full` fills windows with a document's tokens; `segments` makes ELECTRA's
            examples: whole lines in two segments, one in ten windows with one segment, one in
            twenty of another length (`build_pretraining_dataset.py`).
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
