"""Scores of a trial's encoder, taken by the first worker of the trial."""

import time
from abc import ABC, abstractmethod

import torch

from lab.config.results import MetricRow
from lab.evaluation import scores
from lab.evaluation.minimal_pairs import score_pairs
from lab.score_blocks import ScoreBlocks
from lab.tasks.embedded import Task
from lab.training.objectives.base import Objective
from lab.trials import cached_inputs
from lab.trials.assignment import Assignment


class Scorer(ABC):
    """Base class of scorers: the text and the device of a trial.

    Args:
        work: trial with its files.
        device: device of the computation.

    Attributes:
        corpus: prepared text of the trial.
        device: device of the computation.
        blocks: contribution of each block of a test set to the latest value of each score.
    """

    def __init__(self, work: Assignment, device: str) -> None:
        self.corpus = cached_inputs.open_corpus(work.text)
        self.device = torch.device(device)
        self.blocks: ScoreBlocks = {}

    def clock(self) -> float:
        """Return the time in seconds, after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @abstractmethod
    def score_end(self, objective: Objective) -> MetricRow:
        """Return the scores of the first and the last point."""

    @abstractmethod
    def score_interim(self, objective: Objective) -> MetricRow:
        """Return the scores of the other points."""


class NoScores(Scorer):
    """Takes no scores; for all workers of a trial except the first."""

    def score_end(self, objective: Objective) -> MetricRow:  # noqa: ARG002
        """Return no scores."""
        return {}

    def score_interim(self, objective: Objective) -> MetricRow:  # noqa: ARG002
        """Return no scores."""
        return {}


class AllScores(Scorer):
    """Takes all scores of a trial: held-out corruptions, probes, hidden words, minimal pairs."""

    def __init__(self, work: Assignment, device: str) -> None:
        super().__init__(work, device)
        self._held_out = cached_inputs.open_held_out(work.held_out)
        self._pairs = cached_inputs.open_pairs(work.pairs)

    def score_end(self, objective: Objective) -> MetricRow:
        """Return the scores of the first and the last point: all of them, and the baselines."""
        row = self.score_interim(objective) | self._score_probe(objective, "sentiment")
        row |= scores.score_own_head(objective, self.corpus, self.blocks)
        return row | self._pairs.baselines | self._held_out.baselines

    def score_interim(self, objective: Objective) -> MetricRow:
        """Return the scores of the other points: the cheap ones that change during training.

        Their cost and changes were measured in reports/LOG.md.
        """
        row = scores.score_detection(objective, self._held_out, self.blocks)
        row |= self._score_probe(objective, "pos")
        row |= scores.score_hidden_words(objective, self.corpus, self.blocks)
        pairs, vocabulary = self._pairs.pairs, self.corpus.vocabulary
        return row | score_pairs(objective, vocabulary, pairs, self.blocks)

    def _score_probe(self, objective: Objective, task: Task) -> MetricRow:
        return scores.score_probe(objective, self.corpus.vocabulary, task, self.blocks)
