"""A trial's networks as its record holds them: to leave the lab, and for others to start from."""

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
    """What a record holds of a trial's networks.

    Attributes:
        folder: of the record.
        text: folder of the prepared text.
        trial: what was asked.
        place: how far the weights have come.
        weights: by the names of `weights.of`.
        shapes: of the encoders, by place: `encoder`, and `generator.encoder` where there is one.
        detects: whether the encoder's head finds replaced tokens; it predicts tokens otherwise.
    """

    folder: File
    text: File
    trial: Trial
    place: TrainingPosition
    weights: Weights
    shapes: dict[str, EncoderConfig]
    detects: bool

    def vocabulary(self) -> Vocabulary:
        """Return its tokens."""
        return open_vocabulary(self.text)

    def network(self, place: str) -> Weights:
        """Return an encoder and its head, as `encoder.*` and `detection.*` or `vocabulary.*`.

        Args:
            place: of the encoder.
        """
        named = (
            weights_below(self.weights, "generator")
            if place == "generator.encoder"
            else self.weights
        )
        head = "detection" if place == "encoder" and self.detects else "vocabulary"
        return {n: v for n, v in named.items() if n.partition(".")[0] in ("encoder", head)}


def open_trained(folder: File, cache: File) -> TrainedTrial:
    """Read the newest checkpoint of a record.

    Args:
        folder: of the record.
        cache: where prepared texts lie.

    Raises:
        UserError: it has no checkpoint that can be read, or its text is gone.
    """
    trial, name = record.read_trial(folder)
    text = cache / name
    if not name or not text.is_dir():
        raise UserError(
            f"{folder}: its text is not in {cache}; run its sweep again with the same --storage, "
            f"which prepares the text and trains nothing twice"
        )
    # The counts are where heads start, and a checkpoint has them further on.
    objective = build_objective(trial, torch.ones(trial.data.vocab, dtype=torch.int64)).eval()
    place = Checkpoints(folder / "checkpoints", maximize=True).weights(objective)
    if place is None:
        raise UserError(
            f"{folder}: no checkpoint that can be read, and its state is "
            f"{record.read_state(folder)}; only a trial that has trained has weights"
        )
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
