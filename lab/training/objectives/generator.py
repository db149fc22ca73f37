"""The generator: it predicts masked tokens, and its samples are written over the text.

Letters: B examples, T positions, K masked slots, V vocabulary, h the generator's width.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config import trial as spec
from lab.config.architecture import EncoderConfig
from lab.config.objectives.base import MaskedObjectiveConfig
from lab.config.objectives.generators import JointObjectiveConfig, SamplingConfig
from lab.config.ramps import StepSettings
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
    """A batch that a generator has written into.

    Attributes:
        ids_BT: the original text with samples at the chosen slots.
        replaced_BT: whether a token differs from the original; a lucky sample does not (trap 3).
        masked: what was chosen.
        sampled_BK: the samples.
        law_BKV: logits of the distribution they were drawn from, differentiable.
        hidden_BKh: the generator's last layer at the slots.
        loss: the generator's own, at the used slots.
        places: of the step's whole batch.
    """

    ids_BT: Tensor
    replaced_BT: Tensor
    masked: MaskedBatch
    sampled_BK: Tensor
    law_BKV: Tensor
    hidden_BKh: Tensor
    loss: StepLoss
    places: TokenCounts


class Generator(nn.Module):
    """A masked language model and the way its samples are drawn.

    Args:
        encoder: its body, which may share parts with another network.
        shape: of `encoder`.
        trial: vocabulary and seeds.
        masking: which tokens it predicts.
        sampling: how tokens are drawn.
    """

    def __init__(
        self,
        encoder: Encoder,
        shape: EncoderConfig,
        trial: spec.Trial,
        masking: MaskedObjectiveConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.vocabulary = VocabularyHead(shape, trial.data.vocab)
        self._masking, self._sampling, self._seed = masking, sampling, trial.seeds.mask
        self._samples_apart = shape.dropout > 0 and not sampling.dropout

    def forward(
        self, batch: Batch, step: int, now: StepSettings, places: TokenCounts | None = None
    ) -> Corrupted:
        """Mask, predict, sample and write, all on one draw of the chosen slots."""
        seed = self._seed
        masked = self.mask(batch, step, now)
        places = places or count_tokens(masked, batch)
        hidden_BKh, logits_BKV = self.predict(masked, batch.segment_BT, batch.offset)
        law_BKV = sampling_logits_BKV(
            self._without_dropout(masked, batch) if self._samples_apart else logits_BKV,
            masked.labels_BK,
            temperature=now.temperature,
            disallow_correct=self._sampling.disallow_correct,
        )
        sampled_BK = sample_tokens(law_BKV, masked.slots_BK, batch, seed=seed, step=step)
        ids_BT = write_tokens(batch, masked, sampled_BK)
        return Corrupted(
            ids_BT=ids_BT,
            replaced_BT=ids_BT != batch.ids_BT,
            masked=masked,
            sampled_BK=sampled_BK,
            law_BKV=law_BKV,
            hidden_BKh=hidden_BKh,
            loss=generator_loss(logits_BKV, masked, places),
            places=places,
        )

    def learn(
        self, batch: Batch, step: int, now: StepSettings, places: TokenCounts | None = None
    ) -> StepLoss:
        """Mask and predict alone, for who does not need the samples."""
        masked = self.mask(batch, step, now)
        logits_BKV = self.predict(masked, batch.segment_BT, batch.offset)[1]
        return generator_loss(logits_BKV, masked, places or count_tokens(masked, batch))

    def predict(
        self, masked: MaskedBatch, segment_BT: Tensor, offset: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return hidden states (B, K, h) and logits (B, K, V) at the slots only (trap 5)."""
        hidden_BKh = gather_slots(self.encoder(masked.ids_BT, segment_BT, offset), masked.slots_BK)
        return hidden_BKh, self.vocabulary(hidden_BKh, self.encoder.embeddings.table())

    def mask(self, batch: Batch, step: int, now: StepSettings) -> MaskedBatch:
        """Choose slots and mask them."""
        how, seed = self._masking.masking, self._seed
        return mask_batch(batch, mask_prob=now.mask_prob, how=how, seed=seed, step=step)

    @torch.no_grad()
    def _without_dropout(self, masked: MaskedBatch, batch: Batch) -> Tensor:
        training = self.training
        self.eval()
        logits_BKV = self.predict(masked, batch.segment_BT, batch.offset)[1]
        self.train(training)
        return logits_BKV


class FrozenGenerator(Generator):
    """A generator whose weights stay as they are: no gradient, no dropout, no optimizer.

    Its loss is reported and not learned from.
    """

    def __init__(
        self,
        encoder: Encoder,
        shape: EncoderConfig,
        trial: spec.Trial,
        masking: MaskedObjectiveConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__(encoder, shape, trial, masking, sampling)
        self._samples_apart = False  # its one pass is without dropout
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, batch: Batch, step: int, now: StepSettings, places: TokenCounts | None = None
    ) -> Corrupted:
        """Mask, predict, sample and write, all on one draw of the chosen slots."""
        return super().forward(batch, step, now, places)


def make_generator(body: Encoder, trial: spec.Trial, settings: JointObjectiveConfig) -> Generator:
    """Return the generator of an objective, which learns or is frozen.

    Args:
        body: its encoder, which may share parts with the one that is kept.
        trial: shape, vocabulary and seeds.
        settings: of the objective.
    """
    shape = settings.generator.of(trial.encoder)
    kind = FrozenGenerator if settings.frozen_generator else Generator
    return kind(body, shape, trial, settings, settings.sampling)


def generator_weight(settings: JointObjectiveConfig) -> float:
    """Return the weight of the generator's loss in the total; a frozen one's is only reported."""
    return 0.0 if settings.frozen_generator else settings.gen_weight


def generator_loss(logits_BKV: Tensor, masked: MaskedBatch, places: TokenCounts) -> StepLoss:
    """Return the cross-entropy over the used slots, in fp32, and how often the best is right."""
    errors_BK = cross_entropy(logits_BKV, masked.labels_BK)
    loss = masked_mean(errors_BK, masked.used_BK, places.slots)
    with torch.no_grad():
        # A comparison with the largest logit reads them once; argmax takes 17 times as long.
        label_BK = logits_BKV.gather(-1, masked.labels_BK[..., None])[..., 0]
        right_BK = label_BK == logits_BKV.amax(-1)
        parts = {
            "train/generator_loss": loss.detach(),
            "health/generator_accuracy": masked_mean(
                right_BK.float(), masked.used_BK, places.slots
            ),
        }
    return StepLoss(loss, parts)


def cross_entropy(logits_BKV: Tensor, labels_BK: Tensor) -> Tensor:
    """Return the cross-entropy at each slot, in fp32, shape (B, K).

    Of flat logits: with the classes in the middle, as a transposed input has them, the CPU's
    kernel reads memory across rows and takes several times as long.
    """
    flat_N = F.cross_entropy(
        logits_BKV.float().flatten(0, 1), labels_BK.flatten(), reduction="none"
    )
    return flat_N.view(labels_BK.shape)
