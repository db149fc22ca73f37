"""Base classes of objectives."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import StepSettings
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.model import DetectionHead, Encoder
from lab.training.objectives.masking import MaskedBatch, TokenCounts, count_tokens


class StepLoss(NamedTuple):
    """Loss of a batch or micro-batch, and the scalars that its metrics are computed from.

    The micro-batches of a step add up to the values of the full batch if each is divided by the
    token counts of the full batch.

    Attributes:
        total: loss to minimise, a differentiable scalar.
        parts: detached scalars by name; `Objective.health` turns their sums into metrics.
    """

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A pre-training objective with the networks that it trains.

    Args:
        trial: trial with the initial settings.

    Attributes:
        encoder: encoder for probes, fine-tuning and export.
        step_settings: settings of the current step.
        parametrization: dependence of initial weights and learning rates on the width.
    """

    encoder: Encoder
    step_settings: StepSettings

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.step_settings = trial.settings_at(0.0)
        self.parametrization = trial.encoder.parametrization

    def begin(self, updates: UpdatedNetworks, settings: StepSettings) -> None:  # noqa: ARG002
        """Prepare for a step that updates the networks `updates`; called before each step."""
        self.step_settings = settings

    @abstractmethod
    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the batch with the slots masked that `step` selects."""

    def token_counts(self, batch: Batch, step: int) -> TokenCounts:
        """Return the numbers of tokens that the means over a batch are divided by."""
        return count_tokens(self.mask(batch, step), batch)

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        step: int,
        updates: UpdatedNetworks = UpdatedNetworks.ALL,
        counts: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the loss of a batch; its gradient reaches only the networks that are updated.

        Masks and samples depend only on the objective's seed, the examples and `step`. A call does
        not change the objective's state.

        Args:
            batch: windows of the step, or a micro-batch of them.
            step: index of the optimizer step.
            updates: networks that the step updates.
            counts: token counts of the full batch if `batch` is a micro-batch; None to count the
                tokens of `batch`.
        """

    def health(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of a step from its `parts`, summed over all micro-batches."""
        return parts

    @abstractmethod
    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return each trainable parameter once, by the network that owns it; `encoder`'s first.

        Parameters that two networks share belong to the network of `encoder`.
        """


class Detector(Objective):
    """An objective that trains a discriminator to detect replaced tokens."""

    detection: DetectionHead

    def detect(self, ids_BT: Tensor, segment_BT: Tensor, offset: int = 0) -> Tensor:
        """Return logits, shape (B, T); positive means replaced.

        Args:
            ids_BT: token ids, some of them replaced.
            segment_BT: segments of the original text (`data.batches.segment_ids`).
            offset: row of the position table for the first token of each window.
        """
        logits_BT: Tensor = self.detection(self.encoder(ids_BT, segment_BT, offset))
        return logits_BT

    def health(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics, with the uninformed loss and the recall on replaced tokens added.

        Both are computed from the shares `REPLACEABLE`, `REPLACED` and `FOUND`, which are removed.
        """
        parts = dict(parts)
        if REPLACED not in parts:  # a step that does not run the discriminator
            return parts
        replaceable, replaced, found = map(parts.pop, (REPLACEABLE, REPLACED, FOUND))
        return parts | {
            "health/majority_loss": uninformed_loss(replaced, replaceable),
            "health/recall_replaced": torch.where(replaced > 0, found / replaced, 0.0),
        }


# Shares of the scored positions: those that can be replaced, replaced ones, and detected ones.
REPLACEABLE, REPLACED, FOUND = "replaceable", "replaced", "found"


def masked_mean(value: Tensor, where: Tensor, count: Tensor) -> Tensor:
    """Return the sum of `value` where `where` is true, divided by `count`; 0 if `count` is 0."""
    return (value * where).sum() / count.clamp(min=1)


def uninformed_loss(replaced: Tensor, replaceable: Tensor) -> Tensor:
    """Return the loss of a discriminator that knows only which tokens can be replaced, in nats.

    It predicts the base rate f / s at each token that can be replaced, and "original" at [CLS] and
    [SEP]. Its mean loss is s H(f / s), with the entropy H of a binary variable. A discriminator
    loss is only meaningful beside it: at a low replacement rate, a network that has learned nothing
    but this rate has a low loss already.

    Args:
        replaced: share f of the scored positions that are replaced.
        replaceable: share s of the scored positions that can be replaced.
    """
    original = (replaceable - replaced).clamp(min=0)  # may be negative by rounding
    entr = torch.special.entr  # -x ln x
    nats: Tensor = entr(replaced) + entr(original) - entr(replaceable)
    return nats
