"""Metrics of fine-tuned predictions: those of scikit-learn and SciPy, and those of SQuAD.

A higher score is better, and 1 is the best.
"""

import re
import string
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt

from lab.config.lookups import baseline_name
from lab.config.metrics import finetuned
from lab.config.tasks import (
    ClassificationTask,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
)
from lab.finetuning.features import UNSEEN_LABEL, TaskWindow
from lab.finetuning.heads import Answer, Span
from lab.tasks.examples import Example, Examples, QuestionExample, TagExample, TextExample

Scores = dict[str, float]
Labels = Sequence[int] | npt.NDArray[np.int64]
Numbers = Sequence[float] | npt.NDArray[np.float64]


def score_task(task: Examples, windows: Sequence[TaskWindow], answers: Sequence[Answer]) -> Scores:
    """Return the scores of all metrics of a task's kind, the task's main metric included.

    Args:
        task: task with the evaluation split that was predicted.
        windows: windows of the evaluation split.
        answers: prediction for each window.
    """
    match task.config:
        case ClassificationTask() | PairTask():
            return classification_scores(gold_labels(task), predicted_labels(answers))
        case RegressionTask():
            return regression_scores(numbers(task.evaluation), predicted_numbers(answers))
        case TaggingTask():
            scores = classification_scores(gold_labels(task), predicted_labels(answers))
            return _tagging_scores(scores)
        case QuestionAnsweringTask():
            values = question_scores(task, windows, answers)
            return {name: float(np.mean(values_Q)) for name, values_Q in values.items()}
        case _:
            assert_never(task.config)


def majority_baseline(task: Examples) -> Scores:
    """Return the majority baseline: always predict the most frequent training label.

    Of several most frequent labels it is the first one in sorted order, as in scikit-learn's
    `DummyClassifier`. For question answering it predicts no answer. For regression it predicts the
    mean training label; both correlations are then 0 by convention (`regression_scores`).
    """
    match task.config:
        case ClassificationTask() | PairTask() | TaggingTask():
            gold = gold_labels(task)
            counts = Counter(_labels(task.train))
            frequent = max(range(len(task.labels)), key=lambda label: counts[task.labels[label]])
            scores = classification_scores(gold, [frequent] * len(gold))
            return _tagging_scores(scores) if isinstance(task.config, TaggingTask) else scores
        case RegressionTask():
            mean = float(np.mean(numbers(task.train)))
            return regression_scores(numbers(task.evaluation), [mean] * len(task.evaluation))
        case QuestionAnsweringTask():
            return answer_scores(_gold_answers(task), [""] * len(task.evaluation))
        case _:
            assert_never(task.config)


def baseline_entry(task: Examples) -> Scores:
    """Return the main metric of the majority baseline as an entry of a trial's metrics."""
    match task.config:
        case RegressionTask():
            table = "mean"
        case QuestionAnsweringTask():
            table = "no_answer"
        case _:
            table = "majority"
    score = majority_baseline(task)[task.config.metric]
    return {baseline_name(table, finetuned(task.name).name): score}


def classification_scores(gold: Labels, predicted: Labels) -> Scores:
    """Return accuracy, macro F1 and Matthews correlation; for labels 0 and 1 also the F1 of 1.

    Args:
        gold: indices of the correct labels; `UNSEEN_LABEL` for a label that does not occur in the
            training split, for which every prediction is wrong.
        predicted: indices of the predicted labels.
    """
    names = ["accuracy", "macro_f1", "matthews"]
    if {*gold, *predicted} <= {0, 1}:
        names.append("f1")
    return {name: classification_score(name, gold, predicted) for name in names}


def classification_score(metric: str, gold: Labels, predicted: Labels) -> float:
    """Return one of the scores of `classification_scores`."""
    from sklearn import metrics

    match metric:
        case "accuracy":
            return float(metrics.accuracy_score(gold, predicted))
        case "macro_f1":
            return float(metrics.f1_score(gold, predicted, average="macro", zero_division=0))
        case "matthews":
            return _matthews_correlation(gold, predicted)
        case _:
            return float(metrics.f1_score(gold, predicted, zero_division=0))


def _matthews_correlation(gold: Labels, predicted: Labels) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        # With one label in both, the correlation is undefined; scikit-learn warns and returns 0.
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(gold, predicted))


def describe_undefined(task: Examples, answers: Sequence[Answer]) -> str:
    """Return why the scores of predictions are 0 by convention; empty if they are defined.

    Args:
        task: task with the evaluation split that was predicted.
        answers: prediction for each window.
    """
    if not isinstance(task.config, RegressionTask):
        return ""
    return describe_uncorrelated(predicted_numbers(answers))


def describe_uncorrelated(predicted: Numbers) -> str:
    """Return why no correlation with the predicted numbers exists; empty if one does."""
    if not np.isfinite(predicted).all():
        return "a predicted number is not finite, so the correlation is undefined and counts as 0"
    if np.ptp(predicted) == 0:
        return "all predicted numbers are equal, so the correlation is undefined and counts as 0"
    return ""


def regression_scores(gold: Numbers, predicted: Numbers) -> Scores:
    """Return the Spearman and the Pearson correlation.

    Both are 0 if the correct or the predicted numbers are constant, for which a correlation is
    undefined, or if a predicted number is NaN or infinite.
    """
    from scipy import stats

    if np.ptp(gold) == 0 or describe_uncorrelated(predicted):
        return {"spearman": 0.0, "pearson": 0.0}
    return {
        "spearman": float(stats.spearmanr(gold, predicted).statistic),
        "pearson": float(stats.pearsonr(gold, predicted).statistic),
    }


def answer_scores(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> Scores:
    """Return SQuAD's exact match and F1 as shares, averaged over the questions.

    Args:
        gold: correct answers to each question; empty for a question without an answer.
        predicted: predicted answer to each question; "" for no answer.
    """
    return {
        name: float(np.mean(values)) for name, values in _score_answers(gold, predicted).items()
    }


def question_scores(
    task: Examples, windows: Sequence[TaskWindow], answers: Sequence[Answer]
) -> dict[str, list[float]]:
    """Return the exact match and the F1 of each question; the arguments are those of `score_task`.

    Their means are the scores of the task.
    """
    spans = [answer for answer in answers if isinstance(answer, Span)]
    return _score_answers(_gold_answers(task), answer_texts(task, windows, spans))


def _score_answers(
    gold: Sequence[Sequence[str]], predicted: Sequence[str]
) -> dict[str, list[float]]:
    """Return the exact match and the F1 of each question; the arguments are of `answer_scores`.

    A prediction is compared with every correct answer; the best match counts.
    """
    pairs = [(correct or [""], answer) for correct, answer in zip(gold, predicted, strict=True)]
    exact = [
        float(max(normalize_answer(c) == normalize_answer(answer) for c in correct))
        for correct, answer in pairs
    ]
    overlap = [max(token_overlap(c, answer) for c in correct) for correct, answer in pairs]
    return {"exact_match": exact, "f1": overlap}


def token_overlap(correct: str, predicted: str) -> float:
    """Return the F1 of the words of two answers; if one has no words, 1 if both have none, else 0.

    Equals `compute_f1` of SQuAD's `evaluate-v2.0.py`.
    """
    a, b = normalize_answer(correct).split(), normalize_answer(predicted).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def normalize_answer(answer: str) -> str:
    """Return an answer in lower case, without punctuation, articles and repeated white space.

    Equals `normalize_answer` of SQuAD's `evaluate-v2.0.py`.
    """
    bare = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def answer_texts(task: Examples, windows: Sequence[TaskWindow], spans: Sequence[Span]) -> list[str]:
    """Return the best answer to each question of the evaluation split over all of its windows.

    The answer is "" (no answer) if the no-answer score of every window exceeds the best span's
    score. If every training question has an answer, this rule does not apply.

    Args:
        task: question answering task.
        windows: windows of the evaluation split.
        spans: predicted span of each window.
    """
    unanswerable = not all(e.answers for e in task.train if isinstance(e, QuestionExample))
    best: dict[int, tuple[float, str]] = {}
    no_answer_scores: dict[int, float] = {}
    for window, span in zip(windows, spans, strict=True):
        number, best_so_far = window.example, best.get(window.example, (-np.inf, ""))
        no_answer_scores[number] = min(no_answer_scores.get(number, np.inf), span.no_answer_score)
        if span.score > best_so_far[0]:
            best[number] = span.score, _span_text(task.evaluation[number], window, span)
    return [
        "" if unanswerable and no_answer_scores[number] > best.get(number, (-np.inf, ""))[0]
        else best.get(number, (-np.inf, ""))[1]
        for number in range(len(task.evaluation))
    ]  # fmt: skip


def _span_text(example: object, window: TaskWindow, span: Span) -> str:
    if not isinstance(example, QuestionExample):
        return ""
    start = window.spans_N2[span.start - window.context_start, 0]
    end = window.spans_N2[span.end - window.context_start, 1]
    return example.context[int(start) : int(end)]


def gold_labels(task: Examples) -> list[int]:
    """Return the index of the correct label of each evaluation row, or of each word."""
    index = {label: number for number, label in enumerate(task.labels)}
    return [index.get(label, UNSEEN_LABEL) for label in _labels(task.evaluation)]


def _labels(examples: Sequence[object]) -> list[str]:
    labels: list[str] = []
    for example in examples:
        match example:
            case TextExample(label=label):
                labels.append(str(label))
            case TagExample(tags=tags):
                labels.extend(tags)
    return labels


def predicted_labels(answers: Sequence[Answer]) -> list[int]:
    """Return the predicted labels; those of all words for tagging."""
    return [
        label
        for answer in answers
        if isinstance(answer, int | list)
        for label in (answer if isinstance(answer, list) else [answer])
    ]


def predicted_numbers(answers: Sequence[Answer]) -> list[float]:
    """Return the predicted numbers of a regression."""
    return [answer for answer in answers if isinstance(answer, float)]


def numbers(examples: Sequence[Example]) -> list[float]:
    """Return the correct number of each example of a regression."""
    return [float(e.label) for e in examples if isinstance(e, TextExample)]


def _gold_answers(task: Examples) -> list[Sequence[str]]:
    return [e.answers for e in task.evaluation if isinstance(e, QuestionExample)]


def _tagging_scores(scores: Scores) -> Scores:
    """Return the classification scores that are metrics of tagging."""
    return {name: scores[name] for name in ("accuracy", "macro_f1")}
