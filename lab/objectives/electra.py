"""Replaced-token detection with a jointly trained generator (paper, section 2).

Letters: B examples, T positions, K masked slots, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab import spec
from lab.data import PAD, Batch
from lab.model import DetectionHead, Encoder, VocabularyHead, at_slots, initialise
from lab.objectives.base import Detector, Loss, entropy, mean
from lab.objectives.masking import mask, sample


class Electra(Detector):
    """A small masked language model corrupts text, and an encoder finds what it replaced.

    Word, position and type tables and their LayerNorm are one object in both networks; each
    network has its own map from embedding to hidden width where these differ
    (`run_pretraining.PretrainingModel`). No gradient flows from the discriminator into the
    generator's body: sampling has none. The shared tables get both.
    """

    def __init__(self, trial: spec.Trial, settings: spec.Electra, counts_V: Tensor) -> None:
        super().__init__()
        vocab, length = trial.data.vocab, trial.data.length
        small = settings.generator.of(trial.encoder)
        self.encoder = Encoder(trial.encoder, vocab, length)
        self.detection = DetectionHead(trial.encoder)
        self.generator = Encoder(small, vocab, length)
        self.generator.embeddings = self.encoder.embeddings
        self.vocabulary = VocabularyHead(small, vocab)
        initialise(self, trial.encoder.init_std, trial.seeds.init)
        self.vocabulary.start_at(counts_V)
        self._settings = settings
        self._seed = trial.seeds.mask

    def forward(self, batch: Batch, step: int) -> Loss:
        """Return both losses on one masking and one sample of it."""
        settings, seed = self._settings, self._seed
        text_BT = batch.ids_BT != PAD
        masked = mask(
            batch, mask_prob=settings.mask_prob, how=settings.masking, seed=seed, step=step
        )
        logits_BKV = self.generate(masked.ids_BT, masked.slots_BK, text_BT)
        losses_BK = F.cross_entropy(
            logits_BKV.float().transpose(1, 2), masked.labels_BK, reduction="none"
        )
        generator_loss = mean(losses_BK, masked.used_BK)

        sampled_BK = sample(logits_BKV, masked.slots_BK, batch, seed=seed, step=step)
        written_BK = sampled_BK.where(masked.used_BK, batch.ids_BT.gather(1, masked.slots_BK))
        # Into the original text, not the masked one; a lucky sample counts as original (trap 3).
        corrupted_BT = batch.ids_BT.scatter(1, masked.slots_BK, written_BK)
        replaced_BT = corrupted_BT != batch.ids_BT

        detected_BT = self.detect(corrupted_BT, text_BT).float()
        errors_BT = F.binary_cross_entropy_with_logits(
            detected_BT, replaced_BT.float(), reduction="none"
        )
        discriminator_loss = mean(errors_BT, text_BT)
        total = generator_loss + settings.disc_weight * discriminator_loss

        with torch.no_grad():
            replacement_rate = mean(replaced_BT.float(), text_BT)
            right_BK = logits_BKV.argmax(-1) == masked.labels_BK
            parts = {
                "train/loss": total.detach(),
                "train/generator_loss": generator_loss.detach(),
                "train/discriminator_loss": discriminator_loss.detach(),
                "health/replacement_rate": replacement_rate,
                "health/majority_loss": entropy(replacement_rate),
                "health/recall_replaced": mean((detected_BT > 0).float(), replaced_BT),
                "health/generator_accuracy": mean(right_BK.float(), masked.used_BK),
            }
        return Loss(total, parts)

    def generate(self, ids_BT: Tensor, slots_BK: Tensor, text_BT: Tensor) -> Tensor:
        """Return the generator's logits at the masked slots only, shape (B, K, V) (trap 5)."""
        hidden_BKh = at_slots(self.generator(ids_BT, text_BT), slots_BK)
        table_Ve = self.encoder.embeddings.word_embeddings.weight
        logits_BKV: Tensor = self.vocabulary(hidden_BKh, table_Ve)
        return logits_BKV

    def detect(self, ids_BT: Tensor, text_BT: Tensor) -> Tensor:
        """Return the discriminator's logits, shape (B, T)."""
        logits_BT: Tensor = self.detection(self.encoder(ids_BT, text_BT))
        return logits_BT

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then those that are the generator's alone."""
        kept = [*self.encoder.parameters(), *self.detection.parameters()]
        known = {id(parameter) for parameter in kept}
        own = [*self.generator.parameters(), *self.vocabulary.parameters()]
        return {
            "discriminator": kept,
            "generator": [parameter for parameter in own if id(parameter) not in known],
        }
