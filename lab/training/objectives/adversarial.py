"""Adversarial training: the generator maximises the discriminator's loss (paper, appendix F).

Sampling has no gradient, so the generator is trained by REINFORCE. The reward of a sampled token is
a loss of the discriminator, minus a baseline b = -log sigmoid(w h) that predicts this reward from
the generator's hidden state h. The expectation is estimated from one sample.

`own_token`, as in the paper: the reward is the loss at the token's own position, and the generator
maximizes the mean of these losses over the slots. `all_tokens`: the reward is the mean loss over
the n positions of the window. The generator maximizes the discriminator's loss L, the mean over the
N positions of the batch. Samples of one window do not change the loss of another, so the gradient
of L is the expectation of n/N (reward - b) times the gradient of log p, summed over all slots.

Letters: B examples, T positions, K masked slots, V vocabulary, h the generator's width.
"""

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.initialization import initialize_weights
from lab.training.objectives.base import StepLoss, masked_mean
from lab.training.objectives.electra import Electra
from lab.training.objectives.generator import Corrupted
from lab.training.objectives.masking import TokenCounts


class Adversarial(Electra):
    """ELECTRA with an adversarial generator, with joint or alternating updates."""

    def __init__(self, trial: Trial, settings: AdversarialConfig, counts_V: Tensor) -> None:
        super().__init__(trial, settings, counts_V)
        self._adversarial_weight, self._reward = settings.adversarial_weight, settings.reward
        if self._adversarial_weight:
            self.baseline = nn.Linear(settings.generator.derive_shape(trial.encoder).hidden, 1)
            initialize_weights(self.baseline, trial.encoder, trial.seeds.init)

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
            detected_BT, discriminator = self.run_discriminator(corrupted, batch)
            if updates is not UpdatedNetworks.GENERATOR:
                discriminator = self.add_auxiliary(discriminator, corrupted, batch)
        total = torch.zeros((), device=batch.ids_BT.device)
        parts = corrupted.loss.parts | discriminator.parts
        if updates is not UpdatedNetworks.DISCRIMINATOR:
            generator = self._generator_loss(corrupted, detected_BT.detach(), batch)
            total = total + self._gen_weight * generator.total
            parts |= generator.parts
        if updates is not UpdatedNetworks.GENERATOR:
            total = total + self.step_settings.disc_weight * discriminator.total
        return StepLoss(total, {"train/loss": total.detach()} | parts)

    def _generator_loss(self, corrupted: Corrupted, detected_BT: Tensor, batch: Batch) -> StepLoss:
        """Return the generator's loss: weighted likelihood and adversarial loss, and baseline loss.

        Args:
            corrupted: output of the generator.
            detected_BT: discriminator logits, detached.
            batch: original text.
        """
        if not self._adversarial_weight:
            return StepLoss(corrupted.loss.total, {})
        masked, slots = corrupted.masked, corrupted.counts.slots
        log_correct_BK, times_BK, count = self._rewards(corrupted, detected_BT, batch)
        expected_BK = self.baseline(corrupted.hidden_BKh.detach()).float()[..., 0]
        advantage_BK = (F.logsigmoid(expected_BK) - log_correct_BK).detach()
        log_p_BKV = corrupted.replacement_logits_BKV.log_softmax(-1)
        log_sampled_BK = log_p_BKV.gather(-1, corrupted.sampled_BK[..., None])[..., 0]
        adversarial = masked_mean(-log_sampled_BK * advantage_BK, times_BK, count)
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

    def _rewards(
        self, corrupted: Corrupted, detected_BT: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reward of each slot and its share in the generator's loss.

        Args:
            corrupted: output of the generator.
            detected_BT: discriminator logits, detached.
            batch: original text.

        Returns:
            Minus the reward, shape (B, K): the log of the probability of the correct label. The
            weight of each slot in the adversarial loss, shape (B, K), 0 for unused slots. The
            number that the weighted sum over all slots is divided by.
        """
        masked, counts = corrupted.masked, corrupted.counts
        match self._reward:
            case "own_token":
                detected_BK = detected_BT.gather(1, masked.slots_BK)
                replaced_BK = corrupted.replaced_BT.gather(1, masked.slots_BK)
                return _log_correct(detected_BK, replaced_BK), masked.used_BK, counts.slots
            case "all_tokens":
                text_BT = batch.segment_BT > 0
                log_correct_BT = _log_correct(detected_BT, corrupted.replaced_BT) * text_BT
                length_B1 = text_BT.sum(1, keepdim=True)
                mean_B1 = log_correct_BT.sum(1, keepdim=True) / length_B1.clamp(min=1)
                times_BK = masked.used_BK * length_B1
                return mean_B1.expand_as(times_BK), times_BK, counts.text
            case _:
                assert_never(self._reward)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then those of the generator and its baseline."""
        networks = super().networks()
        if self._adversarial_weight:
            networks["generator"] += self.baseline.parameters()
        return networks


def _log_correct(detected: Tensor, replaced: Tensor) -> Tensor:
    """Return the log of the probability of the correct label, minus the discriminator's loss."""
    detected = detected.float()
    return F.logsigmoid(torch.where(replaced, detected, -detected))
