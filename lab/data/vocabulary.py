"""A tokenizer with renumbered tokens: the five special tokens have the numbers 0 to 4.

Inside the lab [PAD], [UNK], [CLS], [SEP] and [MASK] have the numbers 0 to 4, independent of their
numbers and spelling in the tokenizer ("outer" numbers); all other tokens follow in the order of
the tokenizer. Exported models use the outer numbers. The spelling of a special token inside a text
is encoded as ordinary text.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lab.config.trial import content_hash
from lab.data.prepared_files import FACTS, check_files
from lab.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # spelling in tokenizers trained here
ROLES = ("pad", "unk", "cls", "sep", "mask")
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_WORD = 5
_TOKENIZER, _SPECIAL = "tokenizer.json", "special.json"  # names of the files

Ids = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """A tokenized text without special tokens.

    Attributes:
        ids_T: token ids.
        word_T: word index of each token; -1 for a token outside of words.
        span_T2: start and end (exclusive) of each token in characters, relative to the text, or to
            the word if the text was given as words.
    """

    ids_T: Ids
    word_T: Ids
    span_T2: Ids


class Vocabulary:
    """A tokenizer and the mapping between its numbers and those of the lab.

    Args:
        tokenizer: tokenizer; its truncation and padding are disabled.
        special: spelling of the special tokens by role (`pad`, `unk`, `cls`, `sep`, `mask`).

    Attributes:
        tokenizer: the tokenizer, with its own numbers.
        special: spelling of the special tokens by role.
        size: number of tokens.
        outer_V: number in the tokenizer of each token of the lab.

    Raises:
        UserError: a special token is missing.
    """

    def __init__(self, tokenizer: Tokenizer, special: dict[str, str]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # encode "[MASK]" in a text as ordinary text
        self.tokenizer, self.special = tokenizer, special
        numbers = [_special_number(tokenizer, role, special.get(role)) for role in ROLES]
        self.size = max(tokenizer.get_vocab().values()) + 1
        rest = np.setdiff1d(np.arange(self.size), numbers)
        self.outer_V: Ids = np.concatenate([np.array(numbers), rest])
        self._inner_V: Ids = np.argsort(self.outer_V)
        self._is_identity = bool((self.outer_V == np.arange(self.size)).all())

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the token ids of each text; faster than `spans`."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._to_inner(encoding.ids) for encoding in encodings]

    def spans(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the token ids of each text with their words and character spans."""
        return self._encoded(texts, pretokenized=False)

    def words(self, sentences: Iterable[Sequence[str]]) -> list[Encoded]:
        """Return the token ids of sentences given as lists of words."""
        return self._encoded([list(words) for words in sentences], pretokenized=True)

    def decode(self, ids: Sequence[int]) -> str:
        """Return token ids as text, without special tokens."""
        text: str = self.tokenizer.decode(self.outer_V[list(ids)].tolist())
        return text

    def fingerprint(self) -> str:
        """Return a hash of the tokenizer and its special tokens."""
        return content_hash([self.tokenizer.to_str(), self.special])

    def save(self, folder: File) -> None:
        """Write `tokenizer.json` and `special.json` to a folder."""
        self.tokenizer.save(str(folder / _TOKENIZER))
        (folder / _SPECIAL).write_text(json.dumps(self.special, indent=2) + "\n")

    def _encoded(
        self, texts: Sequence[str] | list[list[str]], *, pretokenized: bool
    ) -> list[Encoded]:
        encodings = self.tokenizer.encode_batch(
            texts, is_pretokenized=pretokenized, add_special_tokens=False
        )
        return [
            Encoded(
                self._to_inner(encoding.ids),
                np.array([-1 if word is None else word for word in encoding.word_ids], np.int64),
                np.array(encoding.offsets, np.int64).reshape(-1, 2),
            )
            for encoding in encodings
        ]

    def _to_inner(self, ids: list[int]) -> Ids:
        outer = np.array(ids, np.int64)
        return outer if self._is_identity else self._inner_V[outer]


def open_vocabulary(folder: File) -> Vocabulary:
    """Read a vocabulary that `Vocabulary.save` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    if (folder / FACTS).exists():  # the folder of a prepared text
        check_files(folder, (_TOKENIZER, _SPECIAL))
    try:
        special = json.loads((folder / _SPECIAL).read_text())
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    except Exception as error:  # `tokenizers` raises plain `Exception`
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: damaged vocabulary ({reason}); delete the folder and run the sweep again "
            f"to prepare the text again"
        ) from None
    return Vocabulary(tokenizer, special)


def _special_number(tokenizer: Tokenizer, role: str, spelling: str | None) -> int:
    number = None if spelling is None else tokenizer.token_to_id(spelling)
    if number is None:
        raise UserError(
            f"the tokenizer has no {role} token; required are "
            f"{', '.join(f'{role} ({token})' for role, token in zip(ROLES, SPECIAL, strict=True))}"
        )
    return int(number)
