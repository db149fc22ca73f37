"""Size and inference cost of the encoder that a trial exports, without any head.

Letters: h hidden, e embedding, v vocabulary, s positions.
"""

from lab.config.flops import encoder_terms, encoder_weights
from lab.config.trial import Trial

_TYPES = 2  # rows of the token type table


def encoder_parameters(trial: Trial) -> int:
    """Return the number of parameters of the exported encoder: tables, blocks and norms."""
    shape = trial.encoder
    tables = (trial.data.vocab + trial.data.length + _TYPES) * shape.embedding
    # With `norm: post` a LayerNorm follows the tables, with `norm: pre` the last block.
    normed = shape.embedding if shape.norm == "post" else shape.hidden
    return tables + encoder_weights(shape) + 2 * normed


def inference_flops(trial: Trial) -> float:
    """Return the FLOPs of the exported encoder for one token of a full window.

    They are those of a forward pass under the honest count of `lab.config.flops`.
    """
    return sum(encoder_terms(trial.encoder, trial.data.length).values())
