"""A tokenizer as the lab uses it: the five special tokens come first.

[PAD], [UNK], [CLS], [SEP] and [MASK] are numbers 0 to 4 in here, whatever number and spelling a
given tokenizer has for them; all other tokens follow in its own order. What leaves the lab
(`export`) is numbered as the tokenizer says. Text that spells a special token is text.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lab.config.trial import content_hash
from lab.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # as the lab spells its own
ROLES = ("pad", "unk", "cls", "sep", "mask")
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_WORD = 5

Ids = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """A text as tokens, without special ones.

    Attributes:
        ids_T: tokens.
        word_T: which word each belongs to.
        span_T2: its first character and the one behind its last, within its word or the text.
    """

    ids_T: Ids
    word_T: Ids
    span_T2: Ids


class Vocabulary:
    """A tokenizer and the numbers of its tokens.

    Attributes:
        tokenizer: itself, with its own numbers.
        special: its spelling of the special tokens, by role (`pad`, `unk`, `cls`, `sep`, `mask`).
        size: different tokens.
        outer_V: the tokenizer's number of each of the lab's.

    Raises:
        UserError: a special token is missing.
    """

    def __init__(self, tokenizer: Tokenizer, special: dict[str, str]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[MASK]" in a text is a word in brackets
        self.tokenizer, self.special = tokenizer, special
        numbers = [_number(tokenizer, role, special.get(role)) for role in ROLES]
        self.size = max(tokenizer.get_vocab().values()) + 1
        rest = np.setdiff1d(np.arange(self.size), numbers)
        self.outer_V: Ids = np.concatenate([np.array(numbers), rest])
        self._inner_V: Ids = np.argsort(self.outer_V)
        self._alike = bool((self.outer_V == np.arange(self.size)).all())

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the tokens of each text; the fastest way."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._inner(encoding.ids) for encoding in encodings]

    def spans(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the tokens of each text and where they stand in it."""
        return self._encoded(texts, pretokenized=False)

    def words(self, sentences: Iterable[Sequence[str]]) -> list[Encoded]:
        """Return the tokens of sentences that are given word by word."""
        return self._encoded([list(words) for words in sentences], pretokenized=True)

    def decode(self, ids: Sequence[int]) -> str:
        """Return tokens as text, special ones left out."""
        text: str = self.tokenizer.decode(self.outer_V[list(ids)].tolist())
        return text

    def fingerprint(self) -> str:
        """Return a hash of all that decides how text becomes tokens."""
        return content_hash([self.tokenizer.to_str(), self.special])

    def save(self, folder: File) -> None:
        """Write `tokenizer.json` and `special.json`."""
        self.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "special.json").write_text(json.dumps(self.special, indent=2) + "\n")

    def _encoded(
        self, texts: Sequence[str] | list[list[str]], *, pretokenized: bool
    ) -> list[Encoded]:
        encodings = self.tokenizer.encode_batch(
            texts, is_pretokenized=pretokenized, add_special_tokens=False
        )
        return [
            Encoded(
                self._inner(encoding.ids),
                np.array([-1 if word is None else word for word in encoding.word_ids], np.int64),
                np.array(encoding.offsets, np.int64).reshape(-1, 2),
            )
            for encoding in encodings
        ]

    def _inner(self, ids: list[int]) -> Ids:
        outer = np.array(ids, np.int64)
        return outer if self._alike else self._inner_V[outer]


def open_vocabulary(folder: File) -> Vocabulary:
    """Read what `Vocabulary.save` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        special = json.loads((folder / "special.json").read_text())
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises it bare
        said = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: its vocabulary is damaged ({said}); delete the folder, and its sweep, run "
            f"again, makes it anew"
        ) from None
    return Vocabulary(tokenizer, special)


def _number(tokenizer: Tokenizer, role: str, spelling: str | None) -> int:
    number = None if spelling is None else tokenizer.token_to_id(spelling)
    if number is None:
        raise UserError(
            f"the tokenizer has no {role} token; it needs "
            f"{', '.join(f'{role} ({spelt})' for role, spelt in zip(ROLES, SPECIAL, strict=True))}"
        )
    return int(number)
