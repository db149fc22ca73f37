"""Windows, heads and grades: against scikit-learn, SciPy, and cases worked out by hand."""

import math
from dataclasses import replace
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
from lab.finetuning import metrics as grading
from lab.finetuning.features import NOWHERE, UNSEEN, TaskWindow
from lab.finetuning.heads import Span
from lab.loading.task_table import TASKS
from lab.tasks.examples import Example, Examples, QuestionExample, TagExample, TextExample

NOTHING = FileRows(kind="file", path="none")
ROWS: Any = {"train": NOTHING, "evaluation": NOTHING}
CPU = torch.device("cpu")


def task(form: TaskConfig, *found: Example, train: tuple[Example, ...] | None = None) -> Examples:
    return Examples(
        name="it", form=form, train=found if train is None else train, evaluation=found,
        fingerprint="f",
    )  # fmt: skip


PAIRS = PairTask(kind="pairs", **ROWS)
SINGLE = ClassificationTask(kind="classification", **ROWS)
NUMBER = RegressionTask(kind="regression", **ROWS)
TAGS = TaggingTask(kind="tagging", **ROWS)
ASKING = QuestionAnsweringTask(kind="question_answering", **ROWS)


def taken_one_by_one(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """The official `_truncate_seq_pair`, in words: of equals the second gives."""
    while len(a) + len(b) > room:
        if len(a) > len(b):
            a = a[:-1]
        else:
            b = b[:-1]
    return a, b


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40))
def test_pairs_are_cut_as_the_official_code_cuts_them(a: int, b: int, room: int) -> None:
    first, second = list(range(a)), list(range(100, 100 + b))
    assert features.truncate_pair(first, second, room) == taken_one_by_one(first, second, room)


@pytest.fixture
def vocabulary(prepared_text: PreparedText) -> Vocabulary:
    return prepared_text.corpus.vocabulary


def test_pair_is_two_segments(vocabulary: Vocabulary) -> None:
    made = task(PAIRS, TextExample("the king", "of the land", "x"), TextExample("a", "b", "y"))
    windows, cut = features.make_features(made, made.evaluation, vocabulary, 64)
    first, second = (ids.tolist() for ids in vocabulary.encode(["the king", "of the land"]))
    assert windows[0].ids == [CLS, *first, SEP, *second, SEP]
    inputs = heads.collate_windows(windows, CPU)
    where = segment_ids(inputs.ids_BT)[0].tolist()
    assert where == [1] * (len(first) + 2) + [2] * (len(second) + 1)
    assert [window.target for window in windows] == [[0.0], [1.0]]
    assert cut == 0


def test_what_does_not_fit_is_cut_and_counted(vocabulary: Vocabulary) -> None:
    long = "the king of the land and all of his men " * 5
    for made in (
        task(SINGLE, TextExample(long, None, "x"), TextExample("a", None, "y")),
        task(PAIRS, TextExample(long, "a", "x"), TextExample("a", "b", "y")),
        task(PAIRS, TextExample("a", long, "x"), TextExample("a", "b", "y")),
        task(PAIRS, TextExample(long, long, "x"), TextExample("a", "b", "y")),
    ):
        windows, cut = features.make_features(made, made.evaluation, vocabulary, 16)
        assert len(windows[0].ids) == 16
        assert cut == 0.5


def test_unseen_label_is_never_right(vocabulary: Vocabulary) -> None:
    known = (TextExample("a", None, "x"), TextExample("b", None, "y"))
    made = task(SINGLE, TextExample("a", None, "z"), TextExample("a", None, "x"), train=known)
    windows, _ = features.make_features(made, made.evaluation, vocabulary, 16)
    assert [window.target for window in windows] == [[UNSEEN], [0.0]]
    for answer in (0, 1):
        scores = grading.score_task(made, windows, [answer, 0])
        assert scores["accuracy"] == 0.5


@pytest.mark.parametrize("length", [8, 9, 16, 64])
def test_every_word_is_tagged_once_and_in_order(vocabulary: Vocabulary, length: int) -> None:
    """However short the windows; a word of no tokens, and one longer than a window, too."""
    words = ["The", "king", "\u200b", "incomprehensibilities" * 3, "of", "zz", "the", "land", "."]
    tags = [f"t{place}" for place in range(len(words))]
    made = task(TAGS, TagExample(words, tags), TagExample(["a"], ["t0"]))
    windows, _ = features.make_features(made, made.evaluation, vocabulary, length)
    found = [int(t) for window in windows for t in window.target if t != NOWHERE]
    assert found == [made.labels.index(tag) for tag in [*tags, "t0"]]
    for window in windows:
        assert len(window.ids) == len(window.target) <= length
        assert (window.ids[0], window.ids[-1]) == (CLS, SEP)
    assert any(UNK in window.ids for window in windows)


def test_tagger_reads_the_first_token_of_each_word(vocabulary: Vocabulary) -> None:
    made = task(TAGS, TagExample(["incomprehensibilities", "king"], ["x", "y"]))
    (window,), _ = features.make_features(made, made.evaluation, vocabulary, 64)
    pieces = vocabulary.words([["incomprehensibilities", "king"]])[0]
    firsts = [1 + pieces.word_T.tolist().index(word) for word in (0, 1)]
    assert [place for place, t in enumerate(window.target) if t != NOWHERE] == firsts
    assert len(pieces.ids_T) > 2


CONTEXT = "Norman knights, it is said, came from Denmark and Norway in the 10th century. " * 3


@pytest.mark.parametrize("length", [24, 32, 48, 128])
def test_answers_map_back_to_their_characters(vocabulary: Vocabulary, length: int) -> None:
    """The target's positions, read back, are the answer; and some window holds it whole."""
    for answer in ("Denmark", "Norway", "the 10th century", "Norman knights"):
        for start in (CONTEXT.index(answer), CONTEXT.rindex(answer)):
            made = task(ASKING, QuestionExample("From where?", CONTEXT, [answer], [start]))
            windows, _ = features.make_features(made, made.evaluation, vocabulary, length)
            whole = [window for window in windows if window.target != [0, 0]]
            assert whole
            for window in whole:
                first, last = map(int, window.target)
                sure = Span(first, last, 1.0, 0.0)
                assert grading.answer_texts(made, [window], [sure]) == [answer]
                begins, ends = (
                    window.spans_N2[first - window.first, 0],
                    window.spans_N2[last - window.first, 1],
                )
                assert (begins, ends) == (start, start + len(answer))


@pytest.mark.parametrize("length", [8, 16, 40, 500])
def test_windows_of_a_question_cover_its_text_and_overlap(
    vocabulary: Vocabulary, length: int
) -> None:
    made = task(ASKING, QuestionExample("Where from did they come?", CONTEXT, [], []))
    windows, cut = features.make_features(made, made.evaluation, vocabulary, length)
    spans = vocabulary.spans([CONTEXT])[0].span_T2
    seen = [tuple(span) for window in windows for span in window.spans_N2.tolist()]
    assert set(seen) == {tuple(span) for span in spans.tolist()}
    assert all(len(window.ids) <= length for window in windows)
    assert (cut == 1.0) is (len(windows) > 1)
    if len(windows) > 1:
        assert len(seen) > len(spans)
    assert all(window.target == [0, 0] for window in windows)


def window_of(tokens: int) -> TaskWindow:
    spans = np.array([[2 * place, 2 * place + 1] for place in range(tokens)])
    return TaskWindow([CLS, 9, SEP, *range(10, 10 + tokens), SEP], [0, 0], 0, 3, spans)


@given(st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_best_span_is_the_best_of_all_that_are_allowed(tokens: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    start_T, end_T = torch.randn(2, tokens + 4, generator=chance).double()
    window = window_of(tokens)
    allowed = [
        (float(start_T[i] + end_T[j]), i, j)
        for i in range(3, 3 + tokens)
        for j in range(i, min(i + 30, 3 + tokens))
    ]
    found = heads.best_span(start_T, end_T, window)
    assert found[:3] == (max(allowed)[1], max(allowed)[2], max(allowed)[0])
    assert found.none == float(start_T[0] + end_T[0])


def test_no_answer_is_said_only_where_it_could_be_learned() -> None:
    answered, not_answered = (
        QuestionExample("q", "a b", ["b"], [2]),
        QuestionExample("q", "a b", [], []),
    )
    window = TaskWindow([CLS, 9, SEP, 10, 11, SEP], [4, 4], 0, 3, np.array([[0, 1], [2, 3]]))
    doubtful = Span(4, 4, 1.0, 2.0)
    sure = Span(3, 3, 3.0, 2.0)
    always = task(ASKING, answered)
    sometimes = task(ASKING, answered, train=(answered, not_answered))
    assert grading.answer_texts(always, [window], [doubtful]) == ["b"]
    assert grading.answer_texts(sometimes, [window], [doubtful]) == [""]
    # Another window of the same question has a better answer, and doubts less.
    assert grading.answer_texts(sometimes, [window, window], [doubtful, sure]) == ["a"]


# Worked out by hand from SQuAD's evaluate-v2.0.py: lower case, no punctuation, no articles.
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
def test_answers_are_graded_as_squad_does(case: tuple[str, str]) -> None:
    right, said = case
    exact, shared = SQUAD[case]
    scores = grading.answer_scores([[right] if right else []], [said])
    assert scores["exact_match"] == exact
    assert scores["f1"] == pytest.approx(shared)


def test_the_best_of_several_right_answers_counts() -> None:
    scores = grading.answer_scores([["x", "Denver Broncos"], ["y"]], ["Broncos Denver", "y"])
    assert scores == {"exact_match": 0.5, "f1": 1.0}


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=50))
def test_two_labels_have_the_four_scores_by_their_formulas(pairs: list[tuple[int, int]]) -> None:
    count = {key: pairs.count(key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    tn, fp, fn, tp = count.values()
    scores = grading.classification_scores([gold for gold, _ in pairs], [said for _, said in pairs])
    assert scores["accuracy"] == pytest.approx((tn + tp) / len(pairs))
    assert scores["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)
    under = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores["matthews"] == pytest.approx((tp * tn - fp * fn) / under if under else 0)


def test_correlations_are_those_of_ranks_and_of_numbers() -> None:
    gold, said = [1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 16.0]
    scores = grading.regression_scores(gold, said)
    assert scores["spearman"] == pytest.approx(1)
    assert scores["pearson"] == pytest.approx(np.corrcoef(gold, said)[0, 1])
    for lost in ([2.0] * 4, [1.0, math.nan, 3.0, 4.0]):
        assert grading.regression_scores(gold, lost) == {"spearman": 0.0, "pearson": 0.0}


def test_majority_is_what_is_most_frequent_in_what_is_learned() -> None:
    train = tuple(TextExample("a", None, label) for label in "xyy")
    made = task(SINGLE, *(TextExample("a", None, label) for label in "xxxy"), train=train)
    assert grading.majority_baseline(made)["accuracy"] == 0.25
    matthews = grading.majority_baseline(replace(made, form=replace(SINGLE, metric="matthews")))
    assert matthews["matthews"] == 0
    tags = task(
        TAGS, TagExample(["a", "b"], ["x", "y"]), train=(TagExample(["a"] * 3, list("xxy")),)
    )
    assert grading.majority_baseline(tags)["accuracy"] == 0.5
    asked = task(ASKING, QuestionExample("q", "b", [], []), QuestionExample("q", "b", ["b"], [0]))
    assert grading.majority_baseline(asked) == {"exact_match": 0.5, "f1": 0.5}
    number = task(NUMBER, TextExample("a", None, 1.0), TextExample("b", None, 2.0))
    assert grading.majority_baseline(number)["spearman"] == 0


@pytest.mark.parametrize("name", ["pos", "sentiment"])
def test_majority_is_scikit_learns_dummy(name: str) -> None:
    from sklearn.dummy import DummyClassifier

    from lab.tasks import examples

    made = examples.read_examples(TASKS[name])
    learned, asked = (
        [tag for e in split for tag in (e.tags if isinstance(e, TagExample) else [e.label])]  # type: ignore[union-attr]
        for split in (made.train, made.evaluation)
    )
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(learned), 1)), learned)
    said = dummy.predict(np.zeros((len(asked), 1)))
    assert grading.majority_baseline(made)["accuracy"] == metrics.accuracy_score(asked, said)


def head_of(made: Examples) -> heads.Head:
    head = heads.build_head(made, 8, dropout=0)
    head.start(torch.Generator().manual_seed(1))
    return head


def hidden(inputs: heads.HeadInputs) -> torch.Tensor:
    chance = torch.Generator().manual_seed(2)
    return torch.randn(*inputs.ids_BT.shape, 8, generator=chance)


MADE: dict[str, Examples] = {
    "classification": task(SINGLE, TextExample("the king", None, "x"), TextExample("a", None, "y")),
    "regression": task(NUMBER, TextExample("the king", None, 2.0), TextExample("a", None, 5.0)),
    "tagging": task(TAGS, TagExample(["the", "king"], ["x", "y"]), TagExample(["a"], ["x"])),
    "question_answering": task(
        ASKING,
        QuestionExample("who", "the king", ["king"], [4]),
        QuestionExample("a", "b the king of", ["b"], [0]),
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_padding_changes_no_answer_and_no_loss(kind: str, vocabulary: Vocabulary) -> None:
    made = MADE[kind]
    windows, _ = features.make_features(made, made.evaluation, vocabulary, 16)
    head = head_of(made).eval()
    inputs = heads.collate_windows(windows, CPU)
    wider = heads.HeadInputs(
        F.pad(inputs.ids_BT, (0, 3), value=PAD),
        F.pad(inputs.target_BX, (0, 3), value=NOWHERE) if kind == "tagging" else inputs.target_BX,
        windows,
    )
    states = hidden(inputs)
    more = F.pad(states, (0, 0, 0, 3), value=7.0)
    with torch.no_grad():
        assert head.answers(states, inputs) == head.answers(more, wider)
    assert head.loss(states, inputs).item() == pytest.approx(head.loss(more, wider).item())


def test_losses_are_the_means_that_they_say(vocabulary: Vocabulary) -> None:
    for kind, made in MADE.items():
        windows, _ = features.make_features(made, made.evaluation, vocabulary, 16)
        head, inputs = head_of(made).eval(), heads.collate_windows(windows, CPU)
        states = hidden(inputs)
        logits = states @ head.dense.weight.T
        match kind:
            case "classification":
                log = logits[:, 0].log_softmax(-1)
                expected = -(log[0, 0] + log[1, 1]) / 2
            case "regression":  # 2 is the smallest to learn from and 5 the largest: 0 and 1
                expected = (logits[0, 0, 0] ** 2 + (logits[1, 0, 0] - 1) ** 2) / 2
            case "tagging":
                places = (inputs.target_BX != NOWHERE).nonzero().tolist()
                log = logits.log_softmax(-1)
                losses = [-log[b, t, int(inputs.target_BX[b, t])] for b, t in places]
                assert len(losses) == 3
                expected = torch.stack(losses).mean()
            case _:
                seen = [len(window.ids) for window in windows]
                losses = [
                    -logits[b, : seen[b], end].log_softmax(0)[int(windows[b].target[end])]
                    for b in (0, 1)
                    for end in (0, 1)
                ]
                expected = torch.stack(losses).mean()
        assert head.loss(states, inputs).item() == pytest.approx(expected.item(), rel=1e-5)


def test_head_starts_as_glorot_by_its_seed_alone() -> None:
    first, again, other = (head_of(MADE["classification"]) for _ in range(3))
    other.start(torch.Generator().manual_seed(2))
    assert torch.equal(first.dense.weight, again.dense.weight)
    assert not torch.equal(first.dense.weight, other.dense.weight)
    assert not first.dense.bias.any()
    limit = math.sqrt(6 / (8 + 2))
    assert first.dense.weight.abs().max() <= limit
    assert isinstance(first.dense, nn.Linear)
