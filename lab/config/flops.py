"""Analytic compute of a training step, under three conventions that are never mixed.

Assumptions, before the arithmetic:
- A multiply-add counts as 2. FLOPs are those of the configuration, padding included: hence
  the same on every machine.
- `flops`, the honest count and the primary one: matrix multiplications only, as
  `torch.utils.flop_counter` counts them; look-ups are free; the vocabulary head works at the
  masked slots only (at all of them for all-tokens MLM); backward is 2x forward, and what is
  frozen has none. Softmax, norms and activations are left out: they cost time but hardly any
  arithmetic (2 % at small). Muon's products are part of it: at width 64 they add a tenth to a
  step of 1,024 tokens with three iterations, and a sixth with five.
- `paper_flops`: the official `flops_computation.py` (google-research/electra at 8a46635),
  which also counts element-wise work, treats the input look-up as a dense product with a
  one-hot matrix, puts the head at .15625 of the positions and takes backward as 1x forward.
- `six_n`: 6 x N x tokens, N the weights of both networks without embedding tables and
  vocabulary head, the scaling-law papers' rule of thumb.
The ratio of the first two is no constant (3.83 at hidden 64, 0.99 at 768): a curve under one
convention cannot be read under another.

Letters: h hidden, f ffn, e embedding, v vocabulary, s positions, l layers, k masked slots.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from lab.config.architecture import EncoderConfig
from lab.config.budget import Cost
from lab.config.objectives.base import Head, NetworkPass
from lab.config.optimizer import MuonConfig
from lab.config.phases import UpdatedNetworks
from lab.config.trial import Trial

# flops_computation.py, the constants' comments there: what one element of each costs.
_DROPOUT, _LAYER_NORM, _ACTIVATION, _SOFTMAX = 4, 5, 8, 5
PAPER_HEAD_SHARE = 0.15625
_POINTS = 256  # at which settings that move are looked at, between two knots


def masked_slots(length: int, mask_prob: float) -> int:
    """Return the fixed number of masked slots of a window.

    `pretrain_helpers.py`: max_predictions_per_seq = int((p + .005) x length), at least one.
    """
    return max(1, int((mask_prob + 0.005) * length))


def encoder_terms(encoder: EncoderConfig, length: int) -> Mapping[str, float]:
    """Return the forward FLOPs of one token in the encoder's blocks, by name."""
    h, f, e = encoder.hidden, encoder.ffn, encoder.embedding
    return {
        "project_embedding": 2 * e * h if e != h else 0,
        "query_key_value": encoder.layers * 3 * 2 * h * h,
        "attention": encoder.layers * 2 * 2 * h * length,
        "attention_output": encoder.layers * 2 * h * h,
        "feed_forward": encoder.layers * 2 * 2 * h * f,
    }


def generator_head_terms(encoder: EncoderConfig, vocab: int) -> Mapping[str, float]:
    """Return the forward FLOPs of the vocabulary head at one masked slot, by name."""
    return {
        "head_transform": 2 * encoder.hidden * encoder.embedding,
        "head_vocabulary": 2 * encoder.embedding * vocab,
    }


def discriminator_head_terms(encoder: EncoderConfig) -> Mapping[str, float]:
    """Return the forward FLOPs of the detection head at one token, by name."""
    return {"detect_transform": 2 * encoder.hidden**2, "detect": 2 * encoder.hidden}


def encoder_weights(encoder: EncoderConfig) -> int:
    """Return the parameters of the blocks and the embedding's projection, tables left out."""
    h, f, e = encoder.hidden, encoder.ffn, encoder.embedding
    block = 4 * (h * h + h) + 2 * h * f + h + f + 4 * h
    return encoder.layers * block + (e * h + h if e != h else 0)


def copy_gate_terms(encoder: EncoderConfig) -> Mapping[str, float]:
    """Return the forward FLOPs of the all-tokens model's copy gate at one token, by name."""
    return {"copy_gate": 2 * encoder.hidden}


class _Shape(NamedTuple):
    """What a step's cost depends on beside the trial's constants.

    Attributes:
        length: positions of a window.
        batch: windows.
        slots: masked slots of a window.
    """

    length: int
    batch: int
    slots: int


def step_cost(
    trial: Trial, learns: UpdatedNetworks = UpdatedNetworks.ALL, progress: float = 0.0
) -> Cost:
    """Return what one optimizer step of `trial` costs under each convention.

    A network that is frozen or only samples goes forward and not back: a third of the honest
    count and of 6N, half of the paper's.

    Args:
        trial: what is trained.
        learns: the networks that the step updates.
        progress: at which the step is taken; settings that move are as they are there.
    """
    return _cost(trial, learns, _shape(trial, progress))


def mean_cost(trial: Trial) -> Cost:
    """Return what a step costs in the mean over the whole run, whoever's turn it is."""
    weights = _steps(trial)
    total = sum(weights.values())
    shares = {cost: weight / total for cost, weight in weights.items()}

    def mean(unit: Callable[[Cost], int]) -> int:
        return round(sum(unit(cost) * share for cost, share in shares.items()))

    return Cost(
        tokens=mean(lambda cost: cost.tokens),
        flops=mean(lambda cost: cost.flops),
        paper_flops=mean(lambda cost: cost.paper_flops),
        six_n=mean(lambda cost: cost.six_n),
    )


def _steps(trial: Trial) -> dict[Cost, float]:
    """Return how many steps of each cost a run has, up to a common factor.

    A stretch of the budget holds as many steps as its share of the budget over their mean cost.
    """
    kinds = trial.objective.phase_shares()
    if trial.objective.staged:
        groups = [(share, {learns: 1.0}) for learns, share in kinds.items()]
    else:
        groups = [(1.0, dict(kinds))]

    @cache  # shapes repeat
    def steps(shape: _Shape, width: float) -> list[tuple[Cost, float]]:
        found = []
        for budget, group in groups:
            costs = {learns: _cost(trial, learns, shape) for learns in group}
            mean = sum(_unit(trial, costs[learns]) * share for learns, share in group.items())
            found += [(costs[one], width * budget * share / mean) for one, share in group.items()]
        return found

    weights: dict[Cost, float] = {}
    for shape, width in _course(trial):
        for cost, count in steps(shape, width):
            weights[cost] = weights.get(cost, 0.0) + count
    return weights


def _unit(trial: Trial, cost: Cost) -> float:
    """Return a cost in the unit of the budget; tokens where that is seconds, which no one knows."""
    return cost.flops if trial.budget.kind == "flops" else cost.tokens


def _course(trial: Trial) -> Iterator[tuple[_Shape, float]]:
    """Yield the shapes that a step has from progress 0 to 1, each with its share of progress."""
    if not trial.moves:
        yield _shape(trial, 0.0), 1.0
        return
    for start, end in itertools.pairwise(trial.knots):
        width = (end - start) / _POINTS
        first, last = (_shape(trial, start + (n + 0.5) * width) for n in (0, _POINTS - 1))
        if first == last:  # and so all between, on a line
            yield from itertools.repeat((first, width), _POINTS)
            continue
        for point in range(_POINTS):
            yield _shape(trial, start + (point + 0.5) * width), width


def _shape(trial: Trial, progress: float) -> _Shape:
    now = trial.at(progress)
    return _Shape(now.length, now.batch, masked_slots(now.length, now.mask_prob))


@lru_cache(maxsize=1_024)  # the loop asks before every step
def _cost(trial: Trial, learns: UpdatedNetworks, shape: _Shape) -> Cost:
    objective, vocab = trial.objective, trial.data.vocab
    flops = paper = six_n = 0.0
    tokens = shape.batch * shape.length
    for one in objective.passes(trial.encoder, learns):
        body = tokens * _sum(encoder_terms(one.encoder, shape.length))
        forward = body + shape.batch * _head_flops(one, vocab, shape)
        flops += forward * (3 if one.updated else 1)
        share = _paper_head_share(one.head)
        paper_flops = paper_step(one.encoder, shape.length, vocab, shape.batch, head_share=share)
        paper += paper_flops * (1 if one.updated else 0.5)
        six_n += (6 if one.updated else 2) * encoder_weights(one.encoder) * tokens
    flops += shape.batch * objective.extra_flops(trial.encoder, learns, shape.slots)
    flops += _orthogonalization(trial, learns)
    return Cost(tokens=tokens, flops=round(flops), paper_flops=round(paper), six_n=round(six_n))


def _head_flops(one: NetworkPass, vocab: int, shape: _Shape) -> float:
    """Return the forward FLOPs of a pass's head for one window."""
    vocabulary = _sum(generator_head_terms(one.encoder, vocab))
    match one.head:
        case "vocabulary_at_slots":
            return shape.slots * vocabulary
        case "vocabulary_at_all_tokens":
            return shape.length * (vocabulary + _sum(copy_gate_terms(one.encoder)))
        case "detection":
            return shape.length * _sum(discriminator_head_terms(one.encoder))


def _paper_head_share(head: Head) -> float | None:
    """Return the share of positions with a vocabulary head; None for a detection head.

    The official script uses a constant whatever the mask rate, and has no head at every position.
    """
    match head:
        case "vocabulary_at_slots":
            return PAPER_HEAD_SHARE
        case "vocabulary_at_all_tokens":
            return 1.0
        case "detection":
            return None


def _orthogonalization(trial: Trial, learns: UpdatedNetworks) -> float:
    """Return the FLOPs of Muon's matrix products in one step; 0 under Adam."""
    optim, objective = trial.optim, trial.objective
    if not isinstance(optim, MuonConfig):
        return 0
    updated = [one.encoder for one in objective.passes(trial.encoder, learns) if one.updated]
    if objective.shares_encoders:
        updated = updated[:1]  # both networks have the same matrices
    return optim.iterations * sum(map(_newton_schulz, updated))


def _newton_schulz(encoder: EncoderConfig) -> float:
    """Return the FLOPs of one iteration over the matrices of all blocks."""
    h, f = encoder.hidden, encoder.ffn

    def products(rows: int, columns: int) -> int:  # of x x^T, its square, and their sum with x
        small, large = sorted((rows, columns))
        return 2 * small * small * (2 * large + small)

    return encoder.layers * (4 * products(h, h) + 2 * products(h, f))


def paper_step(
    encoder: EncoderConfig, length: int, vocab: int, batch: int, *, head_share: float | None
) -> float:
    """Return one network's FLOPs of a step as `TransformerHparams.get_train_flops` does.

    Args:
        encoder: its body.
        length: positions of a window.
        vocab: tokens it tells apart.
        batch: windows.
        head_share: share of the positions with a vocabulary head; None for a discriminator.
    """
    per_token = encoder.layers * _sum(_paper_block(encoder, length))
    per_token += _sum(_paper_input(encoder, length, vocab))
    if head_share is None:
        per_token += _sum(_paper_detection(encoder))
    else:
        per_token += head_share * _sum(_paper_vocabulary(encoder, vocab))
    return 2 * batch * length * per_token


def _paper_block(encoder: EncoderConfig, s: int) -> Mapping[str, float]:
    h, f, heads = encoder.hidden, encoder.ffn, encoder.heads
    return {
        "kqv": 3 * 2 * h * h,
        "kqv_bias": 3 * h,
        "attention_scores": 2 * h * s,
        "attention_softmax": _SOFTMAX * s * heads,
        "attention_dropout": _DROPOUT * s * heads,
        "attention_scale": s * heads,
        "attention_values": 2 * h * s,
        "attention_output": 2 * h * h,
        "attention_output_bias": h,
        "attention_output_dropout": _DROPOUT * h,
        "attention_output_residual": h,
        "attention_output_norm": _LAYER_NORM,  # sic: the official count forgets the width
        "intermediate": 2 * h * f,
        "intermediate_activation": _ACTIVATION * f,
        "intermediate_bias": f,
        "output": 2 * h * f,
        "output_bias": h,
        "output_dropout": _DROPOUT * h,
        "output_residual": h,
        "output_norm": _LAYER_NORM * h,
    }


def _paper_input(encoder: EncoderConfig, s: int, v: int) -> Mapping[str, float]:
    h, e = encoder.hidden, encoder.embedding
    projects = e != h
    return {
        "look_up": 2 * e * v,
        "type_and_position": 2 * e * (s + 2),
        "add_type_and_position": 2 * e,
        "norm": _LAYER_NORM * e,
        "dropout": _DROPOUT * e,
        "project": 2 * h * e if projects else 0,
        "project_bias": h if projects else 0,
    }


def _paper_vocabulary(encoder: EncoderConfig, v: int) -> Mapping[str, float]:
    h, e = encoder.hidden, encoder.embedding
    return {
        "multiply": 2 * e * v,
        "hidden": 2 * h * e,
        "hidden_bias": e,
        "hidden_activation": _ACTIVATION * e,
        "hidden_norm": _LAYER_NORM * e,
        "softmax": _SOFTMAX * v,
        "target_word": 2 * v,
    }


def _paper_detection(encoder: EncoderConfig) -> Mapping[str, float]:
    h = encoder.hidden
    return {
        "hidden": 2 * h * h,
        "hidden_bias": h,
        "hidden_activation": _ACTIVATION * h,
        "logit": 2 * h,
    }


def _sum(terms: Mapping[str, float]) -> float:
    return sum(terms.values())
