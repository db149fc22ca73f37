"""Replaced-token detection with a jointly trained (paper, section 2) or a frozen generator.

Letters: B examples, T positions.
"""

from torch import Tensor, nn

from lab.config.objectives.electra import DetectionConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.model import DetectionHead
from lab.training.objectives import sharing
from lab.training.objectives.auxiliary import AuxiliaryMlm
from lab.training.objectives.base import Detector, StepLoss
from lab.training.objectives.detection import detection_loss
from lab.training.objectives.generator import Corrupted, generator_weight, make_generator
from lab.training.objectives.masking import MaskedBatch, TokenCounts, chosen_positions


class Electra(Detector):
    """A masked language model replaces tokens, and a discriminator detects the replaced ones.

    Sampling passes no gradient from the discriminator to the generator. Shared parameters get the
    gradients of both losses. ELECTRA 15 % takes the discriminator's loss at the masked slots only.
    """

    def __init__(
        self,
        trial: Trial,
        settings: DetectionConfig,
        counts_V: Tensor,
    ) -> None:
        super().__init__(trial)
        self.encoder, body = sharing.build_encoders(trial, settings)
        self.detection = DetectionHead(trial.encoder)
        self.generator = make_generator(body, trial, settings)
        initialize_weights(self, trial.encoder, trial.seeds.init)
        self.generator.vocabulary.initialize_bias(counts_V)
        self.auxiliary = (
            AuxiliaryMlm(trial, settings.auxiliary, counts_V) if settings.auxiliary else None
        )
        self._gen_weight = generator_weight(settings)
        self._scores_all_text = settings.loss_at_all_tokens

    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the generator's masked input."""
        masked: MaskedBatch = self.generator.mask(batch, step, self.step_settings)
        return masked

    def forward(
        self,
        batch: Batch,
        step: int,
        updates: UpdatedNetworks = UpdatedNetworks.ALL,  # noqa: ARG002
        counts: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the weighted sum of both networks' losses on one corruption of the batch."""
        corrupted: Corrupted = self.generator(batch, step, self.step_settings, counts)
        _, detection = self.run_discriminator(corrupted, batch)
        discriminator = self.add_auxiliary(detection, corrupted, batch)
        weighted = self.step_settings.disc_weight * discriminator.total
        total = self._gen_weight * corrupted.loss.total + weighted
        parts = {"train/loss": total.detach()} | corrupted.loss.parts | discriminator.parts
        return StepLoss(total, parts)

    def run_discriminator(self, corrupted: Corrupted, batch: Batch) -> tuple[Tensor, StepLoss]:
        """Return the discriminator's logits, shape (B, T), and its detection loss."""
        detected_BT = self.detect(corrupted.ids_BT, batch.segment_BT, batch.offset)
        return detected_BT, detection_loss(
            detected_BT,
            corrupted.replaced_BT,
            batch.ids_BT,
            corrupted.counts,
            None if self._scores_all_text else chosen_positions(corrupted.masked),
        )

    def add_auxiliary(self, detection: StepLoss, corrupted: Corrupted, batch: Batch) -> StepLoss:
        """Return the discriminator's loss: its detection loss, and its auxiliary loss if any."""
        if self.auxiliary is None:
            return detection
        auxiliary: StepLoss = self.auxiliary(self.encoder, corrupted, batch)
        return StepLoss(detection.total + auxiliary.total, detection.parts | auxiliary.parts)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then the generator's unshared trainable ones."""
        heads = [self.detection, *([] if self.auxiliary is None else [self.auxiliary])]
        return sharing.parameter_owners("discriminator", [self.encoder, *heads], self.generator)
