"""Selection and masking of the positions that the generator predicts.

Letters: B examples, T positions of a window, K masked slots (fixed, so shapes are static).
"""

from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from lab.config.flops import masked_slots
from lab.config.objectives.masking import BERT, InputShares, Masking
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
        draws_BK: index of the random number that the slot is sampled with, unique within a window:
            the position, or the number of the slot where several slots may have one position.
    """

    ids_BT: Tensor
    slots_BK: Tensor
    used_BK: Tensor
    labels_BK: Tensor
    draws_BK: Tensor


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
    batch: Batch, *, mask_prob: float, masking: Masking, vocab: int, seed: int, step: int
) -> MaskedBatch:
    """Select slots at random, and write the input of the masked language model.

    Args:
        batch: original text.
        mask_prob: mask probability p.
        masking: see `lab.config.objectives.base.MaskedObjectiveConfig`.
        vocab: vocabulary size.
        seed: seed of the masking.
        step: index of the optimizer step. The selection is a function of `seed`, `step` and the
            identity of the example.
    """
    match masking:
        case "code":
            return draw_slots(batch, mask_prob=mask_prob, seed=seed, step=step)
        case "paper":
            return choose_distinct(batch, mask_prob=mask_prob, seed=seed, step=step)
        case "bert":
            shares = BERT
        case InputShares():
            shares = masking
        case _:
            assert_never(masking)
    masked = choose_distinct(batch, mask_prob=mask_prob, seed=seed, step=step)
    return apply_shares(masked, batch, shares=shares, vocab=vocab, seed=seed, step=step)


def choose_distinct(batch: Batch, *, mask_prob: float, seed: int, step: int) -> MaskedBatch:
    """Select distinct positions, and replace their tokens by [MASK].

    Candidates are all tokens except [CLS], [SEP], [MASK] and padding. Of n candidates,
    clip(round(n p), 1, K) are selected. The arguments are those of `mask_batch`.
    """
    ids_BT, length = batch.ids_BT, batch.ids_BT.shape[1]
    K = masked_slots(length, mask_prob)
    candidate_BT = candidate_positions(ids_BT)
    candidates_B = candidate_BT.sum(1)
    used_B = _number_of_slots(candidates_B, mask_prob, K).minimum(candidates_B)
    key_BT = counter_rng.uniform(seed, counter_rng.MASK, step, batch.example_B, length)
    slots_BK = key_BT.masked_fill(~candidate_BT, 2.0).argsort(1)[:, :K]
    used_BK = torch.arange(K, device=ids_BT.device) < used_B[:, None]
    slots_BK = slots_BK.where(used_BK, 0)  # position 0 is [CLS], and is written back unchanged
    return _write_masks(batch, slots_BK, used_BK, masks_BK=used_BK, draws_BK=slots_BK)


def draw_slots(batch: Batch, *, mask_prob: float, seed: int, step: int) -> MaskedBatch:
    """Draw slots with replacement, as `pretrain_helpers.mask` of the official code.

    With n tokens that are not padding, clip(round(n p), 1, K) slots are drawn. They are drawn from
    all tokens except [CLS], [SEP], [MASK] and padding. Each slot writes [MASK] with probability
    .85; a position becomes [MASK] if any of its slots writes it. A window without candidates has no
    slots; the official code would divide by zero. The arguments are those of `mask_batch`.
    """
    ids_BT = batch.ids_BT
    K = masked_slots(ids_BT.shape[1], mask_prob)
    candidate_BT = candidate_positions(ids_BT)
    candidates_B1 = candidate_BT.sum(1, keepdim=True)
    used_B1 = _number_of_slots((ids_BT != PAD).sum(1, keepdim=True), mask_prob, K)
    drawn_BK, keep_BK = (
        counter_rng.uniform(seed, stream, step, batch.example_B, K)
        for stream in (counter_rng.MASK, counter_rng.KEEP)
    )
    # Positions ordered with the candidates first; draw an index among these.
    order_BT = (~candidate_BT).to(torch.uint8).argsort(stable=True, dim=1)
    slots_BK = order_BT.gather(1, (drawn_BK * candidates_B1).long())
    number_K = torch.arange(K, device=ids_BT.device)
    used_BK = (number_K < used_B1) & (candidates_B1 > 0)
    masks_BK = used_BK & (keep_BK >= _UNMASKED_SHARE)
    draws_BK = number_K.expand_as(slots_BK)
    return _write_masks(
        batch, slots_BK.where(used_BK, 0), used_BK, masks_BK=masks_BK, draws_BK=draws_BK
    )


def choose_independently(batch: Batch, *, mask_prob: float, seed: int, step: int) -> MaskedBatch:
    """Choose each candidate independently with probability p, and replace it by [MASK].

    Every position has a slot, of which only the chosen ones are used. The candidates are those of
    `choose_distinct`, and the arguments those of `mask_batch`.
    """
    ids_BT, length = batch.ids_BT, batch.ids_BT.shape[1]
    key_BT = counter_rng.uniform(seed, counter_rng.MASK, step, batch.example_B, length)
    used_BT = candidate_positions(ids_BT) & (key_BT < mask_prob)
    position_BT = torch.arange(length, device=ids_BT.device).expand_as(ids_BT)
    return _write_masks(
        batch, position_BT.where(used_BT, 0), used_BT, masks_BK=used_BT, draws_BK=position_BT
    )


def apply_shares(
    masked: MaskedBatch, batch: Batch, *, shares: InputShares, vocab: int, seed: int, step: int
) -> MaskedBatch:
    """Return `masked` with random words and original tokens at a share of its slots.

    Random words are never special tokens, unlike in BERT's `create_masked_lm_predictions`.

    Args:
        masked: batch with [MASK] at all used slots, which are distinct.
        batch: original text.
        shares: shares of [MASK] and of random words; the rest is kept.
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
    inputs_BK = torch.where(choice_BK < shares.keep + shares.random, word_BK, inputs_BK)
    inputs_BK = torch.where(choice_BK < shares.keep, masked.labels_BK, inputs_BK)
    inputs_BK = inputs_BK.where(masked.used_BK, masked.labels_BK)
    return masked._replace(ids_BT=batch.ids_BT.scatter(1, masked.slots_BK, inputs_BK))


def write_tokens(batch: Batch, masked: MaskedBatch, tokens_BK: Tensor) -> Tensor:
    """Return the original text, not the masked one, with `tokens_BK` at the used slots.

    A position of several slots gets the mean of their token ids, rounded down, as by
    `pretrain_helpers.scatter_update` of the official code.
    """
    times_BT = _slots_by_position(masked.slots_BK, masked.used_BK, batch.ids_BT)
    sum_BT = torch.zeros_like(batch.ids_BT).scatter_add(
        1, masked.slots_BK, tokens_BK.where(masked.used_BK, 0)
    )
    return torch.where(times_BT > 0, sum_BT // times_BT.clamp(min=1), batch.ids_BT)


def chosen_positions(masked: MaskedBatch) -> Tensor:
    """Return whether each position is a used slot, bool, shape (B, T)."""
    return _slots_by_position(masked.slots_BK, masked.used_BK, masked.ids_BT) > 0


def candidate_positions(ids_BT: Tensor) -> Tensor:
    """Return whether each token can be chosen: all but [CLS], [SEP], [MASK] and padding."""
    return (ids_BT >= FIRST_WORD) | (ids_BT == UNK)


def _number_of_slots(tokens: Tensor, mask_prob: float, most: int) -> Tensor:
    return (tokens * mask_prob).round().clamp(1, most)


def _write_masks(
    batch: Batch, slots_BK: Tensor, used_BK: Tensor, *, masks_BK: Tensor, draws_BK: Tensor
) -> MaskedBatch:
    """Return the batch with [MASK] at the slots where `masks_BK` is true."""
    is_masked_BT = _slots_by_position(slots_BK, masks_BK, batch.ids_BT) > 0
    return MaskedBatch(
        ids_BT=batch.ids_BT.masked_fill(is_masked_BT, MASK),
        slots_BK=slots_BK,
        used_BK=used_BK,
        labels_BK=batch.ids_BT.gather(1, slots_BK),
        draws_BK=draws_BK,
    )


def _slots_by_position(slots_BK: Tensor, where_BK: Tensor, ids_BT: Tensor) -> Tensor:
    """Return the number of slots of each position among those where `where_BK` is true, (B, T)."""
    return torch.zeros_like(ids_BT).scatter_add(1, slots_BK, where_BK.long())
