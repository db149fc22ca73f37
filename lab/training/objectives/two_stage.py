"""Two-stage training (paper, section 3.2): first the generator, then the discriminator.

The discriminator's encoder starts from the generator's weights. From random weights it may never
learn more than to predict the majority class.
"""

import torch
from torch import Tensor, nn

from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import StepSettings
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.model import DetectionHead, Encoder
from lab.training.objectives.base import Detector, StepLoss
from lab.training.objectives.detection import detection_loss
from lab.training.objectives.generator import Corrupted, Generator
from lab.training.objectives.masking import MaskedBatch, TokenCounts


class TwoStage(Detector):
    """Two encoders of the same size without sharing; the generator is frozen in the second stage.

    The buffer `switched` records whether the weights were copied, so that a run resumed in the
    second stage does not copy them again.
    """

    switched: Tensor

    def __init__(self, trial: Trial, settings: TwoStageConfig, counts_V: Tensor) -> None:
        super().__init__(trial)
        vocab, length, shape = trial.data.vocab, trial.data.length, trial.encoder
        self.encoder = Encoder(shape, vocab, length)
        self.detection = DetectionHead(shape)
        body = Encoder(shape, vocab, length)
        self.generator = Generator(body, shape, trial, settings, settings.sampling)
        self.register_buffer("switched", torch.tensor(False))
        initialize_weights(self, shape, trial.seeds.init)
        self.generator.vocabulary.initialize_bias(counts_V)

    def begin(self, updates: UpdatedNetworks, settings: StepSettings) -> None:
        """Copy the generator's weights to the encoder before the discriminator's first step."""
        super().begin(updates, settings)
        if updates is UpdatedNetworks.DISCRIMINATOR and not self.switched:
            self.encoder.load_state_dict(self.generator.encoder.state_dict())
            self.switched.fill_(True)

    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the generator's masked input."""
        masked: MaskedBatch = self.generator.mask(batch, step, self.step_settings)
        return masked

    def forward(
        self,
        batch: Batch,
        step: int,
        updates: UpdatedNetworks = UpdatedNetworks.ALL,
        counts: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the loss of the network that the step updates."""
        if updates is UpdatedNetworks.GENERATOR:
            loss = self.generator.prediction_loss(batch, step, self.step_settings, counts)
            return StepLoss(loss.total, loss.parts | {"train/loss": loss.total.detach()})
        with torch.no_grad():
            corrupted: Corrupted = self.generator(batch, step, self.step_settings, counts)
        detected_BT = self.detect(corrupted.ids_BT, batch.segment_BT, batch.offset)
        loss = detection_loss(detected_BT, corrupted.replaced_BT, batch.ids_BT, corrupted.counts)
        parts = corrupted.loss.parts | loss.parts
        return StepLoss(loss.total, parts | {"train/loss": loss.total.detach()})

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then the generator's."""
        return {
            "discriminator": [*self.encoder.parameters(), *self.detection.parameters()],
            "generator": list(self.generator.parameters()),
        }
