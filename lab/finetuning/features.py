"""Convert the examples of a task to windows of tokens with targets.

Letters: T positions, W words.

- Classification and regression: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]. A text that does not fit
  loses its last tokens, the longer of two texts first (the official `_truncate_seq_pair`). The
  share of truncated examples is reported.
- Tagging: the tag of a word is predicted at its first token (as in BERT). A sentence that does not
  fit is split between words into several windows, so no word is left out. A word without tokens
  becomes [UNK].
- Question answering: [CLS] question [SEP] piece of the context [SEP]. Neighbouring pieces overlap
  by half, so an answer is whole in at least one piece unless it is longer than half a piece.
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

IGNORE_INDEX = -100  # target of a position without a label; the default `ignore_index` of torch
UNSEEN_LABEL = -1  # index of a label that does not occur in the training split
_MAX_QUESTION = 64  # tokens of a question, at most: `max_query_length` of the official code


class TaskWindow(NamedTuple):
    """A sequence of tokens with the target of a task.

    Attributes:
        ids: tokens.
        target: one label or number; a tag or IGNORE_INDEX for each position; or the positions of an
            answer's first and last token, both 0 if the window has no answer.
        example: index of the example in its split.
        context_start: position of the first token of a question's context.
        spans_N2: index of the first character of each context token, and of the character after
            its last one.
    """

    ids: Sequence[int]
    target: Sequence[float]
    example: int
    context_start: int = 0
    spans_N2: npt.NDArray[np.int64] = np.empty((0, 2), np.int64)


class Features(NamedTuple):
    """The windows of a split.

    Attributes:
        windows: windows of all examples, in the order of the examples.
        truncated_share: share of the examples that do not fit into one window.
    """

    windows: list[TaskWindow]
    truncated_share: float


def make_features(
    task: Examples, examples: Sequence[Example], vocabulary: Vocabulary, length: int
) -> Features:
    """Return the windows of examples of a task.

    Args:
        task: task that the examples belong to.
        examples: examples of one split.
        vocabulary: vocabulary of the encoder.
        length: positions of a window, at most.
    """
    match task.config:
        case ClassificationTask() | PairTask():
            index = {label: float(number) for number, label in enumerate(task.labels)}
            labelled = _text_examples(examples)
            targets = [index.get(str(example.label), UNSEEN_LABEL) for example in labelled]
            return _text_features(labelled, targets, vocabulary, length)
        case RegressionTask():
            labelled = _text_examples(examples)
            targets = [float(example.label) for example in labelled]
            return _text_features(labelled, targets, vocabulary, length)
        case TaggingTask():
            return _tag_features(
                task, [e for e in examples if isinstance(e, TagExample)], vocabulary, length
            )
        case QuestionAnsweringTask():
            return _question_features(
                [e for e in examples if isinstance(e, QuestionExample)], vocabulary, length
            )
        case _:
            assert_never(task.config)


def _text_examples(examples: Sequence[Example]) -> list[TextExample]:
    return [example for example in examples if isinstance(example, TextExample)]


def _text_features(
    examples: Sequence[TextExample], targets: Sequence[float], vocabulary: Vocabulary, length: int
) -> Features:
    firsts = [ids.tolist() for ids in vocabulary.encode([e.text for e in examples])]
    seconds = [ids.tolist() for ids in vocabulary.encode([e.pair or "" for e in examples])]
    windows, cut = [], 0
    for number, (example, a, b, target) in enumerate(
        zip(examples, firsts, seconds, targets, strict=True)
    ):
        if example.pair is None:
            short_a, rest = a[: length - 2], []
        else:
            short_a, short_b = truncate_pair(a, b, length - 3)
            rest = [*short_b, SEP]
            cut += len(short_b) < len(b) and len(short_a) == len(a)
        cut += len(short_a) < len(a)
        windows.append(TaskWindow([CLS, *short_a, SEP, *rest], [target], number))
    return Features(windows, cut / len(examples))


def truncate_pair(
    a: Sequence[int], b: Sequence[int], room: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Return prefixes of two texts with at most `room` tokens together.

    The result equals that of the official `_truncate_seq_pair`, which removes the last token of the
    longer text (of `b` if both are equally long) until the pair fits.

    Args:
        a: tokens of the first text.
        b: tokens of the second text.
        room: tokens of both, at most.
    """
    size_a = min(len(a), max(room - room // 2, room - len(b)))
    return a[:size_a], b[: room - size_a]


def _tag_features(
    task: Examples, sentences: Sequence[TagExample], vocabulary: Vocabulary, length: int
) -> Features:
    index = {tag: number for number, tag in enumerate(task.labels)}
    encoded = vocabulary.words([sentence.words for sentence in sentences])
    windows, cut = [], 0
    for number, (sentence, tokens) in enumerate(zip(sentences, encoded, strict=True)):
        words = _split_by_word(tokens.ids_T, tokens.word_T, len(sentence.words), length - 2)
        tags = [index.get(tag, UNSEEN_LABEL) for tag in sentence.tags]
        pieces = list(_pack_words(words, tags, length - 2))
        cut += len(pieces) > 1
        windows += [
            TaskWindow([CLS, *ids, SEP], [IGNORE_INDEX, *targets, IGNORE_INDEX], number)
            for ids, targets in pieces
        ]
    return Features(windows, cut / len(sentences))


def _split_by_word(
    ids_T: npt.NDArray[np.int64], word_T: npt.NDArray[np.int64], words: int, room: int
) -> list[list[int]]:
    """Return the tokens of each word, at most `room`; [UNK] for a word without tokens."""
    starts = np.searchsorted(word_T, np.arange(words + 1))
    return [ids_T[start:end][:room].tolist() or [UNK] for start, end in pairwise(starts)]


def _pack_words(
    words: Sequence[list[int]], tags: Sequence[int], room: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield tokens and targets of as many whole words as fit into `room`, until no word is left."""
    ids: list[int] = []
    targets: list[int] = []
    for word, tag in zip(words, tags, strict=True):
        if len(ids) + len(word) > room:
            yield ids, targets
            ids, targets = [], []
        ids = ids + word
        targets = [*targets, tag, *[IGNORE_INDEX] * (len(word) - 1)]
    yield ids, targets


def _question_features(
    questions: Sequence[QuestionExample], vocabulary: Vocabulary, length: int
) -> Features:
    encoded_questions = vocabulary.encode([example.question for example in questions])
    contexts = vocabulary.spans([example.context for example in questions])
    windows: list[TaskWindow] = []
    cut = 0
    for number, (example, question_ids, context) in enumerate(
        zip(questions, encoded_questions, contexts, strict=True)
    ):
        head = [CLS, *question_ids[: min(_MAX_QUESTION, (length - 3) // 2)].tolist(), SEP]
        room = length - len(head) - 1
        starts = range(0, max(1, len(context.ids_T) - room // 2), max(1, room - room // 2))
        cut += len(starts) > 1
        for start in starts:
            ids = context.ids_T[start : start + room]
            spans_N2 = context.span_T2[start : start + room]
            target = _answer_positions(example, spans_N2, len(head))
            windows.append(
                TaskWindow([*head, *ids.tolist(), SEP], target, number, len(head), spans_N2)
            )
    return Features(windows, cut / len(questions))


def _answer_positions(
    example: QuestionExample, spans_N2: npt.NDArray[np.int64], context_start: int
) -> list[int]:
    """Return the positions of the first and last token of the first answer.

    Both are 0 if there is no answer or the window does not contain all of it.
    """
    if not example.answers or not len(spans_N2):
        return [0, 0]
    start, end = example.starts[0], example.starts[0] + len(example.answers[0])
    inside = np.flatnonzero((spans_N2[:, 1] > start) & (spans_N2[:, 0] < end))
    if not len(inside) or start < spans_N2[0, 0] or end > spans_N2[-1, 1]:
        return [0, 0]
    return [context_start + int(inside[0]), context_start + int(inside[-1])]
