"""Adversarial training: the generator maximises the discriminator's loss (paper, appendix F).

Sampling has no gradient, so the generator is trained by REINFORCE. The reward of a sampled token is
the discriminator's loss at its position, minus a baseline b = -log sigmoid(w h) that predicts this
reward from the generator's hidden state h. As in the paper, the reward of a token counts the loss
at its own position only, and the expectation is estimated from one sample.

Letters: B examples, T positions, K masked slots, V vocabulary, h the generator's width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.model import initialize_weights
from lab.training.objectives.base import StepLoss, masked_mean
from lab.training.objectives.electra import Electra
from lab.training.objectives.generator import Corrupted
from lab.training.objectives.masking import TokenCounts


class Adversarial(Electra):
    """ELECTRA with an adversarial generator, with joint or alternating updates."""

    def __init__(self, trial: Trial, settings: AdversarialConfig, counts_V: Tensor) -> None:
        super().__init__(trial, settings, counts_V)
        self._adversarial_weight = settings.adversarial_weight
        if self._adversarial_weight:
            self.baseline = nn.Linear(settings.generator.derive_shape(trial.encoder).hidden, 1)
            initialize_weights(self.baseline, trial.encoder.init_std, trial.seeds.init)

    def forward(
        self,
        batch: Batch,
        step: int,
        updates: UpdatedNetworks = UpdatedNetworks.ALL,
        counts: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the losses of the networks that the step updates; the others get no gradient."""
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and updates is not UpdatedNetworks.DISCRIMINATOR
        ):
            corrupted: Corrupted = self.generator(batch, step, self.step_settings, counts)
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and updates is not UpdatedNetworks.GENERATOR
        ):
            detected_BT, detection = self.run_discriminator(corrupted, batch)
        total = torch.zeros((), device=batch.ids_BT.device)
        parts = corrupted.loss.parts | detection.parts
        if updates is not UpdatedNetworks.DISCRIMINATOR:
            generator = self._generator_loss(corrupted, detected_BT.detach())
            total = total + self._gen_weight * generator.total
            parts |= generator.parts
        if updates is not UpdatedNetworks.GENERATOR:
            total = total + self.step_settings.disc_weight * detection.total
        return StepLoss(total, {"train/loss": total.detach()} | parts)

    def _generator_loss(self, corrupted: Corrupted, detected_BT: Tensor) -> StepLoss:
        """Return the generator's loss: weighted likelihood and adversarial loss, and baseline loss.

        Args:
            corrupted: output of the generator.
            detected_BT: discriminator logits, detached.
        """
        if not self._adversarial_weight:
            return StepLoss(corrupted.loss.total, {})
        masked, slots = corrupted.masked, corrupted.counts.slots
        detected_BK = detected_BT.gather(1, masked.slots_BK).float()
        replaced_BK = corrupted.replaced_BT.gather(1, masked.slots_BK)
        # The reward is the discriminator's loss, -log p(correct label).
        log_correct_BK = F.logsigmoid(torch.where(replaced_BK, detected_BK, -detected_BK))
        expected_BK = self.baseline(corrupted.hidden_BKh.detach()).float()[..., 0]
        advantage_BK = (F.logsigmoid(expected_BK) - log_correct_BK).detach()
        log_p_BKV = corrupted.replacement_logits_BKV.log_softmax(-1)
        log_sampled_BK = log_p_BKV.gather(-1, corrupted.sampled_BK[..., None])[..., 0]
        adversarial = masked_mean(-log_sampled_BK * advantage_BK, masked.used_BK, slots)
        baseline = masked_mean(
            F.binary_cross_entropy_with_logits(expected_BK, log_correct_BK.exp(), reduction="none"),
            masked.used_BK,
            slots,
        )
        weight = self._adversarial_weight
        total = (1 - weight) * corrupted.loss.total + weight * adversarial + baseline
        parts = {
            "health/reward": masked_mean(-log_correct_BK, masked.used_BK, slots),
            "health/advantage": masked_mean(advantage_BK, masked.used_BK, slots),
            "health/baseline_loss": baseline.detach(),
        }
        return StepLoss(total, parts)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then those of the generator and its baseline."""
        networks = super().networks()
        if self._adversarial_weight:
            networks["generator"] += self.baseline.parameters()
        return networks
