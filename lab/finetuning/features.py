"""Examples -> windows of tokens with their targets, as long as an encoder reads.

Letters: T positions, W words.

- One text or two: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]. What does not fit loses its end, the
  longer of two first (the official `_truncate_seq_pair`), and is counted.
- Words: each is tagged at its first token (as BERT does). A sentence that does not fit is read in
  several windows, parted between words, so no word is left out; one without tokens is [UNK].
- Questions: [CLS] question [SEP] piece of the text [SEP]; pieces overlap by half, so an answer
  stands whole in one of them unless it is longer.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from lab.config.tasks import (
    ClassificationTask,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
)
from lab.data.vocabulary import CLS, SEP, UNK, Vocabulary
from lab.tasks.examples import Example, Examples, QuestionExample, TagExample, TextExample

NOWHERE = -100  # a position that is not scored; what `cross_entropy` passes over
UNSEEN = -1  # a label that nobody can learn
_QUESTION = 64  # tokens of a question, at most: `max_query_length`


class TaskWindow(NamedTuple):
    """What an encoder reads at once.

    Attributes:
        ids: tokens.
        target: one label or number; a tag or NOWHERE for each position; or the positions of an
            answer's first and last token, both 0 where there is none.
        example: which it is of.
        first: where a question's text begins.
        spans_N2: first character, and the one behind the last, of each token of that text.
    """

    ids: Sequence[int]
    target: Sequence[float]
    example: int
    first: int = 0
    spans_N2: npt.NDArray[np.int64] = np.empty((0, 2), np.int64)


class Features(NamedTuple):
    """A split as an encoder reads it.

    Attributes:
        windows: of all examples, in their order.
        cut: share of the examples that did not fit into one window.
    """

    windows: list[TaskWindow]
    cut: float


def make_features(
    task: Examples, examples: Sequence[Example], vocabulary: Vocabulary, length: int
) -> Features:
    """Return the windows of some examples of a task, of at most `length` positions."""
    match task.form:
        case ClassificationTask() | PairTask():
            known = {label: float(place) for place, label in enumerate(task.labels)}
            labelled = _labelled(examples)
            targets = [known.get(str(one.label), UNSEEN) for one in labelled]
            return _texts(labelled, targets, vocabulary, length)
        case RegressionTask():
            labelled = _labelled(examples)
            return _texts(labelled, [float(one.label) for one in labelled], vocabulary, length)
        case TaggingTask():
            return _words(
                task, [e for e in examples if isinstance(e, TagExample)], vocabulary, length
            )
        case QuestionAnsweringTask():
            return _questions(
                [e for e in examples if isinstance(e, QuestionExample)], vocabulary, length
            )
        case _:
            assert_never(task.form)


def _labelled(examples: Sequence[Example]) -> list[TextExample]:
    return [example for example in examples if isinstance(example, TextExample)]


def _texts(
    examples: Sequence[TextExample], targets: Sequence[float], vocabulary: Vocabulary, length: int
) -> Features:
    firsts = [ids.tolist() for ids in vocabulary.encode([one.text for one in examples])]
    seconds = [ids.tolist() for ids in vocabulary.encode([one.pair or "" for one in examples])]
    windows, cut = [], 0
    for number, (one, a, b, target) in enumerate(
        zip(examples, firsts, seconds, targets, strict=True)
    ):
        if one.pair is None:
            kept_a, rest = a[: length - 2], []
        else:
            kept_a, kept_b = truncate_pair(a, b, length - 3)
            rest = [*kept_b, SEP]
            cut += len(kept_b) < len(b) and len(kept_a) == len(a)
        cut += len(kept_a) < len(a)
        windows.append(TaskWindow([CLS, *kept_a, SEP, *rest], [target], number))
    return Features(windows, cut / len(examples))


def truncate_pair(
    a: Sequence[int], b: Sequence[int], room: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the beginnings of both that fit; the longer one is cut first, then both alike.

    The result of `_truncate_seq_pair`, which takes a token a time from the longer, of equals `b`.
    """
    kept = min(len(a), max(room - room // 2, room - len(b)))
    return a[:kept], b[: room - kept]


def _words(
    task: Examples, sentences: Sequence[TagExample], vocabulary: Vocabulary, length: int
) -> Features:
    known = {tag: place for place, tag in enumerate(task.labels)}
    encoded = vocabulary.words([sentence.words for sentence in sentences])
    windows, cut = [], 0
    for number, (sentence, tokens) in enumerate(zip(sentences, encoded, strict=True)):
        pieces = _by_word(tokens.ids_T, tokens.word_T, len(sentence.words), length - 2)
        tags = [known.get(tag, UNSEEN) for tag in sentence.tags]
        made = list(_packed(pieces, tags, length - 2))
        cut += len(made) > 1
        windows += [TaskWindow([CLS, *ids, SEP], [NOWHERE, *t, NOWHERE], number) for ids, t in made]
    return Features(windows, cut / len(sentences))


def _by_word(
    ids_T: npt.NDArray[np.int64], word_T: npt.NDArray[np.int64], words: int, room: int
) -> list[list[int]]:
    """Return the tokens of each word, as many as fit into a window."""
    starts = np.searchsorted(word_T, np.arange(words + 1))
    return [ids_T[start:end][:room].tolist() or [UNK] for start, end in pairwise(starts)]


def _packed(
    pieces: Sequence[list[int]], tags: Sequence[int], room: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield tokens and targets of as many whole words as fit, until all are there."""
    ids: list[int] = []
    targets: list[int] = []
    for piece, tag in zip(pieces, tags, strict=True):
        if len(ids) + len(piece) > room:
            yield ids, targets
            ids, targets = [], []
        ids = ids + piece
        targets = [*targets, tag, *[NOWHERE] * (len(piece) - 1)]
    yield ids, targets


def _questions(
    questions: Sequence[QuestionExample], vocabulary: Vocabulary, length: int
) -> Features:
    heads = vocabulary.encode([one.question for one in questions])
    bodies = vocabulary.spans([one.context for one in questions])
    windows: list[TaskWindow] = []
    cut = 0
    for number, (one, asked, body) in enumerate(zip(questions, heads, bodies, strict=True)):
        head = [CLS, *asked[: min(_QUESTION, (length - 3) // 2)].tolist(), SEP]
        room = length - len(head) - 1
        starts = range(0, max(1, len(body.ids_T) - room // 2), max(1, room - room // 2))
        cut += len(starts) > 1
        for start in starts:
            ids, spans_N2 = body.ids_T[start : start + room], body.span_T2[start : start + room]
            target = _answer(one, spans_N2, len(head))
            windows.append(
                TaskWindow([*head, *ids.tolist(), SEP], target, number, len(head), spans_N2)
            )
    return Features(windows, cut / len(questions))


def _answer(one: QuestionExample, spans_N2: npt.NDArray[np.int64], first: int) -> list[int]:
    """Return the positions of the first answer's first and last token; 0, 0 where it is not whole.

    `first` is where the text begins in its window.
    """
    if not one.answers or not len(spans_N2):
        return [0, 0]
    start, end = one.starts[0], one.starts[0] + len(one.answers[0])
    inside = np.flatnonzero((spans_N2[:, 1] > start) & (spans_N2[:, 0] < end))
    if not len(inside) or start < spans_N2[0, 0] or end > spans_N2[-1, 1]:
        return [0, 0]
    return [first + int(inside[0]), first + int(inside[-1])]
