"""The discriminator's loss, and the shares from which recall and uninformed loss follow."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data.vocabulary import PAD
from lab.training.objectives.base import FOUND, REPLACEABLE, REPLACED, StepLoss, masked_mean
from lab.training.objectives.masking import TokenCounts, candidate_positions


def detection_loss(
    detected_BT: Tensor,
    replaced_BT: Tensor,
    original_BT: Tensor,
    counts: TokenCounts,
    slots_BT: Tensor | None = None,
) -> StepLoss:
    """Return the sigmoid cross-entropy of detecting replaced tokens, in fp32.

    Args:
        detected_BT: discriminator logits; positive means replaced.
        replaced_BT: whether the token differs from the original.
        original_BT: token ids of the original text.
        counts: token counts of the full batch.
        slots_BT: positions that the loss is restricted to; None for all text, [CLS] and [SEP]
            included, as in the official code.
    """
    errors_BT = F.binary_cross_entropy_with_logits(
        detected_BT.float(), replaced_BT.float(), reduction="none"
    )
    text_BT = original_BT != PAD
    scored_BT, scored = (text_BT, counts.text) if slots_BT is None else (slots_BT, counts.chosen)
    loss = masked_mean(errors_BT, scored_BT, scored)
    with torch.no_grad():
        fakes_BT = replaced_BT.float()
        parts = {
            "train/discriminator_loss": loss.detach(),
            "health/replacement_rate": masked_mean(fakes_BT, text_BT, counts.text),
            REPLACEABLE: masked_mean(candidate_positions(original_BT), scored_BT, scored),
            REPLACED: masked_mean(fakes_BT, scored_BT, scored),
            FOUND: masked_mean((detected_BT > 0).float(), replaced_BT & scored_BT, scored),
        }
    return StepLoss(loss, parts)
