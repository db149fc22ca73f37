"""Selection and masking of the positions that the generator predicts.

Letters: B examples, T positions of a window, K masked slots (fixed, so shapes are static).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lab.config.flops import masked_slots
from lab.data.batches import Batch
from lab.data.vocabulary import FIRST_WORD, MASK, PAD, UNK
from lab.training import counter_rng

_UNMASKED_SHARE = 0.15  # pretrain_helpers.py: a slot becomes [MASK] with probability .85


class MaskedBatch(NamedTuple):
    """Masked input of the generator, and the slots that it predicts.

    Attributes:
        ids_BT: the text with its used slots masked.
        slots_BK: position of each slot; 0 for an unused slot.
        used_BK: whether the slot is used; short windows use fewer than K.
        labels_BK: original tokens at the slots.
    """

    ids_BT: Tensor
    slots_BK: Tensor
    used_BK: Tensor
    labels_BK: Tensor


class TokenCounts(NamedTuple):
    """Numbers of tokens that the means over the full batch of a step are divided by.

    Attributes:
        slots: number of used slots; a position drawn twice counts twice.
        chosen: number of distinct positions of used slots.
        text: number of positions that are not padding.
    """

    slots: Tensor
    chosen: Tensor
    text: Tensor


def count_tokens(masked: MaskedBatch, batch: Batch) -> TokenCounts:
    """Return the token counts of a batch."""
    return TokenCounts(
        slots=masked.used_BK.sum(),
        chosen=chosen_positions(masked).sum(),
        text=(batch.ids_BT != PAD).sum(),
    )


def mask_batch(
    batch: Batch, *, mask_prob: float, masking: Literal["paper", "code"], seed: int, step: int
) -> MaskedBatch:
    """Select slots at random and mask them.

    Candidates are all tokens except [CLS], [SEP], [MASK] and padding. Of n candidates,
    clip(round(n p), 1, K) are selected, as by `pretrain_helpers.mask` of the official code.

    Args:
        batch: original text.
        mask_prob: mask probability p.
        masking: `paper` selects distinct positions and replaces each by [MASK]; `code` draws
            positions with replacement and leaves a slot unmasked with probability .15.
        seed: seed of the masking.
        step: index of the optimizer step. The selection is a function of `seed`, `step` and the
            identity of the example.
    """
    ids_BT, length = batch.ids_BT, batch.ids_BT.shape[1]
    K = masked_slots(length, mask_prob)
    candidate_BT = candidate_positions(ids_BT)
    candidates_B = candidate_BT.sum(1)
    used_B = (candidates_B * mask_prob).round().clamp(1, K).minimum(candidates_B)
    match masking:
        case "paper":
            key_BT = counter_rng.uniform(seed, counter_rng.MASK, step, batch.example_B, length)
            slots_BK = key_BT.masked_fill(~candidate_BT, 2.0).argsort(1)[:, :K]
            masks_BK = torch.ones_like(slots_BK, dtype=torch.bool)
        case "code":
            drawn_BK = counter_rng.uniform(seed, counter_rng.MASK, step, batch.example_B, K)
            # Positions ordered with the candidates first; draw an index among these.
            order_BT = (~candidate_BT).to(torch.uint8).argsort(stable=True, dim=1)
            slots_BK = order_BT.gather(1, (drawn_BK * candidates_B[:, None]).long())
            masks_BT = (
                counter_rng.uniform(seed, counter_rng.KEEP, step, batch.example_B, length)
                >= _UNMASKED_SHARE
            )
            masks_BK = masks_BT.gather(1, slots_BK)  # drawn by position, which may occur twice
    used_BK = torch.arange(K, device=ids_BT.device) < used_B[:, None]
    slots_BK = slots_BK.where(used_BK, 0)  # position 0 is [CLS], and is written back unchanged
    labels_BK = ids_BT.gather(1, slots_BK)
    inputs_BK = labels_BK.masked_fill(used_BK & masks_BK, MASK)
    return MaskedBatch(ids_BT.scatter(1, slots_BK, inputs_BK), slots_BK, used_BK, labels_BK)


def candidate_positions(ids_BT: Tensor) -> Tensor:
    """Return whether each token can be chosen: all but [CLS], [SEP], [MASK] and padding."""
    return (ids_BT >= FIRST_WORD) | (ids_BT == UNK)


def write_tokens(batch: Batch, masked: MaskedBatch, tokens_BK: Tensor) -> Tensor:
    """Return the original text, not the masked one, with `tokens_BK` at the used slots."""
    written_BK = tokens_BK.where(masked.used_BK, batch.ids_BT.gather(1, masked.slots_BK))
    return batch.ids_BT.scatter(1, masked.slots_BK, written_BK)


def chosen_positions(masked: MaskedBatch) -> Tensor:
    """Return whether each position is a used slot, bool, shape (B, T)."""
    times_BT = torch.zeros_like(masked.ids_BT)
    return times_BT.scatter_add(1, masked.slots_BK, masked.used_BK.long()) > 0


def apply_bert_corruption(
    masked: MaskedBatch, batch: Batch, *, vocab: int, seed: int, step: int
) -> MaskedBatch:
    """Return `masked` with 10 % of its slots set to a random word and 10 % to the original token.

    This is BERT's 80/10/10 rule (`create_pretraining_data.create_masked_lm_predictions`), except
    that random words are never special tokens.

    Args:
        masked: batch with [MASK] at all used slots.
        batch: original text.
        vocab: vocabulary size.
        seed: seed of the masking.
        step: index of the optimizer step.
    """
    length = batch.ids_BT.shape[1]
    choice_BT, word_BT = (
        counter_rng.uniform(seed, stream, step, batch.example_B, length)
        for stream in (counter_rng.KEEP, counter_rng.WORD)
    )
    choice_BK = choice_BT.gather(1, masked.slots_BK)
    index_BK = word_BT.gather(1, masked.slots_BK).double() * (vocab - FIRST_WORD)
    word_BK = FIRST_WORD + index_BK.long()
    inputs_BK = masked.ids_BT.gather(1, masked.slots_BK)
    inputs_BK = torch.where(choice_BK < 0.2, word_BK, inputs_BK)
    inputs_BK = torch.where(choice_BK < 0.1, masked.labels_BK, inputs_BK)
    inputs_BK = inputs_BK.where(masked.used_BK, masked.labels_BK)
    return masked._replace(ids_BT=batch.ids_BT.scatter(1, masked.slots_BK, inputs_BK))
