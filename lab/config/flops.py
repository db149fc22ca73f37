"""Analytic compute of a training step, counted under three separate conventions.

Assumptions:
- A multiply-add counts as 2. FLOPs depend on the configuration only, padding included, so they
  are the same on every machine.
- `flops`, the honest count, is the primary convention: matrix multiplications only, as
  `torch.utils.flop_counter` counts them. Embedding look-ups are free. The vocabulary head is
  applied at the masked positions only (at all positions for all-tokens MLM). The backward pass
  costs twice the forward pass; frozen networks have none. Softmax, norms and activations are
  omitted because they are a small part of the arithmetic (2 % at size small). Muon's matrix
  products are included: at width 64 they add a tenth to a step of 1,024 tokens with three
  iterations, and a sixth with five.
- `paper_flops` follows the official `flops_computation.py` (google-research/electra at 8a46635).
  It also counts element-wise operations, treats the input look-up as a dense product with a
  one-hot matrix, applies the head at .15625 of the positions, and counts the backward pass as
  once the forward pass.
- `six_n` is 6 x N x tokens, the estimate of scaling-law papers. N is the number of weights of
  both networks without embedding tables and vocabulary head.
The ratio of the first two is not constant (3.83 at hidden 64, 0.99 at 768), so results under one
convention cannot be converted to another.

Letters: h hidden, f ffn, e embedding, v vocabulary, s positions, l layers, k masked positions.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from lab.config.architecture import EncoderConfig
from lab.config.budget import Cost
from lab.config.costs.paper_flops import paper_step
from lab.config.objectives.base import NetworkPass
from lab.config.optimizer import MuonConfig
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial

_POINTS = 256  # values of progress between two knots at which varying settings are evaluated


def masked_slots(length: int, mask_prob: float) -> int:
    """Return the fixed number of masked positions of a window.

    From `pretrain_helpers.py`: max_predictions_per_seq = int((p + .005) x length), at least one.
    """
    return max(1, int((mask_prob + 0.005) * length))


def encoder_terms(encoder: EncoderConfig, length: int) -> Mapping[str, float]:
    """Return the forward FLOPs of the encoder's blocks for one token, by operation."""
    h, f, e = encoder.hidden, encoder.ffn, encoder.embedding
    return {
        "project_embedding": 2 * e * h if e != h else 0,
        "query_key_value": encoder.layers * 3 * 2 * h * h,
        "attention": encoder.layers * 2 * 2 * h * length,
        "attention_output": encoder.layers * 2 * h * h,
        "feed_forward": encoder.layers * 2 * 2 * h * f,
    }


def generator_head_terms(encoder: EncoderConfig, vocab: int) -> Mapping[str, float]:
    """Return the forward FLOPs of the vocabulary head at one masked position, by operation."""
    return {
        "head_transform": 2 * encoder.hidden * encoder.embedding,
        "head_vocabulary": 2 * encoder.embedding * vocab,
    }


def discriminator_head_terms(encoder: EncoderConfig) -> Mapping[str, float]:
    """Return the forward FLOPs of the detection head for one token, by operation."""
    return {"detect_transform": 2 * encoder.hidden**2, "detect": 2 * encoder.hidden}


def encoder_weights(encoder: EncoderConfig) -> int:
    """Return the number of weights of the blocks and the embedding projection, without tables."""
    h, f, e = encoder.hidden, encoder.ffn, encoder.embedding
    block = 4 * (h * h + h) + 2 * h * f + h + f + 4 * h
    return encoder.layers * block + (e * h + h if e != h else 0)


def copy_gate_terms(encoder: EncoderConfig) -> Mapping[str, float]:
    """Return the forward FLOPs of the copy gate of all-tokens MLM for one token, by operation."""
    return {"copy_gate": 2 * encoder.hidden}


class _Shape(NamedTuple):
    """Shape of a step's batch, which may vary during a run.

    Attributes:
        length: positions of a window.
        batch: windows of the step.
        slots: masked positions of a window.
    """

    length: int
    batch: int
    slots: int


def step_cost(
    trial: Trial, updates: UpdatedNetworks = UpdatedNetworks.ALL, progress: float = 0.0
) -> Cost:
    """Return the cost of one optimizer step of `trial` under each convention.

    A network that is frozen, or that only samples, has a forward pass but no backward pass: a
    third of the honest count and of 6N, and half of the paper's count.

    Args:
        trial: configuration of the trial.
        updates: the networks that the step updates.
        progress: progress of the run at that step, in [0, 1]; it determines varying settings.
    """
    return _cost(trial, updates, _shape(trial, progress))


def mean_cost(trial: Trial) -> Cost:
    """Return the mean cost of a step over the whole run, over all phases and settings."""
    weights = _steps_by_cost(trial)
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


def _steps_by_cost(trial: Trial) -> dict[Cost, float]:
    """Return the number of steps of each cost in a run, up to a common factor.

    The number of steps in an interval of progress is its share of the budget divided by the mean
    cost of a step there.
    """
    kinds = trial.objective.phase_shares()
    if trial.objective.staged:
        groups = [(share, {updates: 1.0}) for updates, share in kinds.items()]
    else:
        groups = [(1.0, dict(kinds))]

    @cache  # the same shape occurs at many values of progress
    def steps_at(shape: _Shape, width: float) -> list[tuple[Cost, float]]:
        steps = []
        for budget, group in groups:
            costs = {updates: _cost(trial, updates, shape) for updates in group}
            mean = sum(
                _cost_in_budget_unit(trial, costs[updates]) * share
                for updates, share in group.items()
            )
            steps += [(costs[one], width * budget * share / mean) for one, share in group.items()]
        return steps

    weights: dict[Cost, float] = {}
    for shape, width in _shapes_of_run(trial):
        for cost, count in steps_at(shape, width):
            weights[cost] = weights.get(cost, 0.0) + count
    return weights


def _cost_in_budget_unit(trial: Trial, cost: Cost) -> float:
    """Return a cost in FLOPs if the budget is in FLOPs; otherwise in tokens.

    Seconds cannot be predicted, so tokens replace them.
    """
    return cost.flops if trial.budget.kind == "flops" else cost.tokens


def _shapes_of_run(trial: Trial) -> Iterator[tuple[_Shape, float]]:
    """Yield the batch shapes from progress 0 to 1, each with its share of progress."""
    if not trial.varying_settings:
        yield _shape(trial, 0.0), 1.0
        return
    for start, end in itertools.pairwise(trial.breakpoints):
        width = (end - start) / _POINTS
        first, last = (_shape(trial, start + (n + 0.5) * width) for n in (0, _POINTS - 1))
        if first == last:  # settings are linear between knots, so all shapes between are equal
            yield from itertools.repeat((first, width), _POINTS)
            continue
        for point in range(_POINTS):
            yield _shape(trial, start + (point + 0.5) * width), width


def _shape(trial: Trial, progress: float) -> _Shape:
    settings = trial.settings_at(progress)
    slots = masked_slots(settings.length, settings.mask_prob)
    return _Shape(settings.length, settings.batch, slots)


@lru_cache(maxsize=1_024)  # the training loop calls `step_cost` before every step
def _cost(trial: Trial, updates: UpdatedNetworks, shape: _Shape) -> Cost:
    objective, vocab = trial.objective, trial.data.vocab
    flops = paper = six_n = 0.0
    tokens = shape.batch * shape.length
    for one in objective.passes(trial.encoder, updates):
        body = tokens * _sum(encoder_terms(one.encoder, shape.length))
        forward = body + shape.batch * _head_flops(one, vocab, shape)
        flops += forward * (3 if one.updated else 1)
        count = paper_step(
            one.encoder, one.head, length=shape.length, vocab=vocab, batch=shape.batch
        )
        paper += count * (1 if one.updated else 0.5)
        six_n += (6 if one.updated else 2) * encoder_weights(one.encoder) * tokens
    flops += shape.batch * objective.extra_flops(trial.encoder, updates, shape.slots)
    flops += _orthogonalization(trial, updates)
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


def _orthogonalization(trial: Trial, updates: UpdatedNetworks) -> float:
    """Return the FLOPs of Muon's matrix products in one step; 0 under Adam."""
    optim, objective = trial.optim, trial.objective
    if not isinstance(optim, MuonConfig):
        return 0
    passes = objective.passes(trial.encoder, updates)
    updated = {one.network: one.encoder for one in passes if one.updated}
    if objective.shares_encoders:
        updated = {"encoder": trial.encoder}  # both networks have the same matrices
    return optim.iterations * sum(map(_newton_schulz_flops, updated.values()))


def _newton_schulz_flops(encoder: EncoderConfig) -> float:
    """Return the FLOPs of one Newton-Schulz iteration over the matrices of all blocks."""
    h, f = encoder.hidden, encoder.ffn

    def products(rows: int, columns: int) -> int:
        # Three products: a = x x^T, a^2, and (b a + c a^2) x.
        small, large = sorted((rows, columns))
        return 2 * small * small * (2 * large + small)

    return encoder.layers * (4 * products(h, h) + 2 * products(h, f))


def _sum(terms: Mapping[str, float]) -> float:
    return sum(terms.values())
