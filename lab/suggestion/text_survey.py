"""Describe a text by figures: its size, its scripts, its documents.

Counts are those of the files' beginnings (`file_samples`), scaled up where these are not all.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lab.config.data import TextFiles
from lab.data.text_files import BadText, split_into_pieces
from lab.errors import UserError
from lab.suggestion.file_samples import FileSample, Samples
from lab.suggestion.source_guess import SourceGuess, weighted_median

_KEPT = 2 * 2**20  # characters of documents that stay in memory
_FORMS = {"FULLWIDTH", "HALFWIDTH"}  # stand before the script in a character's name

# A tokenizer of words makes one unknown token of a longer one (`tokenizing`). Punctuation and
# ideographs part words there.
_ENDLESS = re.compile(
    r"[^\s!-/:-@\[-`{-~\u2000-\u206f\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]{101,}"
)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TextSurvey:
    """A text in figures; shares are in [0, 1].

    Attributes:
        share: of the text that was read; counts of the rest are estimated.
        files: how many.
        stored: bytes on disk.
        documents: how many, duplicates included.
        characters: in them.
        words: that white space separates.
        duplicates: share of the documents that repeat another one.
        bad: rows of the part that was read that are no text, by reason.
        letters: the letters that were read.
        scripts: share of the letters, by the first word of their Unicode names, largest first.
        accented: share of the letters that have a mark.
        upper: share of the letters with case that are capitals.
        compatibility: share of the characters that NFKC replaces and NFC does not.
        endless: share of the characters in words of more than 100.
        median_document: characters of one.
        sample: documents spread over the text, 2 MB of characters at most.
    """

    share: float
    files: int
    stored: int
    documents: int
    characters: int
    words: int
    duplicates: float
    bad: dict[str, int]
    letters: int
    scripts: dict[str, float]
    accented: float
    upper: float
    compatibility: float
    endless: float
    median_document: float
    sample: tuple[str, ...]


def survey_text(guess: SourceGuess, read: Samples, say: Say = lambda _: None) -> TextSurvey:
    """Count what is in a text.

    Raises:
        UserError: there is no text in it.
    """
    counts = _Counts()
    for number, sample in enumerate(read.samples):
        say(f"counting the characters of file {number + 1} of {len(read.samples)}")
        counts.add(sample, guess.source)
    if not counts.lengths:
        raise UserError(
            f"{guess.source.paths[0]}: no document in it ({', '.join(counts.bad) or 'no text'})"
        )
    alphabet = _Alphabet(counts.characters)
    documents, characters = counts.lengths.total(), counts.characters.total()
    return TextSurvey(
        share=read.share,
        files=read.files,
        stored=read.stored,
        documents=round(documents / read.share),
        characters=round(characters / read.share),
        words=round(counts.words / read.share),
        duplicates=1 - len(counts.seen) / documents,
        bad=dict(counts.bad),
        letters=alphabet.letters,
        scripts=alphabet.scripts(),
        accented=alphabet.accented / max(1, alphabet.letters),
        upper=alphabet.upper / max(1, alphabet.cased),
        compatibility=alphabet.compatibility / max(1, characters),
        endless=counts.endless / max(1, characters),
        median_document=weighted_median(counts.lengths),
        sample=counts.sample(),
    )


class _Counts:
    """Counts of the files read so far.

    Attributes:
        lengths: documents by their characters.
        characters: how often each stands in the text.
        words: that white space separates.
        endless: characters in words of more than 100.
        bad: rows that are no text, by reason.
        seen: digests of the documents.
    """

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.characters: Counter[str] = Counter()
        self.words = self.endless = 0
        self.bad: Counter[str] = Counter()
        self.seen: set[bytes] = set()
        self._sample: list[str] = []
        self._sampled, self._every = 0, 1

    def add(self, sample: FileSample, source: TextFiles) -> None:
        """Count a file."""
        for text in sample.texts(source):
            if isinstance(text, BadText):
                self.bad[text.reason] += 1
                continue
            for piece in split_into_pieces(text):
                if piece.strip():
                    self._add(piece)

    def _add(self, text: str) -> None:
        self.seen.add(hashlib.blake2b(text.encode(), digest_size=8).digest())
        self.lengths[len(text)] += 1
        self.characters.update(text)
        self.words += len(text.split())
        self.endless += sum(map(len, _ENDLESS.findall(text)))
        if self.lengths.total() % self._every == 0:
            self._sample.append(text)
            self._sampled += len(text)
        if self._sampled > 2 * _KEPT and len(self._sample) > 1:
            self._sample = self._sample[1::2]
            self._sampled, self._every = sum(map(len, self._sample)), 2 * self._every

    def sample(self) -> tuple[str, ...]:
        """Return documents spread evenly over the text."""
        step = max(1, -(-self._sampled // _KEPT))
        return tuple(self._sample[::step])


class _Alphabet:
    """Properties of a text's characters, each looked up once.

    Attributes:
        letters: how many characters are letters or marks.
        accented: of these, with a mark of their own or after them.
        cased: letters that have case.
        upper: of these, capitals.
        compatibility: characters that NFKC replaces and NFC does not.
    """

    def __init__(self, characters: Counter[str]) -> None:
        self.letters = self.accented = self.cased = self.upper = self.compatibility = 0
        self._scripts: Counter[str] = Counter()
        for character, count in characters.items():
            if unicodedata.category(character)[0] in "LM":
                self._add_letter(character, count)
            normal = unicodedata.normalize("NFC", character)
            self.compatibility += count * (unicodedata.normalize("NFKC", character) != normal)

    def _add_letter(self, character: str, count: int) -> None:
        self.letters += count
        decomposed = unicodedata.normalize("NFD", character)
        # As BERT strips accents: nonspacing marks (Mn), in Indic scripts most vowels among them.
        self.accented += count * any(unicodedata.category(part) == "Mn" for part in decomposed)
        self.cased += count * (character.lower() != character.upper())
        self.upper += count * (character.lower() != character)
        words = unicodedata.name(character, "UNKNOWN").split()
        script = words[1] if words[0] in _FORMS and len(words) > 1 else words[0]
        self._scripts[script.split("-")[0]] += count

    def scripts(self) -> dict[str, float]:
        """Return the share of the letters of each script, the largest first."""
        total = max(1, self._scripts.total())
        return {script: count / total for script, count in self._scripts.most_common()}
