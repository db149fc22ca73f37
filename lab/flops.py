"""Analytic compute of a training step, under three conventions that are never mixed.

Assumptions, before the arithmetic:
- A multiply-add counts as 2. FLOPs are those of the configuration, padding included: hence
  the same on every machine.
- `flops`, the honest count and the primary one: matrix multiplications only, as
  `torch.utils.flop_counter` counts them; look-ups are free; the vocabulary head works at the
  masked slots only; backward is 2x forward. Softmax, norms and activations are left out: they
  cost time but hardly any arithmetic (2 % at small).
- `paper_flops`: the official `flops_computation.py` (google-research/electra at 8a46635),
  which also counts element-wise work, treats the input look-up as a dense product with a
  one-hot matrix, puts the head at .15625 of the positions and takes backward as 1x forward.
- `six_n`: 6 x N x tokens, N the weights of both networks without embedding tables and
  vocabulary head, the scaling-law papers' rule of thumb.
The ratio of the first two is no constant (3.83 at hidden 64, 0.99 at 768): a curve under one
convention cannot be read under another.

Letters: h hidden, f ffn, e embedding, v vocabulary, s positions, l layers, k masked slots.
"""

from collections.abc import Mapping

from lab.budget import Cost
from lab.spec import Electra, Encoder, Mlm, Trial

# flops_computation.py, the constants' comments there: what one element of each costs.
_DROPOUT, _LAYER_NORM, _ACTIVATION, _SOFTMAX = 4, 5, 8, 5
_PAPER_HEAD_SHARE = 0.15625


def masked_slots(length: int, mask_prob: float) -> int:
    """Return the fixed number of masked slots of a window.

    `pretrain_helpers.py`: max_predictions_per_seq = int((p + .005) x length), at least one.
    """
    return max(1, int((mask_prob + 0.005) * length))


def encoder_terms(encoder: Encoder, length: int) -> Mapping[str, float]:
    """Return the forward FLOPs of one token in the encoder's blocks, by name."""
    h, f, e = encoder.hidden, encoder.ffn, encoder.embedding
    return {
        "project_embedding": 2 * e * h if e != h else 0,
        "query_key_value": encoder.layers * 3 * 2 * h * h,
        "attention": encoder.layers * 2 * 2 * h * length,
        "attention_output": encoder.layers * 2 * h * h,
        "feed_forward": encoder.layers * 2 * 2 * h * f,
    }


def generator_head_terms(encoder: Encoder, vocab: int) -> Mapping[str, float]:
    """Return the forward FLOPs of the vocabulary head at one masked slot, by name."""
    return {
        "head_transform": 2 * encoder.hidden * encoder.embedding,
        "head_vocabulary": 2 * encoder.embedding * vocab,
    }


def discriminator_head_terms(encoder: Encoder) -> Mapping[str, float]:
    """Return the forward FLOPs of the detection head at one token, by name."""
    return {"detect_transform": 2 * encoder.hidden**2, "detect": 2 * encoder.hidden}


def encoder_weights(encoder: Encoder) -> int:
    """Return the parameters of the blocks and the embedding's projection, tables left out."""
    h, f, e = encoder.hidden, encoder.ffn, encoder.embedding
    block = 4 * (h * h + h) + 2 * h * f + h + f + 4 * h
    return encoder.layers * block + (e * h + h if e != h else 0)


def step_cost(trial: Trial) -> Cost:
    """Return what one optimizer step of `trial` costs under each convention."""
    data, objective = trial.data, trial.objective
    tokens = trial.batch * data.length
    slots = trial.batch * masked_slots(data.length, objective.mask_prob)
    match objective:
        case Mlm():
            generator, discriminator = trial.encoder, None
        case Electra():
            generator, discriminator = objective.generator.of(trial.encoder), trial.encoder
    forward = tokens * _sum(encoder_terms(generator, data.length))
    forward += slots * _sum(generator_head_terms(generator, data.vocab))
    paper = paper_step(generator, data.length, data.vocab, trial.batch, detects=False)
    weights = encoder_weights(generator)
    if discriminator is not None:
        forward += tokens * _sum(encoder_terms(discriminator, data.length))
        forward += tokens * _sum(discriminator_head_terms(discriminator))
        paper += paper_step(discriminator, data.length, data.vocab, trial.batch, detects=True)
        weights += encoder_weights(discriminator)
    return Cost(
        tokens=tokens,
        flops=round(3 * forward),
        paper_flops=round(paper),
        six_n=6 * weights * tokens,
    )


def paper_step(encoder: Encoder, length: int, vocab: int, batch: int, *, detects: bool) -> float:
    """Return one network's FLOPs of a step as `TransformerHparams.get_train_flops` does."""
    per_token = encoder.layers * _sum(_paper_block(encoder, length))
    per_token += _sum(_paper_input(encoder, length, vocab))
    if detects:
        per_token += _sum(_paper_detection(encoder))
    else:
        per_token += _PAPER_HEAD_SHARE * _sum(_paper_vocabulary(encoder, vocab))
    return 2 * batch * length * per_token


def _paper_block(encoder: Encoder, s: int) -> Mapping[str, float]:
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


def _paper_input(encoder: Encoder, s: int, v: int) -> Mapping[str, float]:
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


def _paper_vocabulary(encoder: Encoder, v: int) -> Mapping[str, float]:
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


def _paper_detection(encoder: Encoder) -> Mapping[str, float]:
    h = encoder.hidden
    return {
        "hidden": 2 * h * h,
        "hidden_bias": h,
        "hidden_activation": _ACTIVATION * h,
        "logit": 2 * h,
    }


def _sum(terms: Mapping[str, float]) -> float:
    return sum(terms.values())
