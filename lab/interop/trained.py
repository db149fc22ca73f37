"""The trained networks of a record, for export and as initial weights of other trials."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File

import torch

from lab.config.architecture import EncoderConfig
from lab.config.results import MetricRow
from lab.config.trial import Trial
from lab.data.vocabulary import Vocabulary, open_vocabulary
from lab.errors import UserError
from lab.storage import record, record_damage
from lab.training.checkpoint import TrainingPosition, restore_weights
from lab.training.objectives import build_objective
from lab.training.objectives.base import Detector
from lab.training.weights import Weights, collect_weights, weights_below


@dataclass(frozen=True, kw_only=True)
class TrainedTrial:
    """The trained networks of a trial.

    Attributes:
        folder: folder of the record.
        text: folder of the prepared text.
        trial: configuration of the trial.
        place: position in the run at which the weights were saved.
        weights: weights by the names of `collect_weights`.
        shapes: shapes of the encoders by module path: `encoder`, and `generator.encoder` for an
            objective with a generator.
        detects: True if the encoder has a detection head, False if it predicts tokens.
    """

    folder: File
    text: File
    trial: Trial
    place: TrainingPosition
    weights: Weights
    shapes: dict[str, EncoderConfig]
    detects: bool

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the prepared text."""
        return open_vocabulary(self.text)

    def network(self, path: str) -> Weights:
        """Return the weights of an encoder and its head.

        Args:
            path: module path of the encoder, a key of `shapes`.

        Returns:
            Weights named `encoder.*` and `detection.*` or `vocabulary.*`.
        """
        named = (
            weights_below(self.weights, "generator")
            if path == "generator.encoder"
            else self.weights
        )
        head = "detection" if path == "encoder" and self.detects else "vocabulary"
        return {n: v for n, v in named.items() if n.partition(".")[0] in ("encoder", head)}

    def evaluations(self) -> tuple[MetricRow, ...]:
        """Return the evaluations of the trial up to these weights.

        Raises:
            UserError: some are damaged, so that the scores of these weights are unknown.
        """
        for damaged in record_damage.find_damage(self.folder):
            if damaged.startswith("curve.jsonl"):
                raise UserError(
                    f"{self.folder}: damaged: {damaged}; run the trial's sweep again, which trains "
                    "the trial again"
                )
        return record.read_curve(self.folder)[: self.place.evaluations]

    def evaluation(self) -> MetricRow:
        """Return the evaluation of these weights; empty if they were saved between evaluations.

        Raises:
            UserError: as for `evaluations`.
        """
        rows = self.evaluations()
        is_last = bool(rows) and rows[-1]["spent/steps"] == self.place.spent.steps
        return rows[-1] if is_last else {}


def open_trained(folder: File, cache: File) -> TrainedTrial:
    """Read the newest checkpoint of a record.

    Args:
        folder: folder of the record.
        cache: folder of the prepared texts.

    Raises:
        UserError: the record has no readable checkpoint, or the cache lacks its text.
    """
    return next(open_checkpoints(folder, cache))


def open_checkpoints(folder: File, cache: File) -> Iterator[TrainedTrial]:
    """Yield the networks of each readable checkpoint of a record, those of the newest first.

    Args:
        folder: folder of the record.
        cache: folder of the prepared texts.

    Raises:
        UserError: the record has no readable checkpoint, or the cache lacks its text.
    """
    trial, name = record.read_trial(folder)
    text = cache / name
    if not name or not text.is_dir():
        raise UserError(
            f"{folder}: its prepared text is not in {cache}; run its sweep again with the same "
            f"--storage: it prepares the text and trains no finished trial again"
        )
    shapes = {"encoder": trial.encoder}
    generator = trial.objective.generator_shape(trial.encoder)
    if generator is not None:
        shapes["generator.encoder"] = generator
    found = False
    for checkpoint in sorted((folder / "checkpoints").glob("[0-9]*"), reverse=True):
        # The token counts only initialize the biases of heads, which the checkpoint overwrites.
        objective = build_objective(trial, torch.ones(trial.data.vocab, dtype=torch.int64)).eval()
        place = restore_weights(checkpoint, objective)
        if place is None:
            continue
        found = True
        yield TrainedTrial(
            folder=folder,
            text=text,
            trial=trial,
            place=place,
            weights=collect_weights(objective),
            shapes=shapes,
            detects=isinstance(objective, Detector),
        )
    if not found:
        raise record.no_checkpoint(folder)
