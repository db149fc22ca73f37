"""Figures of a text and of a task, from which settings are chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import UserError
from lab.suggestion.commented_yaml import Section
from lab.suggestion.source_guess import SourceGuess
from lab.suggestion.text_survey import TextSurvey
from lab.suggestion.token_survey import TokenSurvey

# Up to four passes over a text are worth about as much as new text (arXiv 2305.16264).
EPOCHS = 4

_MIN_TOKENS = 20_000
_MIN_DOCUMENTS = 10


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """Figures of a task that encoders are fine-tuned on.

    Attributes:
        file: path of the task's YAML file, or a name of the lab's task table.
        name: name of the task in metrics.
        sizes: number of positions that each example takes in a window.
        because: one sentence on the origin of the task.
    """

    file: str
    name: str
    sizes: Sequence[int]
    because: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The figures from which settings are chosen.

    Attributes:
        guess: source of the text.
        text: figures of the text.
        tokenizer: settings of the tokenizer (`tokenizer_settings.recommend_tokenizer`).
        tokens: figures of the text as tokens.
        task: task to fine-tune on; None for no task.
    """

    guess: SourceGuess
    text: TextSurvey
    tokenizer: Section
    tokens: TokenSurvey
    task: TaskFacts | None

    @property
    def total(self) -> int:
        """Estimated number of tokens of the whole text without duplicates."""
        distinct = 1 - self.text.duplicates
        return round(self.text.characters * self.tokens.per_character * distinct)


def check_text_size(facts: Facts) -> None:
    """Check that a text has enough tokens and documents.

    Raises:
        UserError: it has too few; the message gives the number and the minimum.
    """
    name = facts.guess.source.paths[0]
    if facts.total < _MIN_TOKENS:
        raise UserError(
            f"{name}: about {facts.total:,} tokens without duplicates; below {_MIN_TOKENS:,} even "
            f"{EPOCHS} passes over the text train nothing: give more text"
        )
    if facts.text.documents < _MIN_DOCUMENTS:
        raise UserError(
            f"{name}: {facts.text.documents} documents; the lab holds out whole documents and "
            f"needs at least {_MIN_DOCUMENTS}: separate them by blank lines"
        )
