"""Replaced-token detection with a jointly trained (paper, section 2) or a frozen generator.

Letters: B examples, T positions.
"""

from torch import Tensor, nn

from lab.config.objectives.electra import DetectionConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.model import DetectionHead, initialize_weights
from lab.training.objectives import sharing
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
        initialize_weights(self, trial.encoder.init_std, trial.seeds.init)
        self.generator.vocabulary.initialize_bias(counts_V)
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
        weighted = self.step_settings.disc_weight * detection.total
        total = self._gen_weight * corrupted.loss.total + weighted
        parts = {"train/loss": total.detach()} | corrupted.loss.parts | detection.parts
        return StepLoss(total, parts)

    def run_discriminator(self, corrupted: Corrupted, batch: Batch) -> tuple[Tensor, StepLoss]:
        """Return the discriminator's logits, shape (B, T), and its loss."""
        detected_BT = self.detect(corrupted.ids_BT, batch.segment_BT, batch.offset)
        return detected_BT, detection_loss(
            detected_BT,
            corrupted.replaced_BT,
            batch.ids_BT,
            corrupted.counts,
            None if self._scores_all_text else chosen_positions(corrupted.masked),
        )

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then the generator's unshared trainable ones."""
        return sharing.parameter_owners(
            "discriminator", [self.encoder, self.detection], self.generator
        )
