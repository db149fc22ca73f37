"""First the generator, then a discriminator that starts from its weights (paper, section 3.2).

Without that start the discriminator may never leave the majority class.
"""

import torch
from torch import Tensor, nn

from lab.config import trial as spec
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.phases import UpdatedNetworks
from lab.config.ramps import StepSettings
from lab.data.batches import Batch
from lab.training.model import DetectionHead, Encoder, initialize_weights
from lab.training.objectives.base import Detector, StepLoss
from lab.training.objectives.detection import detection_loss
from lab.training.objectives.generator import Corrupted, Generator
from lab.training.objectives.masking import MaskedBatch, TokenCounts


class TwoStage(Detector):
    """Two encoders of one size that share nothing; the first is frozen once the second learns.

    Whether the second has started from the first is part of the state, so that a run which goes
    on after the switch does not start it again.
    """

    switched: Tensor

    def __init__(self, trial: spec.Trial, settings: TwoStageConfig, counts_V: Tensor) -> None:
        super().__init__(trial)
        vocab, length, shape = trial.data.vocab, trial.data.length, trial.encoder
        self.encoder = Encoder(shape, vocab, length)
        self.detection = DetectionHead(shape)
        body = Encoder(shape, vocab, length)
        self.generator = Generator(body, shape, trial, settings, settings.sampling)
        self.register_buffer("switched", torch.tensor(False))
        initialize_weights(self, shape.init_std, trial.seeds.init)
        self.generator.vocabulary.start_at(counts_V)

    def begin(self, learns: UpdatedNetworks, settings: StepSettings) -> None:
        """Hand the generator's weights on before the discriminator's first step."""
        super().begin(learns, settings)
        if learns is UpdatedNetworks.DISCRIMINATOR and not self.switched:
            self.encoder.load_state_dict(self.generator.encoder.state_dict())
            self.switched.fill_(True)

    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the batch as the generator sees it."""
        masked: MaskedBatch = self.generator.mask(batch, step, self.now)
        return masked

    def forward(
        self,
        batch: Batch,
        step: int,
        learns: UpdatedNetworks = UpdatedNetworks.ALL,
        places: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the loss of the network that learns."""
        if learns is UpdatedNetworks.GENERATOR:
            loss = self.generator.learn(batch, step, self.now, places)
            return StepLoss(loss.total, loss.parts | {"train/loss": loss.total.detach()})
        with torch.no_grad():
            corrupted: Corrupted = self.generator(batch, step, self.now, places)
        segment_BT = batch.segment_BT
        detected_BT = self.detect(corrupted.ids_BT, segment_BT, batch.offset)
        found = detection_loss(detected_BT, corrupted.replaced_BT, segment_BT > 0, corrupted.places)
        parts = corrupted.loss.parts | found.parts
        return StepLoss(found.total, parts | {"train/loss": found.total.detach()})

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then the generator's."""
        return {
            "discriminator": [*self.encoder.parameters(), *self.detection.parameters()],
            "generator": list(self.generator.parameters()),
        }
