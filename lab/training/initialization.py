"""Initial weights of the networks."""

import torch
from torch import nn

from lab.config.architecture import EncoderConfig
from lab.training.parametrization import width_scales


def initialize_weights(module: nn.Module, encoder: EncoderConfig, seed: int) -> None:
    """Initialize all weights: matrices and embeddings truncated normal, biases 0, LayerNorm 1.

    The normal distribution has the standard deviation `encoder.init_std` and is truncated at two
    standard deviations, as by `modeling.create_initializer` of the official code. The weights are
    then scaled with the width if the parametrization says so. The values depend on `seed` alone,
    not on the state of torch's global generator.

    Args:
        module: objective, or a part of one.
        encoder: shape of the encoder that the objective trains.
        seed: seed of the initial weights.
    """
    generator, std = torch.Generator().manual_seed(seed), encoder.init_std
    for part in module.modules():
        match part:
            case nn.Linear():
                nn.init.trunc_normal_(part.weight, 0.0, std, -2 * std, 2 * std, generator)
                nn.init.zeros_(part.bias)
            case nn.Embedding():
                nn.init.trunc_normal_(part.weight, 0.0, std, -2 * std, 2 * std, generator)
            case nn.LayerNorm():
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
    with torch.no_grad():
        for parameter, scale in width_scales(module, encoder.parametrization).items():
            parameter.mul_(scale.init)
