"""Masked language modelling by the encoder itself: the baseline, and the frozen yardstick."""

from torch import Tensor, nn

from lab.config import trial as spec
from lab.config.objective import MlmConfig
from lab.config.phases import UpdatedNetworks
from lab.data.batches import Batch
from lab.training.model import Encoder, VocabularyHead, at_slots, initialise
from lab.training.objectives.base import Loss, Objective, mean
from lab.training.objectives.generator import cross_entropy
from lab.training.objectives.masking import Masked, Places, as_bert, count, mask


class Mlm(Objective):
    """Predict masked tokens; loss and head at the masked slots only."""

    def __init__(self, trial: spec.Trial, settings: MlmConfig, counts_V: Tensor) -> None:
        super().__init__(trial)
        self.encoder = Encoder(trial.encoder, trial.data.vocab, trial.data.length)
        self.vocabulary = VocabularyHead(trial.encoder, trial.data.vocab)
        initialise(self, trial.encoder.init_std, trial.seeds.init)
        self.vocabulary.start_at(counts_V)
        self._masking, self._seed, self._vocab = (
            settings.masking,
            trial.seeds.mask,
            trial.data.vocab,
        )

    def forward(
        self,
        batch: Batch,
        step: int,
        learns: UpdatedNetworks = UpdatedNetworks.ALL,  # noqa: ARG002
        places: Places | None = None,
    ) -> Loss:
        """Return the mean cross-entropy over the used slots."""
        masked = self.mask(batch, step)
        places = places or count(masked, batch)
        logits_BKV = self.predict(masked.ids_BT, masked.slots_BK, batch.segment_BT, batch.offset)
        errors_BK = cross_entropy(logits_BKV, masked.labels_BK)
        loss = mean(errors_BK, masked.used_BK, places.slots)
        return Loss(loss, {"train/loss": loss.detach(), "train/mlm_loss": loss.detach()})

    def predict(
        self, ids_BT: Tensor, slots_BK: Tensor, segment_BT: Tensor, offset: int = 0
    ) -> Tensor:
        """Return logits at the masked slots, shape (B, K, V)."""
        hidden_BKh = at_slots(self.encoder(ids_BT, segment_BT, offset), slots_BK)
        logits_BKV: Tensor = self.vocabulary(hidden_BKh, self.encoder.embeddings.table())
        return logits_BKV

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the only network there is."""
        return {"encoder": [*self.encoder.parameters(), *self.vocabulary.parameters()]}

    def mask(self, batch: Batch, step: int) -> Masked:
        """Choose slots and write there what the model sees."""
        how, share, seed = self._masking, self.now.mask_prob, self._seed
        if how != "bert":
            return mask(batch, mask_prob=share, how=how, seed=seed, step=step)
        masked = mask(batch, mask_prob=share, how="paper", seed=seed, step=step)
        return as_bert(masked, batch, vocab=self._vocab, seed=seed, step=step)
