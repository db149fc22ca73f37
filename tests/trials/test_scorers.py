"""Scores of a trial: names, and the pairs and baselines of its assignment."""

from pathlib import Path

import pytest
import torch
from prepared_text import PreparedText

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.metrics import METRICS, PAIR_CATEGORIES
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.results import MetricRow
from lab.config.trial import Trial
from lab.evaluation import prepared_pairs
from lab.tasks.minimal_pairs import MinimalPair
from lab.training.objectives import build_objective
from lab.trials.assignment import Assignment
from lab.trials.scorers import AllScores

pytestmark = pytest.mark.usefixtures("few_sentences")
SHAPE = EncoderConfig(layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1)
PAIRS = {"pairs/accuracy", *(f"pairs/{name}/accuracy" for name in PAIR_CATEGORIES)}
objectives = pytest.mark.parametrize(
    "settings", [ElectraConfig(kind="electra"), MlmConfig(kind="mlm")]
)


def take(
    settings: AnyObjectiveConfig, text: PreparedText, held_out: Path, pairs: Path | None
) -> tuple[MetricRow, MetricRow]:
    """Return the scores of the end and of another point of an untrained trial."""
    budget = Budget(kind="tokens", amount=1)
    trial = Trial(encoder=SHAPE, objective=settings, data=text.data, budget=budget)
    metric = METRICS["pairs/accuracy"]
    work = Assignment(
        trial=trial, folder=Path(), text=text.text, held_out=held_out, pairs=pairs, metric=metric
    )
    scorer = AllScores(work, "cpu")
    objective = build_objective(trial, torch.from_numpy(text.corpus.counts_V))
    return scorer.score_end(objective), scorer.score_interim(objective)


@objectives
def test_every_evaluation_has_the_accuracies_of_minimal_pairs(
    settings: AnyObjectiveConfig, prepared_text: PreparedText, held_out: Path
) -> None:
    for row in take(settings, prepared_text, held_out, None):
        assert row.keys() >= PAIRS
        assert all(0 <= row[name] <= 1 for name in PAIRS)


@objectives
def test_pairs_of_the_assignment_are_scored_and_the_end_has_their_baselines(
    settings: AnyObjectiveConfig, prepared_text: PreparedText, held_out: Path, tmp_path: Path
) -> None:
    pair = MinimalPair("They are here.", "They is here.", "verb")
    file = prepared_pairs.prepare_pairs(prepared_text.corpus, (pair,), tmp_path)
    end, interim = take(settings, prepared_text, held_out, file)
    scored = {"pairs/accuracy", "pairs/verb/accuracy"}
    assert {name for name in end if name.startswith("pairs/")} == scored
    assert {name for name in interim if name.startswith("pairs/")} == scored
    baselines = {f"baseline/{table}/{name}" for table in ("unigram", "bigram") for name in scored}
    assert {name for name in end if name.startswith("baseline/") and "pairs" in name} == baselines
    assert not any("pairs" in name for name in interim if name.startswith("baseline/"))
