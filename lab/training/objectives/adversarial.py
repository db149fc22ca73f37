"""The minimax game: the generator is trained to make the discriminator fail (appendix F).

A sampled token has no gradient, so the generator learns by REINFORCE: the reward of a token is
the discriminator's loss on it, less a baseline that is learned from the generator's own hidden
state to expect that reward, b = -log sigmoid(w h). As in the paper, a token answers for its own
position alone, and the expectation is taken over one sample.

Letters: B examples, T positions, K masked slots, V vocabulary, h the generator's width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config import trial as spec
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.phases import UpdatedNetworks
from lab.data.batches import Batch
from lab.training.model import initialize_weights
from lab.training.objectives.base import StepLoss, masked_mean
from lab.training.objectives.electra import Electra
from lab.training.objectives.generator import Corrupted
from lab.training.objectives.masking import TokenCounts


class Adversarial(Electra):
    """ELECTRA whose generator plays against the discriminator, by either rule."""

    def __init__(self, trial: spec.Trial, settings: AdversarialConfig, counts_V: Tensor) -> None:
        super().__init__(trial, settings, counts_V)
        self._share = settings.adversarial_weight
        if self._share:
            self.baseline = nn.Linear(settings.generator.of(trial.encoder).hidden, 1)
            initialize_weights(self.baseline, trial.encoder.init_std, trial.seeds.init)

    def forward(
        self,
        batch: Batch,
        step: int,
        learns: UpdatedNetworks = UpdatedNetworks.ALL,
        places: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the losses of the networks that learn; those that do not are frozen."""
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and learns is not UpdatedNetworks.DISCRIMINATOR
        ):
            corrupted: Corrupted = self.generator(batch, step, self.now, places)
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and learns is not UpdatedNetworks.GENERATOR
        ):
            detected_BT, found = self.find(corrupted, batch)
        total = torch.zeros((), device=batch.ids_BT.device)
        parts = corrupted.loss.parts | found.parts
        if learns is not UpdatedNetworks.DISCRIMINATOR:
            played = self._play(corrupted, detected_BT.detach())
            total = total + self._gen_weight * played.total
            parts |= played.parts
        if learns is not UpdatedNetworks.GENERATOR:
            total = total + self.now.disc_weight * found.total
        return StepLoss(total, {"train/loss": total.detach()} | parts)

    def _play(self, corrupted: Corrupted, detected_BT: Tensor) -> StepLoss:
        """Return the generator's loss: what is left of its likelihood, the game, the baseline."""
        if not self._share:
            return StepLoss(corrupted.loss.total, {})
        masked, slots = corrupted.masked, corrupted.places.slots
        detected_BK = detected_BT.gather(1, masked.slots_BK).float()
        replaced_BK = corrupted.replaced_BT.gather(1, masked.slots_BK)
        # log p of the right answer; the discriminator's loss, which is the reward, is its negative.
        right_BK = F.logsigmoid(torch.where(replaced_BK, detected_BK, -detected_BK))
        expected_BK = self.baseline(corrupted.hidden_BKh.detach()).float()[..., 0]
        advantage_BK = (F.logsigmoid(expected_BK) - right_BK).detach()
        law_BKV = corrupted.law_BKV.log_softmax(-1)
        written_BK = law_BKV.gather(-1, corrupted.sampled_BK[..., None])[..., 0]
        game = masked_mean(-written_BK * advantage_BK, masked.used_BK, slots)
        baseline = masked_mean(
            F.binary_cross_entropy_with_logits(expected_BK, right_BK.exp(), reduction="none"),
            masked.used_BK,
            slots,
        )
        total = (1 - self._share) * corrupted.loss.total + self._share * game + baseline
        parts = {
            "health/reward": masked_mean(-right_BK, masked.used_BK, slots),
            "health/advantage": masked_mean(advantage_BK, masked.used_BK, slots),
            "health/baseline_loss": baseline.detach(),
        }
        return StepLoss(total, parts)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return the discriminator's parameters, then the generator's and its baseline's."""
        networks = super().networks()
        if self._share:
            networks["generator"] += self.baseline.parameters()
        return networks
