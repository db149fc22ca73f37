"""Which positions the generator predicts, and what it sees there.

Letters: B examples, T positions of a window, K masked slots (fixed, so shapes are static).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lab.config.flops import masked_slots
from lab.data.batches import Batch
from lab.data.vocabulary import FIRST_WORD, MASK, PAD, UNK
from lab.training import counter_rng

_KEPT = 0.15  # pretrain_helpers.py: a chosen slot becomes [MASK] with probability .85


class MaskedBatch(NamedTuple):
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


class TokenCounts(NamedTuple):
    """How many places the means of a step are taken over, all pieces of its batch together.

    Attributes:
        slots: used slots; a position that was drawn twice counts twice.
        chosen: positions that are used slots.
        text: positions that are no padding.
    """

    slots: Tensor
    chosen: Tensor
    text: Tensor


def count_tokens(masked: MaskedBatch, batch: Batch) -> TokenCounts:
    """Return the places of one batch."""
    return TokenCounts(
        slots=masked.used_BK.sum(),
        chosen=chosen_positions(masked).sum(),
        text=(batch.ids_BT != PAD).sum(),
    )


def mask_batch(
    batch: Batch, *, mask_prob: float, how: Literal["paper", "code"], seed: int, step: int
) -> MaskedBatch:
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
            key_BT = counter_rng.uniform(seed, counter_rng.MASK, step, batch.example_B, length)
            slots_BK = key_BT.masked_fill(~candidate_BT, 2.0).argsort(1)[:, :K]
            becomes_BK = torch.ones_like(slots_BK, dtype=torch.bool)
        case "code":
            drawn_BK = counter_rng.uniform(seed, counter_rng.MASK, step, batch.example_B, K)
            # Candidates first, in their order; draw an index among them.
            order_BT = (~candidate_BT).to(torch.uint8).argsort(stable=True, dim=1)
            slots_BK = order_BT.gather(1, (drawn_BK * candidates_B[:, None]).long())
            becomes_BT = (
                counter_rng.uniform(seed, counter_rng.KEEP, step, batch.example_B, length) >= _KEPT
            )
            becomes_BK = becomes_BT.gather(1, slots_BK)  # one fate a position, also if drawn twice
    used_BK = torch.arange(K, device=ids_BT.device) < chosen_B[:, None]
    slots_BK = slots_BK.where(used_BK, 0)  # position 0 is [CLS]: harmless to write back
    labels_BK = ids_BT.gather(1, slots_BK)
    shown_BK = labels_BK.masked_fill(used_BK & becomes_BK, MASK)
    return MaskedBatch(ids_BT.scatter(1, slots_BK, shown_BK), slots_BK, used_BK, labels_BK)


def write_tokens(batch: Batch, masked: MaskedBatch, tokens_BK: Tensor) -> Tensor:
    """Return the original text, not the masked one, with `tokens_BK` at the used slots (trap 3)."""
    kept_BK = tokens_BK.where(masked.used_BK, batch.ids_BT.gather(1, masked.slots_BK))
    return batch.ids_BT.scatter(1, masked.slots_BK, kept_BK)


def chosen_positions(masked: MaskedBatch) -> Tensor:
    """Return which positions are used slots, bool, shape (B, T)."""
    times_BT = torch.zeros_like(masked.ids_BT)
    return times_BT.scatter_add(1, masked.slots_BK, masked.used_BK.long()) > 0


def apply_bert_corruption(
    masked: MaskedBatch, batch: Batch, *, vocab: int, seed: int, step: int
) -> MaskedBatch:
    """Return `masked` with a random word at a tenth of its slots and the original at a tenth.

    BERT's 80/10/10 (`create_pretraining_data.create_masked_lm_predictions`), but that random
    words are words: no special token is written.
    """
    length = batch.ids_BT.shape[1]
    fate_BT, word_BT = (
        counter_rng.uniform(seed, stream, step, batch.example_B, length)
        for stream in (counter_rng.KEEP, counter_rng.WORD)
    )
    fate_BK = fate_BT.gather(1, masked.slots_BK)
    place_BK = word_BT.gather(1, masked.slots_BK).double() * (vocab - FIRST_WORD)
    word_BK = FIRST_WORD + place_BK.long()
    shown_BK = masked.ids_BT.gather(1, masked.slots_BK)
    shown_BK = torch.where(fate_BK < 0.2, word_BK, shown_BK)
    shown_BK = torch.where(fate_BK < 0.1, masked.labels_BK, shown_BK)
    shown_BK = shown_BK.where(masked.used_BK, masked.labels_BK)
    return masked._replace(ids_BT=batch.ids_BT.scatter(1, masked.slots_BK, shown_BK))
