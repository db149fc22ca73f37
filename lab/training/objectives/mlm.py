"""Masked language modelling: the BERT baseline, and the model of the held-out corruptions."""

from torch import Tensor, nn

from lab.config.objectives.mlm import MlmConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.model import Encoder, VocabularyHead, gather_slots
from lab.training.objectives.base import Objective, StepLoss, masked_mean
from lab.training.objectives.generator import cross_entropy
from lab.training.objectives.masking import (
    MaskedBatch,
    TokenCounts,
    count_tokens,
    mask_batch,
)


class Mlm(Objective):
    """Predicts masked tokens; the head is computed at the masked slots only."""

    def __init__(self, trial: Trial, settings: MlmConfig, counts_V: Tensor) -> None:
        super().__init__(trial)
        self.encoder = Encoder(trial.encoder, trial.data.vocab, trial.data.length)
        self.vocabulary = VocabularyHead(trial.encoder, trial.data.vocab)
        initialize_weights(self, trial.encoder, trial.seeds.init)
        self.vocabulary.initialize_bias(counts_V)
        self._masking, self._seed, self._vocab = (
            settings.masking,
            trial.seeds.mask,
            trial.data.vocab,
        )

    def forward(
        self,
        batch: Batch,
        step: int,
        updates: UpdatedNetworks = UpdatedNetworks.ALL,  # noqa: ARG002
        counts: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the mean cross-entropy over the used slots."""
        masked = self.mask(batch, step)
        counts = counts or count_tokens(masked, batch)
        logits_BKV = self.predict(masked.ids_BT, masked.slots_BK, batch.segment_BT, batch.offset)
        errors_BK = cross_entropy(logits_BKV, masked.labels_BK)
        loss = masked_mean(errors_BK, masked.used_BK, counts.slots)
        return StepLoss(loss, {"train/loss": loss.detach(), "train/mlm_loss": loss.detach()})

    def predict(
        self, ids_BT: Tensor, slots_BK: Tensor, segment_BT: Tensor, offset: int = 0
    ) -> Tensor:
        """Return logits at the masked slots, shape (B, K, V)."""
        hidden_BKh = gather_slots(self.encoder(ids_BT, segment_BT, offset), slots_BK)
        logits_BKV: Tensor = self.vocabulary(hidden_BKh, self.encoder.embeddings.table())
        return logits_BKV

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the encoder and its head, as one network."""
        return {"encoder": [*self.encoder.parameters(), *self.vocabulary.parameters()]}

    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the encoder's masked input."""
        return mask_batch(
            batch,
            mask_prob=self.step_settings.mask_prob,
            masking=self._masking,
            vocab=self._vocab,
            seed=self._seed,
            step=step,
        )
