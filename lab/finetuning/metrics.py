"""What answers are worth: scikit-learn's and SciPy's metrics, and SQuAD's own.

Every score is 1 at best; a larger one is better.
"""

import re
import string
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import assert_never

import numpy as np

from lab.config.tasks import (
    ClassificationTask,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
)
from lab.finetuning.features import UNSEEN, TaskWindow
from lab.finetuning.heads import Answer, Span
from lab.tasks.examples import Examples, QuestionExample, TagExample, TextExample

Scores = dict[str, float]


def score_task(task: Examples, windows: Sequence[TaskWindow], answers: Sequence[Answer]) -> Scores:
    """Return every score that a task's kind has, the one that counts among them.

    Args:
        task: whose evaluation split was asked.
        windows: of that split.
        answers: to each of them.
    """
    match task.form:
        case ClassificationTask() | PairTask():
            return classification_scores(
                _gold(task), [int(a) for a in answers if isinstance(a, int)]
            )
        case RegressionTask():
            return regression_scores(_numbers(task), [a for a in answers if isinstance(a, float)])
        case TaggingTask():
            said = chain.from_iterable(a for a in answers if isinstance(a, list))
            return _tags(classification_scores(_gold(task), list(said)))
        case QuestionAnsweringTask():
            spans = [a for a in answers if isinstance(a, Span)]
            return answer_scores(_asked(task), answer_texts(task, windows, spans))
        case _:
            assert_never(task.form)


def majority_baseline(task: Examples) -> Scores:
    """Return the scores of who always says what is most frequent in what is learned from.

    To a question that is nothing; to a number, the mean, which follows no other number.
    """
    match task.form:
        case ClassificationTask() | PairTask() | TaggingTask():
            gold = _gold(task)
            frequent = Counter(_all(task.train)).most_common(1)[0][0]
            scores = classification_scores(gold, [task.labels.index(frequent)] * len(gold))
            return _tags(scores) if isinstance(task.form, TaggingTask) else scores
        case RegressionTask():
            return {"spearman": 0.0, "pearson": 0.0}
        case QuestionAnsweringTask():
            return answer_scores(_asked(task), [""] * len(task.evaluation))
        case _:
            assert_never(task.form)


def classification_scores(gold: Sequence[int], said: Sequence[int]) -> Scores:
    """Return accuracy, F1 and the correlation of Matthews; of two labels the second's F1 too.

    Args:
        gold: right labels; `UNSEEN` where nobody could learn it, which is never right.
        said: answers.
    """
    from sklearn import metrics

    scores = {
        "accuracy": float(metrics.accuracy_score(gold, said)),
        "macro_f1": float(metrics.f1_score(gold, said, average="macro", zero_division=0)),
        "matthews": _matthews(gold, said),
    }
    if {*gold, *said} <= {0, 1}:
        scores["f1"] = float(metrics.f1_score(gold, said, zero_division=0))
    return scores


def _matthews(gold: Sequence[int], said: Sequence[int]) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one label in both: the correlation is none
        return float(matthews_corrcoef(gold, said))


def regression_scores(gold: Sequence[float], said: Sequence[float]) -> Scores:
    """Return both correlations; 0 where a side is always the same, or a run was lost to NaN."""
    from scipy import stats

    if np.ptp(gold) == 0 or np.ptp(said) == 0 or not np.isfinite(said).all():
        return {"spearman": 0.0, "pearson": 0.0}
    return {
        "spearman": float(stats.spearmanr(gold, said).statistic),
        "pearson": float(stats.pearsonr(gold, said).statistic),
    }


def answer_scores(gold: Sequence[Sequence[str]], said: Sequence[str]) -> Scores:
    """Return SQuAD's exact match and F1, of each question's best answer, as shares.

    Args:
        gold: every right answer of each question; none where there is no answer.
        said: answers; empty for none.
    """
    pairs = [(right or [""], answer) for right, answer in zip(gold, said, strict=True)]
    exact = [
        max(normalize_answer(one) == normalize_answer(a) for one in right) for right, a in pairs
    ]
    shared = [max(token_overlap(one, a) for one in right) for right, a in pairs]
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(shared))}


def token_overlap(right: str, said: str) -> float:
    """Return F1 of the words of two answers; where one has none, whether both have."""
    a, b = normalize_answer(right).split(), normalize_answer(said).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def normalize_answer(answer: str) -> str:
    """Return an answer in lower case, without punctuation, articles and blanks beside one.

    `normalize_answer` of SQuAD's `evaluate-v2.0.py`.
    """
    bare = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def answer_texts(task: Examples, windows: Sequence[TaskWindow], spans: Sequence[Span]) -> list[str]:
    """Return the best answer of each question over all of its windows.

    None, an empty text, only where some question that was learned from had none: then where the
    windows agree that [CLS] is likelier than any span.
    """
    open_ended = not all(e.answers for e in task.train if isinstance(e, QuestionExample))
    best: dict[int, tuple[float, str]] = {}
    none: dict[int, float] = {}
    for window, span in zip(windows, spans, strict=True):
        number, known = window.example, best.get(window.example, (-np.inf, ""))
        none[number] = min(none.get(number, np.inf), span.none)
        if span.score > known[0]:
            best[number] = span.score, _text(task.evaluation[number], window, span)
    return [
        "" if open_ended and none[number] > best.get(number, (-np.inf, ""))[0]
        else best.get(number, (-np.inf, ""))[1]
        for number in range(len(task.evaluation))
    ]  # fmt: skip


def _text(example: object, window: TaskWindow, span: Span) -> str:
    if not isinstance(example, QuestionExample):
        return ""
    start = window.spans_N2[span.start - window.first, 0]
    end = window.spans_N2[span.end - window.first, 1]
    return example.context[int(start) : int(end)]


def _gold(task: Examples) -> list[int]:
    known = {label: place for place, label in enumerate(task.labels)}
    return [known.get(label, UNSEEN) for label in _all(task.evaluation)]


def _all(examples: Sequence[object]) -> list[str]:
    labels: list[str] = []
    for example in examples:
        match example:
            case TextExample(label=label):
                labels.append(str(label))
            case TagExample(tags=tags):
                labels.extend(tags)
    return labels


def _numbers(task: Examples) -> list[float]:
    return [float(e.label) for e in task.evaluation if isinstance(e, TextExample)]


def _asked(task: Examples) -> list[Sequence[str]]:
    return [e.answers for e in task.evaluation if isinstance(e, QuestionExample)]


def _tags(scores: Scores) -> Scores:
    """Leave out what is not asked of tags."""
    return {name: scores[name] for name in ("accuracy", "macro_f1")}
