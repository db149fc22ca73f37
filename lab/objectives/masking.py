"""Which positions the generator predicts, and what it sees there.

Letters: B examples, T positions of a window, K masked slots (fixed, so shapes are static).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lab import noise
from lab.data import FIRST_WORD, MASK, UNK, Batch
from lab.flops import masked_slots

_KEPT = 0.15  # pretrain_helpers.py: a chosen slot becomes [MASK] with probability .85


class Masked(NamedTuple):
    """A batch as the generator sees it.

    Attributes:
        ids_BT: the text with its chosen slots masked.
        slots_BK: chosen positions; those of an unused slot are 0.
        used_BK: whether the slot is used (short windows use fewer than K).
        labels_BK: the original tokens at the slots.
    """

    ids_BT: Tensor
    slots_BK: Tensor
    used_BK: Tensor
    labels_BK: Tensor


def mask(
    batch: Batch, *, mask_prob: float, how: Literal["paper", "code"], seed: int, step: int
) -> Masked:
    """Choose slots and mask them.

    Every token but [CLS], [SEP], [MASK] and padding is a candidate; of n candidates
    clip(round(n p), 1, K) are chosen (`pretrain_helpers.mask`).

    Args:
        batch: the text.
        mask_prob: p.
        how: `paper` chooses distinct slots and always writes [MASK]; `code` draws with
            replacement, and leaves a slot unmasked with probability .15.
        seed: of the masking.
        step: the optimizer step; with `seed` and the example it fixes every choice.
    """
    ids_BT, length = batch.ids_BT, batch.ids_BT.shape[1]
    K = masked_slots(length, mask_prob)
    candidate_BT = (ids_BT >= FIRST_WORD) | (ids_BT == UNK)
    candidates_B = candidate_BT.sum(1)
    chosen_B = (candidates_B * mask_prob).round().clamp(1, K).minimum(candidates_B)
    match how:
        case "paper":
            key_BT = noise.uniform(seed, noise.MASK, step, batch.example_B, length)
            slots_BK = key_BT.masked_fill(~candidate_BT, 2.0).argsort(1)[:, :K]
            becomes_BK = torch.ones_like(slots_BK, dtype=torch.bool)
        case "code":
            drawn_BK = noise.uniform(seed, noise.MASK, step, batch.example_B, K)
            # Candidates first, in their order; draw an index among them.
            order_BT = (~candidate_BT).to(torch.uint8).argsort(stable=True, dim=1)
            slots_BK = order_BT.gather(1, (drawn_BK * candidates_B[:, None]).long())
            becomes_BT = noise.uniform(seed, noise.KEEP, step, batch.example_B, length) >= _KEPT
            becomes_BK = becomes_BT.gather(1, slots_BK)  # one fate a position, also if drawn twice
    used_BK = torch.arange(K, device=ids_BT.device) < chosen_B[:, None]
    slots_BK = slots_BK.where(used_BK, 0)  # position 0 is [CLS]: harmless to write back
    labels_BK = ids_BT.gather(1, slots_BK)
    shown_BK = labels_BK.masked_fill(used_BK & becomes_BK, MASK)
    return Masked(ids_BT.scatter(1, slots_BK, shown_BK), slots_BK, used_BK, labels_BK)


def sample(logits_BKV: Tensor, slots_BK: Tensor, batch: Batch, *, seed: int, step: int) -> Tensor:
    """Draw a token at each slot from the full softmax at temperature 1, without gradient.

    By inversion: one uniform number a slot against the cumulated probabilities, which has the
    law of the official Gumbel-max with V times less noise. In fp32 whatever the logits' type
    (trap 6). The noise belongs to the position, so a slot drawn twice gets one token.

    Returns:
        int64 tokens, shape (B, K).
    """
    with torch.no_grad():
        u_BT = noise.uniform(seed, noise.SAMPLE, step, batch.example_B, batch.ids_BT.shape[1])
        u_BK = u_BT.gather(1, slots_BK)
        cumulated_BKV = logits_BKV.float().softmax(-1).cumsum(-1)
        # The last cumulated value is 1 but for rounding; scaling keeps the draw inside.
        target_BK1 = (u_BK * cumulated_BKV[..., -1])[..., None]
        return torch.searchsorted(cumulated_BKV, target_BK1, right=True)[..., 0].clamp(
            max=logits_BKV.shape[-1] - 1
        )
