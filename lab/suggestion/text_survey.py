"""Measure a text: size, scripts, letters and documents.

Counts are taken from samples of the files (`file_samples`) and scaled up to the whole text.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lab.config.data import TextFiles
from lab.data.text_files import BadText, split_into_pieces
from lab.data.tokenization.marks import changed_by_stripping
from lab.errors import UserError
from lab.suggestion.file_samples import FileSample, Samples
from lab.suggestion.source_guess import SourceGuess, weighted_median

_SAMPLE_SIZE = 2 * 2**20  # characters of the sample of documents
_FORMS = {"FULLWIDTH", "HALFWIDTH"}  # words before the script in Unicode names

# WordPiece tokenizers replace a word of more than 100 characters by one unknown token
# (`lab.data.tokenizers`). Punctuation and ideographs end a word there.
_OVERLONG = re.compile(
    r"[^\s!-/:-@\[-`{-~\u2000-\u206f\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]{101,}"
)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TextSurvey:
    """Figures of a text; shares are in [0, 1].

    Attributes:
        share: share of the text that was read; counts are scaled up by its inverse.
        files: number of files.
        stored: size on disk, in bytes.
        documents: number of documents, duplicates included.
        characters: number of characters of all documents.
        words: number of words that white space separates.
        duplicates: share of the documents that repeat another one.
        bad: number of rows that are not text, by reason, in the part that was read.
        letters: number of letters in the part that was read.
        scripts: share of the letters by script, the first word of their Unicode names, in
            descending order.
        accented: share of the letters with a nonspacing mark, and of Hangul syllables.
        upper: share of capitals among the letters with case.
        compatibility: share of the characters that NFKC normalization replaces and NFC does not.
        overlong: share of the characters in words of more than 100 characters.
        median_document: median number of characters of a document.
        sample: documents from all parts of the text, of about 2 M characters.
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
    overlong: float
    median_document: float
    sample: tuple[str, ...]


def survey_text(guess: SourceGuess, samples: Samples, say: Say = lambda _: None) -> TextSurvey:
    """Return the figures of a text.

    Args:
        guess: source of the text.
        samples: samples of its files.
        say: callback that receives lines of progress.

    Raises:
        UserError: the samples have no document.
    """
    counts = _Counts()
    for number, sample in enumerate(samples.samples):
        say(f"counting the characters of file {number + 1} of {len(samples.samples)}")
        counts.add(sample, guess.source)
    if not counts.lengths:
        raise UserError(
            f"{guess.source.paths[0]}: no document in it ({', '.join(counts.bad) or 'no text'})"
        )
    alphabet = _Alphabet(counts.characters)
    documents, characters = counts.lengths.total(), counts.characters.total()
    return TextSurvey(
        share=samples.share,
        files=samples.files,
        stored=samples.stored,
        documents=round(documents / samples.share),
        characters=round(characters / samples.share),
        words=round(counts.words / samples.share),
        duplicates=1 - len(counts.seen) / documents,
        bad=dict(counts.bad),
        letters=alphabet.letters,
        scripts=alphabet.scripts(),
        accented=alphabet.accented / max(1, alphabet.letters),
        upper=alphabet.upper / max(1, alphabet.cased),
        compatibility=alphabet.compatibility / max(1, characters),
        overlong=counts.overlong / max(1, characters),
        median_document=weighted_median(counts.lengths),
        sample=counts.sample(),
    )


class _Counts:
    """Counts of the files read so far.

    Attributes:
        lengths: number of documents by their length in characters.
        characters: number of occurrences of each character.
        words: number of words that white space separates.
        overlong: number of characters in words of more than 100 characters.
        bad: number of rows that are not text, by reason.
        seen: hashes of the documents.
    """

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.characters: Counter[str] = Counter()
        self.words = self.overlong = 0
        self.bad: Counter[str] = Counter()
        self.seen: set[bytes] = set()
        self._sample: list[str] = []
        self._sampled, self._every = 0, 1

    def add(self, sample: FileSample, source: TextFiles) -> None:
        """Count the documents of a file."""
        for text in sample.texts(source):
            if isinstance(text, BadText):
                self.bad[text.reason] += 1
                continue
            for piece in split_into_pieces(text):
                if piece.strip():
                    self._add_document(piece)

    def _add_document(self, text: str) -> None:
        self.seen.add(hashlib.blake2b(text.encode(), digest_size=8).digest())
        self.lengths[len(text)] += 1
        self.characters.update(text)
        self.words += len(text.split())
        self.overlong += sum(map(len, _OVERLONG.findall(text)))
        if self.lengths.total() % self._every == 0:
            self._sample.append(text)
            self._sampled += len(text)
        if self._sampled > 2 * _SAMPLE_SIZE and len(self._sample) > 1:
            self._sample = self._sample[1::2]
            self._sampled, self._every = sum(map(len, self._sample)), 2 * self._every

    def sample(self) -> tuple[str, ...]:
        """Return evenly spaced documents of the text."""
        step = max(1, -(-self._sampled // _SAMPLE_SIZE))
        return tuple(self._sample[::step])


class _Alphabet:
    """Counts of the characters of a text by their Unicode properties.

    Args:
        characters: number of occurrences of each character.

    Attributes:
        letters: number of letters and marks.
        accented: number of letters and marks that stripping accents changes.
        cased: number of letters with case.
        upper: number of capitals.
        compatibility: number of characters that NFKC normalization replaces and NFC does not.
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
        self.accented += count * changed_by_stripping(character)
        self.cased += count * (character.lower() != character.upper())
        self.upper += count * (character.lower() != character)
        words = unicodedata.name(character, "UNKNOWN").split()
        script = words[1] if words[0] in _FORMS and len(words) > 1 else words[0]
        self._scripts[script.split("-")[0]] += count

    def scripts(self) -> dict[str, float]:
        """Return the share of the letters of each script, in descending order."""
        total = max(1, self._scripts.total())
        return {script: count / total for script, count in self._scripts.most_common()}
