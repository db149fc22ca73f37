"""The trained networks of a record, for export and as initial weights of other trials."""

from dataclasses import dataclass
from pathlib import Path as File

import torch

from lab.config.architecture import EncoderConfig
from lab.config.trial import Trial
from lab.data.vocabulary import Vocabulary, open_vocabulary
from lab.errors import UserError
from lab.storage import record
from lab.training.checkpoint import Checkpoints, TrainingPosition
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


def open_trained(folder: File, cache: File) -> TrainedTrial:
    """Read the newest checkpoint of a record.

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
    # The token counts only initialize the biases of heads, which the checkpoint overwrites.
    objective = build_objective(trial, torch.ones(trial.data.vocab, dtype=torch.int64)).eval()
    place = Checkpoints(folder / "checkpoints", maximize=True).weights(objective)
    if place is None:
        raise record.no_checkpoint(folder)
    shapes = {"encoder": trial.encoder}
    generator = trial.objective.generator_shape(trial.encoder)
    if generator is not None:
        shapes["generator.encoder"] = generator
    return TrainedTrial(
        folder=folder,
        text=text,
        trial=trial,
        place=place,
        weights=collect_weights(objective),
        shapes=shapes,
        detects=isinstance(objective, Detector),
    )
