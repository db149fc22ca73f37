"""Objectives that predict original tokens from a generator's samples (paper, section 3.4).

Letters: B examples, T positions, K masked slots, V vocabulary.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.model import VocabularyHead, gather_slots
from lab.training.objectives import sharing
from lab.training.objectives.base import Objective, StepLoss, masked_mean
from lab.training.objectives.generator import (
    Corrupted,
    cross_entropy,
    generator_weight,
    make_generator,
)
from lab.training.objectives.masking import MaskedBatch, TokenCounts


class Predictor(Objective):
    """Base class: an encoder predicts the original tokens of a text that a generator corrupted."""

    def __init__(
        self,
        trial: Trial,
        settings: ReplaceMlmConfig | AllTokensMlmConfig,
        counts_V: Tensor,
    ) -> None:
        super().__init__(trial)
        self.encoder, body = sharing.build_encoders(trial, settings)
        self.vocabulary = VocabularyHead(trial.encoder, trial.data.vocab)
        self.generator = make_generator(body, trial, settings)
        initialize_weights(self, trial.encoder, trial.seeds.init)
        self.vocabulary.initialize_bias(counts_V)
        self.generator.vocabulary.initialize_bias(counts_V)
        self._gen_weight, self._mlm_weight = generator_weight(settings), settings.mlm_weight

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
        segment_BT = batch.segment_BT
        hidden_BTh = self.encoder(corrupted.ids_BT, segment_BT, batch.offset)
        prediction = self.prediction_loss(hidden_BTh, corrupted, batch)
        total = self._gen_weight * corrupted.loss.total + self._mlm_weight * prediction.total
        parts = {
            "train/loss": total.detach(),
            "train/mlm_loss": prediction.total.detach(),
            "health/replacement_rate": masked_mean(
                corrupted.replaced_BT.float(), segment_BT > 0, corrupted.counts.text
            ),
        }
        return StepLoss(total, parts | corrupted.loss.parts | prediction.parts)

    @abstractmethod
    def prediction_loss(self, hidden_BTh: Tensor, corrupted: Corrupted, batch: Batch) -> StepLoss:
        """Return the loss of predicting the original tokens.

        Args:
            hidden_BTh: hidden states of the encoder's last layer on the corrupted text.
            corrupted: output of the generator.
            batch: original text.
        """

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of encoder and heads, then the generator's unshared ones."""
        heads = [part for name, part in self.named_children() if name != "generator"]
        return sharing.parameter_owners("encoder", heads, self.generator)


class ReplaceMlm(Predictor):
    """Predicts the tokens at the masked slots; the head is computed at these only."""

    def prediction_loss(self, hidden_BTh: Tensor, corrupted: Corrupted, batch: Batch) -> StepLoss:  # noqa: ARG002
        """Return the mean cross-entropy over the used slots."""
        masked = corrupted.masked
        hidden_BKh = gather_slots(hidden_BTh, masked.slots_BK)
        logits_BKV = self.vocabulary(hidden_BKh, self.encoder.embeddings.table())
        errors_BK = cross_entropy(logits_BKV, masked.labels_BK)
        return StepLoss(masked_mean(errors_BK, masked.used_BK, corrupted.counts.slots), {})


class AllTokensMlm(Predictor):
    """Predicts every token with a copy mechanism: a sigmoid gate D weights a copy of the input.

    p(x) = D [x is the input] + (1 - D) softmax(x), at all positions that are not padding.
    """

    def __init__(self, trial: Trial, settings: AllTokensMlmConfig, counts_V: Tensor) -> None:
        super().__init__(trial, settings, counts_V)
        self.gate = nn.Linear(trial.encoder.hidden, 1)
        initialize_weights(self.gate, trial.encoder, trial.seeds.init)

    def prediction_loss(self, hidden_BTh: Tensor, corrupted: Corrupted, batch: Batch) -> StepLoss:
        """Return the mean of -log p over all positions that are not padding."""
        logits_BTV = self.vocabulary(hidden_BTh, self.encoder.embeddings.table())
        gate_BT = self.gate(hidden_BTh).float()[..., 0]
        # log of (1 - D) softmax(x), and of p(x) where the input is the original token.
        log_softmax_BT = F.logsigmoid(-gate_BT) - cross_entropy(logits_BTV, batch.ids_BT)
        log_copied_BT = torch.logaddexp(F.logsigmoid(gate_BT), log_softmax_BT)
        errors_BT = -torch.where(corrupted.replaced_BT, log_softmax_BT, log_copied_BT)
        text_BT, text = batch.segment_BT > 0, corrupted.counts.text
        with torch.no_grad():
            parts = {"health/copy_gate": masked_mean(gate_BT.sigmoid(), text_BT, text)}
        return StepLoss(masked_mean(errors_BT, text_BT, text), parts)
