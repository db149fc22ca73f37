"""Masked language modelling by the discriminator's encoder, beside the detection.

Letters: B examples, K masked slots, V vocabulary, h width of the encoder.
"""

from torch import Tensor, nn

from lab.config.objectives.electra import AuxiliaryMlmConfig
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.model import Encoder, VocabularyHead, gather_slots
from lab.training.objectives.base import StepLoss, masked_mean
from lab.training.objectives.generator import Corrupted, cross_entropy


class AuxiliaryMlm(nn.Module):
    """A vocabulary head of the discriminator's encoder, and its weighted loss."""

    def __init__(self, trial: Trial, settings: AuxiliaryMlmConfig, counts_V: Tensor) -> None:
        super().__init__()
        self.vocabulary = VocabularyHead(trial.encoder, trial.data.vocab)
        initialize_weights(self, trial.encoder, trial.seeds.init)
        self.vocabulary.initialize_bias(counts_V)
        self._weight = settings.weight

    def forward(self, encoder: Encoder, corrupted: Corrupted, batch: Batch) -> StepLoss:
        """Return the weighted mean cross-entropy over the used slots of the masked input.

        Args:
            encoder: encoder of the discriminator.
            corrupted: output of the generator, with the masked input that it has read.
            batch: original text.
        """
        masked = corrupted.masked
        hidden_BTh = encoder(masked.ids_BT, batch.segment_BT, batch.offset)
        hidden_BKh = gather_slots(hidden_BTh, masked.slots_BK)
        logits_BKV = self.vocabulary(hidden_BKh, encoder.embeddings.table())
        errors_BK = cross_entropy(logits_BKV, masked.labels_BK)
        loss = masked_mean(errors_BK, masked.used_BK, corrupted.counts.slots)
        return StepLoss(self._weight * loss, {"train/auxiliary_loss": loss.detach()})
