"""The discriminator's loss, and how well it does beside a majority vote."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.training.objectives.base import FOUND, REPLACED, StepLoss, masked_mean
from lab.training.objectives.masking import TokenCounts


def detection_loss(
    detected_BT: Tensor,
    replaced_BT: Tensor,
    text_BT: Tensor,
    places: TokenCounts,
    slots_BT: Tensor | None = None,
) -> StepLoss:
    """Return the sigmoid cross-entropy, in fp32, of telling replaced tokens from original ones.

    Args:
        detected_BT: logits; positive means replaced.
        replaced_BT: whether the token differs from the original.
        text_BT: false at padding.
        places: of the step's whole batch.
        slots_BT: the chosen positions, where the loss is taken at these alone; officially it is
            at all text, [CLS] and [SEP] included.
    """
    errors_BT = F.binary_cross_entropy_with_logits(
        detected_BT.float(), replaced_BT.float(), reduction="none"
    )
    scored_BT, scored = (text_BT, places.text) if slots_BT is None else (slots_BT, places.chosen)
    loss = masked_mean(errors_BT, scored_BT, scored)
    with torch.no_grad():
        fakes_BT = replaced_BT.float()
        parts = {
            "train/discriminator_loss": loss.detach(),
            "health/replacement_rate": masked_mean(fakes_BT, text_BT, places.text),
            REPLACED: masked_mean(fakes_BT, scored_BT, scored),
            FOUND: masked_mean((detected_BT > 0).float(), replaced_BT & scored_BT, scored),
        }
    return StepLoss(loss, parts)
