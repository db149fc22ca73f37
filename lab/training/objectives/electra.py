"""Replaced-token detection with a generator that learns beside it (paper, section 2) or is frozen.

Letters: B examples, T positions.
"""

from torch import Tensor, nn

from lab.config import trial as spec
from lab.config.objectives.electra import DetectionConfig
from lab.config.phases import UpdatedNetworks
from lab.data.batches import Batch
from lab.training.model import DetectionHead, initialize_weights
from lab.training.objectives import sharing
from lab.training.objectives.base import Detector, StepLoss
from lab.training.objectives.detection import detection_loss
from lab.training.objectives.generator import Corrupted, generator_weight, make_generator
from lab.training.objectives.masking import MaskedBatch, TokenCounts, chosen_positions


class Electra(Detector):
    """A small masked language model corrupts text, and an encoder finds what it replaced.

    No gradient flows from the discriminator into the generator's body: sampling has none. What
    both share gets both. ELECTRA 15 % is the same, scored at the chosen slots only.
    """

    def __init__(
        self,
        trial: spec.Trial,
        settings: DetectionConfig,
        counts_V: Tensor,
    ) -> None:
        super().__init__(trial)
        self.encoder, body = sharing.build_encoders(trial, settings)
        self.detection = DetectionHead(trial.encoder)
        self.generator = make_generator(body, trial, settings)
        initialize_weights(self, trial.encoder.init_std, trial.seeds.init)
        self.generator.vocabulary.start_at(counts_V)
        self._gen_weight = generator_weight(settings)
        self._everywhere = settings.loss_at_all_tokens

    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the batch as the generator sees it."""
        masked: MaskedBatch = self.generator.mask(batch, step, self.now)
        return masked

    def forward(
        self,
        batch: Batch,
        step: int,
        learns: UpdatedNetworks = UpdatedNetworks.ALL,  # noqa: ARG002
        places: TokenCounts | None = None,
    ) -> StepLoss:
        """Return both losses on one masking and one sample of it."""
        corrupted: Corrupted = self.generator(batch, step, self.now, places)
        _, found = self.find(corrupted, batch)
        weighted = self.now.disc_weight * found.total
        total = self._gen_weight * corrupted.loss.total + weighted
        parts = {"train/loss": total.detach()} | corrupted.loss.parts | found.parts
        return StepLoss(total, parts)

    def find(self, corrupted: Corrupted, batch: Batch) -> tuple[Tensor, StepLoss]:
        """Return the discriminator's logits, shape (B, T), and its loss."""
        segment_BT = batch.segment_BT
        detected_BT = self.detect(corrupted.ids_BT, segment_BT, batch.offset)
        return detected_BT, detection_loss(
            detected_BT,
            corrupted.replaced_BT,
            segment_BT > 0,
            corrupted.places,
            None if self._everywhere else chosen_positions(corrupted.masked),
        )

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then those that are the generator's."""
        return sharing.parameter_owners(
            "discriminator", [self.encoder, self.detection], self.generator
        )
