"""The discriminator's loss, and how well it does beside a majority vote."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.objectives.base import Loss, entropy, mean, share


def detection_loss(
    detected_BT: Tensor, replaced_BT: Tensor, text_BT: Tensor, scored_BT: Tensor
) -> Loss:
    """Return the sigmoid cross-entropy, in fp32, of telling replaced tokens from original ones.

    Args:
        detected_BT: logits; positive means replaced.
        replaced_BT: whether the token differs from the original.
        text_BT: false at padding.
        scored_BT: where the loss is taken; officially all text, [CLS] and [SEP] included.
    """
    errors_BT = F.binary_cross_entropy_with_logits(
        detected_BT.float(), replaced_BT.float(), reduction="none"
    )
    loss = mean(errors_BT, scored_BT)
    with torch.no_grad():
        fakes_BT = replaced_BT.float()
        parts = {
            "train/discriminator_loss": loss.detach(),
            "health/replacement_rate": mean(fakes_BT, text_BT),
            "health/majority_loss": entropy(share(replaced_BT & scored_BT, scored_BT)),
            "health/recall_replaced": mean((detected_BT > 0).float(), replaced_BT & scored_BT),
        }
    return Loss(loss, parts)
