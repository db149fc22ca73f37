"""Masked language modelling by the encoder itself: the baseline, and the frozen yardstick."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab import spec
from lab.data import PAD, Batch
from lab.model import Encoder, VocabularyHead, at_slots, initialise
from lab.objectives.base import Loss, Objective, mean
from lab.objectives.masking import mask


class Mlm(Objective):
    """Predict masked tokens; loss and head at the masked slots only."""

    def __init__(self, trial: spec.Trial, settings: spec.Mlm, counts_V: Tensor) -> None:
        super().__init__()
        vocab, length = trial.data.vocab, trial.data.length
        self.encoder = Encoder(trial.encoder, vocab, length)
        self.vocabulary = VocabularyHead(trial.encoder, vocab)
        initialise(self, trial.encoder.init_std, trial.seeds.init)
        self.vocabulary.start_at(counts_V)
        self._settings = settings
        self._seed = trial.seeds.mask

    def forward(self, batch: Batch, step: int) -> Loss:
        """Return the mean cross-entropy over the used slots."""
        masked = mask(
            batch,
            mask_prob=self._settings.mask_prob,
            how=self._settings.masking,
            seed=self._seed,
            step=step,
        )
        logits_BKV = self.generate(masked.ids_BT, masked.slots_BK, batch.ids_BT != PAD)
        losses_BK = F.cross_entropy(
            logits_BKV.float().transpose(1, 2), masked.labels_BK, reduction="none"
        )
        loss = mean(losses_BK, masked.used_BK)
        with torch.no_grad():
            right_BK = logits_BKV.argmax(-1) == masked.labels_BK
            parts = {
                "train/loss": loss.detach(),
                "train/generator_loss": loss.detach(),
                "health/generator_accuracy": mean(right_BK.float(), masked.used_BK),
            }
        return Loss(loss, parts)

    def generate(self, ids_BT: Tensor, slots_BK: Tensor, text_BT: Tensor) -> Tensor:
        """Return logits at the masked slots, shape (B, K, V)."""
        hidden_BKh = at_slots(self.encoder(ids_BT, text_BT), slots_BK)
        table_Ve = self.encoder.embeddings.word_embeddings.weight
        logits_BKV: Tensor = self.vocabulary(hidden_BKh, table_Ve)
        return logits_BKV

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the only network there is."""
        return {"encoder": [*self.encoder.parameters(), *self.vocabulary.parameters()]}
