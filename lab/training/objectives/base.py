"""What every objective promises."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lab.config.phases import UpdatedNetworks
from lab.config.ramps import StepSettings
from lab.config.trial import Trial
from lab.data.batches import Batch
from lab.training.model import DetectionHead, Encoder
from lab.training.objectives.masking import MaskedBatch, TokenCounts, count_tokens


class StepLoss(NamedTuple):
    """What a step learns from and what it reports.

    Both add up over the pieces of a step's batch, where each is given the places of all of it.

    Attributes:
        total: scalar, differentiable.
        parts: detached scalars by name; `Objective.health` makes the record's figures of them.
    """

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """Something to pre-train.

    Args:
        trial: whose settings hold until the first step begins.

    Attributes:
        encoder: what probes, fine-tuning and export receive.
        now: the settings of the present step.
    """

    encoder: Encoder
    now: StepSettings

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.now = trial.at(0.0)

    def begin(self, learns: UpdatedNetworks, settings: StepSettings) -> None:  # noqa: ARG002
        """Make ready for a step that updates `learns`; the loop calls it before each."""
        self.now = settings

    @abstractmethod
    def mask(self, batch: Batch, step: int) -> MaskedBatch:
        """Return the batch with the slots chosen that `step` is about."""

    def places(self, batch: Batch, step: int) -> TokenCounts:
        """Return what the means of a batch are taken over."""
        return count_tokens(self.mask(batch, step), batch)

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        step: int,
        learns: UpdatedNetworks = UpdatedNetworks.ALL,
        places: TokenCounts | None = None,
    ) -> StepLoss:
        """Return the loss of `batch`, whose gradient reaches the networks that learn.

        Chance depends on the objective's seed, the examples and `step` alone; evaluation mode
        and a repeated call change nothing.

        Args:
            batch: the step's, or a piece of it.
            step: which optimizer step.
            learns: whose turn it is.
            places: of the step's whole batch, where this is a piece of it (trap 7).
        """

    def health(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the figures to record of a step, from its parts, added up over all pieces."""
        return parts

    @abstractmethod
    def networks(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter once, by the network that owns it; `encoder`'s come first.

        What two networks share belongs to the one that is kept.
        """


class Detector(Objective):
    """An objective that can say which tokens were replaced."""

    detection: DetectionHead

    def detect(self, ids_BT: Tensor, segment_BT: Tensor, offset: int = 0) -> Tensor:
        """Return logits, shape (B, T); positive means replaced.

        Args:
            ids_BT: tokens, some of them replaced.
            segment_BT: of the original text, as `data.segments` has it.
            offset: row of the position table at which the windows begin.
        """
        logits_BT: Tensor = self.detection(self.encoder(ids_BT, segment_BT, offset))
        return logits_BT

    def health(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the parts with the majority's loss, and recall in place of what was found."""
        parts = dict(parts)
        replaced, found = parts.pop(REPLACED, None), parts.pop(FOUND, None)
        if replaced is None or found is None:  # a turn in which nothing is detected
            return parts
        return parts | {
            "health/majority_loss": base_rate_entropy(replaced),
            "health/recall_replaced": torch.where(replaced > 0, found / replaced, 0.0),
        }


# Shares of the scored places: what was replaced, and what of it was found.
REPLACED, FOUND = "replaced", "found"


def masked_mean(value: Tensor, where: Tensor, places: Tensor) -> Tensor:
    """Return the sum of `value` over the true places of `where`, over `places`; 0 over none."""
    return (value * where).sum() / places.clamp(min=1)


def base_rate_entropy(share: Tensor) -> Tensor:
    """Return the loss of always answering with the base rate `share`, in nats (trap 8)."""
    nats: Tensor = torch.special.entr(share) + torch.special.entr(1 - share)
    return nats
