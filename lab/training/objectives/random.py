"""Replaced-token detection without a generator: random replacements (paper, section 3.4)."""

from torch import Tensor, nn

from lab.config.objectives.random import RandomReplacementConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.model import DetectionHead, Encoder
from lab.training.objectives.base import Detector, StepLoss
from lab.training.objectives.detection import detection_loss
from lab.training.objectives.masking import (
    MaskedBatch,
    TokenCounts,
    choose_distinct,
    choose_independently,
    count_tokens,
    draw_slots,
    write_tokens,
)
from lab.training.objectives.sampling import cumulative_distribution, sample_from_cumulative


class Random(Detector):
    """Detects tokens that were replaced by words from a fixed distribution."""

    cumulated_V: Tensor

    def __init__(self, trial: Trial, settings: RandomReplacementConfig, counts_V: Tensor) -> None:
        super().__init__(trial)
        self.encoder = Encoder(trial.encoder, trial.data.vocab, trial.data.length)
        self.detection = DetectionHead(trial.encoder)
        self.register_buffer(
            "cumulated_V", cumulative_distribution(settings.replacement_distribution, counts_V)
        )
        initialize_weights(self, trial.encoder, trial.seeds.init)
        self._masking, self._seed = settings.masking, trial.seeds.mask

    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the slots; the discriminator reads words there, not masks."""
        select = {
            "paper": choose_distinct,
            "code": draw_slots,
            "bernoulli": choose_independently,
        }[self._masking]
        return select(batch, mask_prob=self.step_settings.mask_prob, seed=self._seed, step=step)

    def forward(
        self,
        batch: Batch,
        step: int,
        updates: UpdatedNetworks = UpdatedNetworks.ALL,  # noqa: ARG002
        counts: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the discriminator's loss at all positions that are not padding."""
        masked = self.mask(batch, step)
        words_BK = sample_from_cumulative(
            self.cumulated_V, masked.draws_BK, batch, seed=self._seed, step=step
        )
        ids_BT = write_tokens(batch, masked, words_BK)
        detected_BT = self.detect(ids_BT, batch.segment_BT, batch.offset)
        loss = detection_loss(
            detected_BT,
            ids_BT != batch.ids_BT,
            batch.ids_BT,
            counts or count_tokens(masked, batch),
        )
        return StepLoss(loss.total, {"train/loss": loss.total.detach()} | loss.parts)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters."""
        return {"discriminator": [*self.encoder.parameters(), *self.detection.parameters()]}
