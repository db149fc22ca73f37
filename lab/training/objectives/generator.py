"""The generator: a masked language model with samples that replace tokens of the text.

Letters: B examples, T positions, K masked slots, V vocabulary, h the generator's width.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.architecture import EncoderConfig
from lab.config.objectives.base import MaskedObjectiveConfig
from lab.config.objectives.generators import JointObjectiveConfig, SamplingConfig
from lab.config.schedules.ramps import StepSettings
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.model import Encoder, VocabularyHead, gather_slots
from lab.training.objectives.base import StepLoss, masked_mean
from lab.training.objectives.masking import (
    MaskedBatch,
    TokenCounts,
    count_tokens,
    mask_batch,
    write_tokens,
)
from lab.training.objectives.sampling import sample_tokens, sampling_logits_BKV


class Corrupted(NamedTuple):
    """A batch with tokens replaced by a generator.

    Attributes:
        ids_BT: the original text with the samples at the used slots.
        replaced_BT: whether a token differs from the original; false if the sample equals it.
        masked: the generator's input and the slots.
        sampled_BK: token id that each slot sampled; a position of several slots gets their mean.
        replacement_logits_BKV: logits of the distribution sampled from, differentiable.
        hidden_BKh: hidden states of the generator's last layer at the slots.
        loss: masked language modelling loss of the generator.
        counts: token counts of the full batch.
    """

    ids_BT: Tensor
    replaced_BT: Tensor
    masked: MaskedBatch
    sampled_BK: Tensor
    replacement_logits_BKV: Tensor
    hidden_BKh: Tensor
    loss: StepLoss
    counts: TokenCounts


class Generator(nn.Module):
    """A masked language model and the sampling of replacement tokens from it.

    Args:
        encoder: body of the generator; may share modules with another network.
        shape: architecture of `encoder`.
        trial: vocabulary size and seeds.
        masking: settings of the masking.
        sampling: settings of the sampling.
    """

    def __init__(
        self,
        encoder: Encoder,
        shape: EncoderConfig,
        trial: Trial,
        masking: MaskedObjectiveConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.vocabulary = VocabularyHead(shape, trial.data.vocab)
        self._masking, self._sampling = masking, sampling
        self._seed, self._vocab = trial.seeds.mask, trial.data.vocab
        self._second_pass = shape.dropout > 0 and not sampling.dropout

    def forward(
        self, batch: Batch, step: int, settings: StepSettings, counts: TokenCounts | None = None
    ) -> Corrupted:
        """Mask tokens, predict them, and replace them by samples; all at the same slots.

        Args:
            batch: windows of the step, or a micro-batch of them.
            step: index of the optimizer step.
            settings: settings of the step.
            counts: token counts of the full batch; None to count the tokens of `batch`.
        """
        masked = self.mask(batch, step, settings)
        counts = counts or count_tokens(masked, batch)
        hidden_BKh, logits_BKV = self.predict(masked, batch.segment_BT, batch.offset)
        replacement_logits_BKV = sampling_logits_BKV(
            self._predict_without_dropout(masked, batch) if self._second_pass else logits_BKV,
            masked.labels_BK,
            temperature=settings.temperature,
            disallow_correct=self._sampling.disallow_correct,
        )
        sampled_BK = sample_tokens(
            replacement_logits_BKV, masked.draws_BK, batch, seed=self._seed, step=step
        )
        ids_BT = write_tokens(batch, masked, sampled_BK)
        return Corrupted(
            ids_BT=ids_BT,
            replaced_BT=ids_BT != batch.ids_BT,
            masked=masked,
            sampled_BK=sampled_BK,
            replacement_logits_BKV=replacement_logits_BKV,
            hidden_BKh=hidden_BKh,
            loss=generator_loss(logits_BKV, masked, counts),
            counts=counts,
        )

    def prediction_loss(
        self, batch: Batch, step: int, settings: StepSettings, counts: TokenCounts | None = None
    ) -> StepLoss:
        """Return the masked language modelling loss without sampling replacements."""
        masked = self.mask(batch, step, settings)
        logits_BKV = self.predict(masked, batch.segment_BT, batch.offset)[1]
        return generator_loss(logits_BKV, masked, counts or count_tokens(masked, batch))

    def predict(
        self, masked: MaskedBatch, segment_BT: Tensor, offset: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return hidden states, shape (B, K, h), and logits, shape (B, K, V), at the slots only.

        Logits at all positions would about triple the compute of a step, and need several times
        the memory.
        """
        hidden_BKh = gather_slots(self.encoder(masked.ids_BT, segment_BT, offset), masked.slots_BK)
        return hidden_BKh, self.vocabulary(hidden_BKh, self.encoder.embeddings.table())

    def mask(self, batch: Batch, step: int, settings: StepSettings) -> MaskedBatch:
        """Return the generator's masked input."""
        return mask_batch(
            batch,
            mask_prob=settings.mask_prob,
            masking=self._masking.masking,
            vocab=self._vocab,
            seed=self._seed,
            step=step,
        )

    @torch.no_grad()
    def _predict_without_dropout(self, masked: MaskedBatch, batch: Batch) -> Tensor:
        training = self.training
        self.eval()
        logits_BKV = self.predict(masked, batch.segment_BT, batch.offset)[1]
        self.train(training)
        return logits_BKV


class FrozenGenerator(Generator):
    """A generator with fixed weights: no gradient, no dropout, no optimizer.

    Its loss is reported but not minimised.
    """

    def __init__(
        self,
        encoder: Encoder,
        shape: EncoderConfig,
        trial: Trial,
        masking: MaskedObjectiveConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__(encoder, shape, trial, masking, sampling)
        self._second_pass = False  # the only pass is without dropout
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, batch: Batch, step: int, settings: StepSettings, counts: TokenCounts | None = None
    ) -> Corrupted:
        """Mask tokens, predict them, and replace them by samples, without gradient."""
        return super().forward(batch, step, settings, counts)


def make_generator(body: Encoder, trial: Trial, settings: JointObjectiveConfig) -> Generator:
    """Return the trainable or frozen generator of an objective.

    Args:
        body: encoder of the generator; may share modules with the objective's `encoder`.
        trial: architecture, vocabulary size and seeds.
        settings: settings of the objective.
    """
    shape = settings.generator.derive_shape(trial.encoder)
    generator_class = FrozenGenerator if settings.frozen_generator else Generator
    return generator_class(body, shape, trial, settings, settings.sampling)


def generator_weight(settings: JointObjectiveConfig) -> float:
    """Return the weight of the generator's loss in the total loss; 0 if the generator is frozen."""
    return 0.0 if settings.frozen_generator else settings.gen_weight


def generator_loss(logits_BKV: Tensor, masked: MaskedBatch, counts: TokenCounts) -> StepLoss:
    """Return the mean cross-entropy over the used slots, in fp32, and the accuracy."""
    errors_BK = cross_entropy(logits_BKV, masked.labels_BK)
    loss = masked_mean(errors_BK, masked.used_BK, counts.slots)
    with torch.no_grad():
        # Comparing with the largest logit is 17 times as fast as argmax.
        label_BK = logits_BKV.gather(-1, masked.labels_BK[..., None])[..., 0]
        correct_BK = label_BK == logits_BKV.amax(-1)
        parts = {
            "train/generator_loss": loss.detach(),
            "health/generator_accuracy": masked_mean(
                correct_BK.float(), masked.used_BK, counts.slots
            ),
        }
    return StepLoss(loss, parts)


def cross_entropy(logits_BKV: Tensor, labels_BK: Tensor) -> Tensor:
    """Return the cross-entropy at each slot, in fp32, shape (B, K).

    The logits are flattened to (B·K, V). A transposed input (B, V, K) takes several times as long,
    because the CPU kernel then reads memory with a stride.
    """
    flat_N = F.cross_entropy(
        logits_BKV.float().flatten(0, 1), labels_BK.flatten(), reduction="none"
    )
    return flat_N.view(labels_BK.shape)
