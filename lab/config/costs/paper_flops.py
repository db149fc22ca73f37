"""FLOPs of a training step as the official script of ELECTRA counts them.

Source: `TransformerHparams.get_train_flops` in `flops_computation.py` (google-research/electra at
8a46635). The count includes element-wise operations.

Letters: h hidden, f ffn, e embedding, v vocabulary, s positions.
"""

from collections.abc import Mapping

from lab.config.architecture import EncoderConfig
from lab.config.objectives.base import Head

# FLOPs of one element of each operation, from the comments in flops_computation.py.
_DROPOUT, _LAYER_NORM, _ACTIVATION, _SOFTMAX = 4, 5, 8, 5
_MASKED_SHARE = 0.15625  # share of the positions at which tokens are predicted


def paper_step(encoder: EncoderConfig, head: Head, *, length: int, vocab: int, batch: int) -> float:
    """Return the FLOPs of one network in a step that updates it.

    The script's share of masked positions is a constant, independent of the mask rate. It has no
    vocabulary head at all positions; that of all-tokens MLM is counted with a share of 1.

    Args:
        encoder: shape of the network's encoder.
        head: head that follows the encoder.
        length: positions of a window.
        vocab: size of the vocabulary.
        batch: windows of the step.
    """
    per_token = encoder.layers * _sum(_block(encoder, length))
    per_token += _sum(_input(encoder, length, vocab)) + _head(encoder, head, vocab)
    return 2 * batch * length * per_token


def _head(encoder: EncoderConfig, head: Head, vocab: int) -> float:
    match head:
        case "vocabulary_at_slots":
            return _MASKED_SHARE * _sum(_vocabulary_head(encoder, vocab))
        case "vocabulary_at_all_tokens":
            return _sum(_vocabulary_head(encoder, vocab))
        case "detection":
            return _sum(_detection_head(encoder))


def _block(encoder: EncoderConfig, s: int) -> Mapping[str, float]:
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
        "attention_output_norm": _LAYER_NORM,  # sic: the official count omits the width
        "intermediate": 2 * h * f,
        "intermediate_activation": _ACTIVATION * f,
        "intermediate_bias": f,
        "output": 2 * h * f,
        "output_bias": h,
        "output_dropout": _DROPOUT * h,
        "output_residual": h,
        "output_norm": _LAYER_NORM * h,
    }


def _input(encoder: EncoderConfig, s: int, v: int) -> Mapping[str, float]:
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


def _vocabulary_head(encoder: EncoderConfig, v: int) -> Mapping[str, float]:
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


def _detection_head(encoder: EncoderConfig) -> Mapping[str, float]:
    h = encoder.hidden
    return {
        "hidden": 2 * h * h,
        "hidden_bias": h,
        "hidden_activation": _ACTIVATION * h,
        "logit": 2 * h,
    }


def _sum(terms: Mapping[str, float]) -> float:
    return sum(terms.values())
