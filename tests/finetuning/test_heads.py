"""Windows, heads and metrics: comparison with scikit-learn, SciPy and hand-computed cases."""

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prepared_text import PreparedText
from sklearn import metrics
from torch import nn
from torch.nn import functional as F

from lab.config.tasks import (
    ClassificationTask,
    FileRows,
    PairTask,
    QuestionAnsweringTask,
    RegressionTask,
    TaggingTask,
    TaskConfig,
)
from lab.data.batches import segment_ids
from lab.data.vocabulary import CLS, PAD, SEP, UNK, Vocabulary
from lab.finetuning import features, heads
from lab.finetuning import metrics as task_metrics
from lab.finetuning.features import IGNORE_INDEX, UNSEEN_LABEL, TaskWindow
from lab.finetuning.heads import Span
from lab.loading.task_table import TASKS
from lab.tasks.examples import Example, Examples, QuestionExample, TagExample, TextExample

NOTHING = FileRows(kind="file", path="none")
ROWS: Any = {"train": NOTHING, "evaluation": NOTHING}
CPU = torch.device("cpu")


def task(
    form: TaskConfig, *evaluation: Example, train: tuple[Example, ...] | None = None
) -> Examples:
    """Return a task; its training split equals its evaluation split unless `train` is set."""
    return Examples(
        name="task",
        config=form,
        train=evaluation if train is None else train,
        evaluation=evaluation,
        fingerprint="f",
    )


PAIRS = PairTask(kind="pairs", **ROWS)
SINGLE = ClassificationTask(kind="classification", **ROWS)
NUMBER = RegressionTask(kind="regression", **ROWS)
TAGS = TaggingTask(kind="tagging", **ROWS)
QUESTIONS = QuestionAnsweringTask(kind="question_answering", **ROWS)


def truncate_seq_pair(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """Truncate as the official `_truncate_seq_pair`: of two equally long lists, the second."""
    while len(a) + len(b) > room:
        if len(a) > len(b):
            a = a[:-1]
        else:
            b = b[:-1]
    return a, b


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40))
def test_pairs_are_truncated_as_in_the_official_code(a: int, b: int, room: int) -> None:
    first, second = list(range(a)), list(range(100, 100 + b))
    assert features.truncate_pair(first, second, room) == truncate_seq_pair(first, second, room)


@pytest.fixture
def vocabulary(prepared_text: PreparedText) -> Vocabulary:
    return prepared_text.corpus.vocabulary


def test_pair_has_two_segments(vocabulary: Vocabulary) -> None:
    pairs = task(PAIRS, TextExample("the king", "of the land", "x"), TextExample("a", "b", "y"))
    windows, cut = features.make_features(pairs, pairs.evaluation, vocabulary, 64)
    first, second = (ids.tolist() for ids in vocabulary.encode(["the king", "of the land"]))
    assert windows[0].ids == [CLS, *first, SEP, *second, SEP]
    inputs = heads.collate_windows(windows, CPU)
    segments = segment_ids(inputs.ids_BT)[0].tolist()
    assert segments == [1] * (len(first) + 2) + [2] * (len(second) + 1)
    assert [window.target for window in windows] == [[0.0], [1.0]]
    assert cut == 0


def test_long_texts_are_truncated_and_counted(vocabulary: Vocabulary) -> None:
    long = "the king of the land and all of his men " * 5
    for texts in (
        task(SINGLE, TextExample(long, None, "x"), TextExample("a", None, "y")),
        task(PAIRS, TextExample(long, "a", "x"), TextExample("a", "b", "y")),
        task(PAIRS, TextExample("a", long, "x"), TextExample("a", "b", "y")),
        task(PAIRS, TextExample(long, long, "x"), TextExample("a", "b", "y")),
    ):
        windows, cut = features.make_features(texts, texts.evaluation, vocabulary, 16)
        assert len(windows[0].ids) == 16
        assert cut == 0.5


def test_every_prediction_for_an_unseen_label_is_wrong(vocabulary: Vocabulary) -> None:
    train = (TextExample("a", None, "x"), TextExample("b", None, "y"))
    texts = task(SINGLE, TextExample("a", None, "z"), TextExample("a", None, "x"), train=train)
    windows, _ = features.make_features(texts, texts.evaluation, vocabulary, 16)
    assert [window.target for window in windows] == [[UNSEEN_LABEL], [0.0]]
    for answer in (0, 1):
        scores = task_metrics.score_task(texts, windows, [answer, 0])
        assert scores["accuracy"] == 0.5


@pytest.mark.parametrize("length", [8, 9, 16, 64])
def test_every_word_is_tagged_once_and_in_order(vocabulary: Vocabulary, length: int) -> None:
    """Holds for short windows, for a word without tokens and for a word longer than a window."""
    words = ["The", "king", "\u200b", "incomprehensibilities" * 3, "of", "zz", "the", "land", "."]
    tags = [f"t{number}" for number in range(len(words))]
    sentences = task(TAGS, TagExample(words, tags), TagExample(["a"], ["t0"]))
    windows, _ = features.make_features(sentences, sentences.evaluation, vocabulary, length)
    targets = [int(t) for window in windows for t in window.target if t != IGNORE_INDEX]
    assert targets == [sentences.labels.index(tag) for tag in [*tags, "t0"]]
    for window in windows:
        assert len(window.ids) == len(window.target) <= length
        assert (window.ids[0], window.ids[-1]) == (CLS, SEP)
    assert any(UNK in window.ids for window in windows)


def test_the_target_of_a_word_is_at_its_first_token(vocabulary: Vocabulary) -> None:
    sentence = task(TAGS, TagExample(["incomprehensibilities", "king"], ["x", "y"]))
    (window,), _ = features.make_features(sentence, sentence.evaluation, vocabulary, 64)
    tokens = vocabulary.words([["incomprehensibilities", "king"]])[0]
    firsts = [1 + tokens.word_T.tolist().index(word) for word in (0, 1)]
    assert [position for position, t in enumerate(window.target) if t != IGNORE_INDEX] == firsts
    assert len(tokens.ids_T) > 2


CONTEXT = "Norman knights, it is said, came from Denmark and Norway in the 10th century. " * 3


@pytest.mark.parametrize("length", [24, 32, 48, 128])
def test_answers_map_back_to_their_characters(vocabulary: Vocabulary, length: int) -> None:
    """The text at the target's positions is the answer, and some window contains all of it."""
    for answer in ("Denmark", "Norway", "the 10th century", "Norman knights"):
        for start in (CONTEXT.index(answer), CONTEXT.rindex(answer)):
            question = task(QUESTIONS, QuestionExample("From where?", CONTEXT, [answer], [start]))
            windows, _ = features.make_features(question, question.evaluation, vocabulary, length)
            with_answer = [window for window in windows if window.target != [0, 0]]
            assert with_answer
            for window in with_answer:
                first, last = map(int, window.target)
                span = Span(first, last, 1.0, 0.0)
                assert task_metrics.answer_texts(question, [window], [span]) == [answer]
                begins, ends = (
                    window.spans_N2[first - window.context_start, 0],
                    window.spans_N2[last - window.context_start, 1],
                )
                assert (begins, ends) == (start, start + len(answer))


@pytest.mark.parametrize("length", [8, 16, 40, 500])
def test_windows_of_a_question_cover_its_context_and_overlap(
    vocabulary: Vocabulary, length: int
) -> None:
    question = task(QUESTIONS, QuestionExample("Where from did they come?", CONTEXT, [], []))
    windows, cut = features.make_features(question, question.evaluation, vocabulary, length)
    spans = vocabulary.spans([CONTEXT])[0].span_T2
    covered = [tuple(span) for window in windows for span in window.spans_N2.tolist()]
    assert set(covered) == {tuple(span) for span in spans.tolist()}
    assert all(len(window.ids) <= length for window in windows)
    assert (cut == 1.0) is (len(windows) > 1)
    if len(windows) > 1:
        assert len(covered) > len(spans)
    assert all(window.target == [0, 0] for window in windows)


def window_of(tokens: int) -> TaskWindow:
    spans = np.array([[2 * number, 2 * number + 1] for number in range(tokens)])
    return TaskWindow([CLS, 9, SEP, *range(10, 10 + tokens), SEP], [0, 0], 0, 3, spans)


@given(st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_best_span_is_the_best_of_all_allowed_spans(tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start_T, end_T = torch.randn(2, tokens + 4, generator=generator).double()
    window = window_of(tokens)
    allowed = [
        (float(start_T[i] + end_T[j]), i, j)
        for i in range(3, 3 + tokens)
        for j in range(i, min(i + 30, 3 + tokens))
    ]
    best = heads.best_span(start_T, end_T, window)
    assert best[:3] == (max(allowed)[1], max(allowed)[2], max(allowed)[0])
    assert best.no_answer_score == float(start_T[0] + end_T[0])


def test_no_answer_is_predicted_only_if_a_training_question_has_no_answer() -> None:
    answered, unanswered = (
        QuestionExample("q", "a b", ["b"], [2]),
        QuestionExample("q", "a b", [], []),
    )
    window = TaskWindow([CLS, 9, SEP, 10, 11, SEP], [4, 4], 0, 3, np.array([[0, 1], [2, 3]]))
    below_no_answer = Span(4, 4, 1.0, 2.0)
    above_no_answer = Span(3, 3, 3.0, 2.0)
    answerable = task(QUESTIONS, answered)
    mixed = task(QUESTIONS, answered, train=(answered, unanswered))
    assert task_metrics.answer_texts(answerable, [window], [below_no_answer]) == ["b"]
    assert task_metrics.answer_texts(mixed, [window], [below_no_answer]) == [""]
    # One window of the question with a span above its no-answer score is enough.
    spans = [below_no_answer, above_no_answer]
    assert task_metrics.answer_texts(mixed, [window, window], spans) == ["a"]


# Computed by hand from SQuAD's evaluate-v2.0.py: lower case, no punctuation, no articles.
SQUAD = {
    ("Denver Broncos", "the Denver Broncos!"): (1.0, 1.0),
    ("Denver Broncos", "Broncos"): (0.0, 2 / 3),
    ("Denver Broncos", "Denver Broncos of Denver"): (0.0, 2 * (2 / 4) * 1 / (2 / 4 + 1)),
    ("Denver Broncos", "Panthers"): (0.0, 0.0),
    ("Denver Broncos", ""): (0.0, 0.0),
    ("", ""): (1.0, 1.0),
    ("", "the"): (1.0, 1.0),
    ("10th-century", "10thcentury"): (1.0, 1.0),
    ("a b b", "b b c"): (0.0, 2 * (2 / 3) * 1.0 / (2 / 3 + 1.0)),
}


@pytest.mark.parametrize("case", SQUAD)
def test_answers_are_scored_as_in_squad(case: tuple[str, str]) -> None:
    correct, predicted = case
    exact, overlap = SQUAD[case]
    scores = task_metrics.answer_scores([[correct] if correct else []], [predicted])
    assert scores["exact_match"] == exact
    assert scores["f1"] == pytest.approx(overlap)


def test_the_best_match_with_several_correct_answers_counts() -> None:
    scores = task_metrics.answer_scores([["x", "Denver Broncos"], ["y"]], ["Broncos Denver", "y"])
    assert scores == {"exact_match": 0.5, "f1": 1.0}


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=50))
def test_scores_of_two_labels_follow_their_formulas(pairs: list[tuple[int, int]]) -> None:
    count = {key: pairs.count(key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    tn, fp, fn, tp = count.values()
    gold, predicted = (list(column) for column in zip(*pairs, strict=True))
    scores = task_metrics.classification_scores(gold, predicted)
    assert scores["accuracy"] == pytest.approx((tn + tp) / len(pairs))
    assert scores["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)
    under = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores["matthews"] == pytest.approx((tp * tn - fp * fn) / under if under else 0)


def test_correlations_equal_numpys_and_are_zero_for_constants_and_nan() -> None:
    gold, predicted = [1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 16.0]
    scores = task_metrics.regression_scores(gold, predicted)
    assert scores["spearman"] == pytest.approx(1)
    assert scores["pearson"] == pytest.approx(np.corrcoef(gold, predicted)[0, 1])
    for undefined in ([2.0] * 4, [1.0, math.nan, 3.0, 4.0]):
        assert task_metrics.regression_scores(gold, undefined) == {"spearman": 0.0, "pearson": 0.0}


@pytest.mark.reported
@pytest.mark.parametrize(
    ("predicted", "reason"),
    [
        ([2.0, 2.0], "all predicted numbers are equal, so the correlation is undefined"),
        ([1.0, math.nan], "a predicted number is not finite, so the correlation is undefined"),
        ([1.0, 2.0], ""),
    ],
)
def test_a_correlation_that_does_not_exist_has_a_reason(
    predicted: list[float], reason: str
) -> None:
    numbers = task(NUMBER, TextExample("a", None, 1.0), TextExample("b", None, 2.0))
    undefined = task_metrics.describe_undefined(numbers, predicted)
    assert undefined.startswith(reason)
    assert bool(undefined) == bool(reason)


def test_majority_baseline_predicts_the_most_frequent_training_label() -> None:
    train = tuple(TextExample("a", None, label) for label in "xyy")
    texts = task(SINGLE, *(TextExample("a", None, label) for label in "xxxy"), train=train)
    assert task_metrics.majority_baseline(texts)["accuracy"] == 0.25
    by_matthews = replace(texts, config=replace(SINGLE, metric="matthews"))
    assert task_metrics.majority_baseline(by_matthews)["matthews"] == 0
    tags = task(
        TAGS, TagExample(["a", "b"], ["x", "y"]), train=(TagExample(["a"] * 3, list("xxy")),)
    )
    assert task_metrics.majority_baseline(tags)["accuracy"] == 0.5
    questions = task(
        QUESTIONS, QuestionExample("q", "b", [], []), QuestionExample("q", "b", ["b"], [0])
    )
    assert task_metrics.majority_baseline(questions) == {"exact_match": 0.5, "f1": 0.5}
    numbers = task(NUMBER, TextExample("a", None, 1.0), TextExample("b", None, 2.0))
    assert task_metrics.majority_baseline(numbers)["spearman"] == 0


@pytest.mark.parametrize("name", ["pos", "sentiment"])
def test_majority_baseline_equals_scikit_learns_dummy_classifier(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every tenth row of the embedded tasks."""
    from sklearn.dummy import DummyClassifier

    from lab.tasks import examples, rows

    read = rows.read_embedded_rows
    monkeypatch.setattr(
        rows, "read_embedded_rows", lambda *split: islice(read(*split), 0, None, 10)
    )
    labelled = examples.read_examples(TASKS[name])
    train, gold = (
        [tag for e in split for tag in (e.tags if isinstance(e, TagExample) else [e.label])]  # type: ignore[union-attr]
        for split in (labelled.train, labelled.evaluation)
    )
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(train), 1)), train)
    accuracy = metrics.accuracy_score(gold, dummy.predict(np.zeros((len(gold), 1))))
    assert task_metrics.majority_baseline(labelled)["accuracy"] == accuracy


@given(
    train=st.lists(st.sampled_from("xyz"), min_size=1),
    gold=st.lists(st.sampled_from("xyz"), min_size=1),
    metric=st.sampled_from(["accuracy", "macro_f1", "matthews"]),
)
def test_entry_of_the_baseline_is_the_tasks_metric_of_scikit_learns_dummy_classifier(
    train: list[str], gold: list[str], metric: Any
) -> None:
    from sklearn.dummy import DummyClassifier

    examples = task(
        replace(SINGLE, metric=metric),
        *(TextExample("a", None, label) for label in gold),
        train=tuple(TextExample("a", None, label) for label in train),
    )
    dummy = DummyClassifier(strategy="most_frequent").fit([[0]] * len(train), train)
    predicted = dummy.predict([[0]] * len(gold))
    known = [label if label in train else "unseen" for label in gold]
    expected = {
        "accuracy": metrics.accuracy_score(known, predicted),
        "macro_f1": metrics.f1_score(known, predicted, average="macro", zero_division=0),
        "matthews": 0.0,
    }[metric]
    entry = task_metrics.baseline_entry(examples)
    assert entry == {"baseline/majority/finetune/task": pytest.approx(expected)}


def test_entry_of_f1_is_that_of_scikit_learns_dummy_classifier() -> None:
    from sklearn.dummy import DummyClassifier

    train, gold = list("xyyyx"), list("xxyxy")
    examples = task(
        replace(SINGLE, metric="f1"),
        *(TextExample("a", None, label) for label in gold),
        train=tuple(TextExample("a", None, label) for label in train),
    )
    dummy = DummyClassifier(strategy="most_frequent").fit([[0]] * 5, train)
    expected = metrics.f1_score(gold, dummy.predict([[0]] * 5), pos_label="y")
    assert expected > 0
    entry = task_metrics.baseline_entry(examples)
    assert entry == {"baseline/majority/finetune/task": pytest.approx(expected)}


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
def test_entry_of_regression_is_that_of_scikit_learns_dummy_regressor(metric: Any) -> None:
    from sklearn.dummy import DummyRegressor

    train, gold = [1.0, 2.0, 6.0], [3.0, 1.0]
    examples = task(
        replace(NUMBER, metric=metric),
        *(TextExample("a", None, number) for number in gold),
        train=tuple(TextExample("a", None, number) for number in train),
    )
    predicted = DummyRegressor().fit([[0]] * 3, train).predict([[0]] * 2).tolist()
    assert predicted == [3.0, 3.0]
    expected = task_metrics.regression_scores(gold, predicted)[metric]
    assert task_metrics.baseline_entry(examples) == {"baseline/mean/finetune/task": expected}


def test_entry_of_question_answering_predicts_no_answer() -> None:
    questions = task(
        QUESTIONS, QuestionExample("q", "b", [], []), QuestionExample("q", "b", ["b"], [0])
    )
    entry = task_metrics.baseline_entry(questions)
    assert entry == {"baseline/no_answer/finetune/task": 0.5}


def head_of(examples: Examples) -> heads.Head:
    head = heads.build_head(examples, 8, dropout=0)
    head.init_weights(torch.Generator().manual_seed(1))
    return head


def random_states(inputs: heads.HeadInputs) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*inputs.ids_BT.shape, 8, generator=generator)


EXAMPLES: dict[str, Examples] = {
    "classification": task(SINGLE, TextExample("the king", None, "x"), TextExample("a", None, "y")),
    "regression": task(NUMBER, TextExample("the king", None, 2.0), TextExample("a", None, 5.0)),
    "tagging": task(TAGS, TagExample(["the", "king"], ["x", "y"]), TagExample(["a"], ["x"])),
    "question_answering": task(
        QUESTIONS,
        QuestionExample("who", "the king", ["king"], [4]),
        QuestionExample("a", "b the king of", ["b"], [0]),
    ),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_padding_changes_no_prediction_and_no_loss(kind: str, vocabulary: Vocabulary) -> None:
    examples = EXAMPLES[kind]
    windows, _ = features.make_features(examples, examples.evaluation, vocabulary, 16)
    head = head_of(examples).eval()
    inputs = heads.collate_windows(windows, CPU)
    wider = heads.HeadInputs(
        F.pad(inputs.ids_BT, (0, 3), value=PAD),
        F.pad(inputs.target_BX, (0, 3), value=IGNORE_INDEX)
        if kind == "tagging"
        else inputs.target_BX,
        windows,
    )
    states = random_states(inputs)
    padded = F.pad(states, (0, 0, 0, 3), value=7.0)
    with torch.no_grad():
        assert head.predict(states, inputs) == head.predict(padded, wider)
    assert head.loss(states, inputs).item() == pytest.approx(head.loss(padded, wider).item())


def test_losses_equal_their_formulas(vocabulary: Vocabulary) -> None:
    for kind, examples in EXAMPLES.items():
        windows, _ = features.make_features(examples, examples.evaluation, vocabulary, 16)
        head, inputs = head_of(examples).eval(), heads.collate_windows(windows, CPU)
        states = random_states(inputs)
        logits = states @ head.dense.weight.T
        match kind:
            case "classification":
                log = logits[:, 0].log_softmax(-1)
                expected = -(log[0, 0] + log[1, 1]) / 2
            case "regression":  # the range of the training split, 2 to 5, is scaled to 0 to 1
                expected = (logits[0, 0, 0] ** 2 + (logits[1, 0, 0] - 1) ** 2) / 2
            case "tagging":
                tagged = (inputs.target_BX != IGNORE_INDEX).nonzero().tolist()
                log = logits.log_softmax(-1)
                losses = [-log[b, t, int(inputs.target_BX[b, t])] for b, t in tagged]
                assert len(losses) == 3
                expected = torch.stack(losses).mean()
            case _:
                lengths = [len(window.ids) for window in windows]
                losses = [
                    -logits[b, : lengths[b], end].log_softmax(0)[int(windows[b].target[end])]
                    for b in (0, 1)
                    for end in (0, 1)
                ]
                expected = torch.stack(losses).mean()
        assert head.loss(states, inputs).item() == pytest.approx(expected.item(), rel=1e-5)


def test_initial_weights_are_glorot_uniform_and_depend_on_the_seed_alone() -> None:
    first, again, other = (head_of(EXAMPLES["classification"]) for _ in range(3))
    other.init_weights(torch.Generator().manual_seed(2))
    assert torch.equal(first.dense.weight, again.dense.weight)
    assert not torch.equal(first.dense.weight, other.dense.weight)
    assert not first.dense.bias.any()
    limit = math.sqrt(6 / (8 + 2))
    assert first.dense.weight.abs().max() <= limit
    assert isinstance(first.dense, nn.Linear)
