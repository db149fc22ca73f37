"""Weight sharing between an objective's encoder and its generator (paper, section 3.2).

A shared module is one object in both networks. Tied copies would have two states in the optimizer,
and a head tied before its table is replaced would keep the old table.
"""

from itertools import chain
from typing import assert_never

from torch import nn

from lab.config.objectives.generators import JointObjectiveConfig
from lab.config.trial import Trial
from lab.training.model import DisentangledEmbeddings, Encoder


def build_encoders(trial: Trial, settings: JointObjectiveConfig) -> tuple[Encoder, Encoder]:
    """Return the objective's encoder, and the generator's encoder."""
    vocab, length = trial.data.vocab, trial.data.length
    shape = settings.generator.derive_shape(trial.encoder)
    encoder = Encoder(trial.encoder, vocab, length)
    if settings.sharing == "all":
        return encoder, encoder
    generator = Encoder(shape, vocab, length)
    match settings.sharing:
        case "none":
            pass
        case "tokens":
            generator.embeddings = encoder.embeddings
        case "gdes":
            assert not isinstance(generator.embeddings, DisentangledEmbeddings)  # noqa: S101
            encoder.embeddings = DisentangledEmbeddings(generator.embeddings, trial.encoder)
        case _:
            assert_never(settings.sharing)
    return encoder, generator


def parameter_owners(
    name: str, modules: list[nn.Module], generator: nn.Module
) -> dict[str, list[nn.Parameter]]:
    """Return each trainable parameter once, by the network that owns it.

    Args:
        name: name of the network that consists of `modules`.
        modules: the encoder and its heads; they own the parameters that the generator shares.
            The base tables of disentangled embeddings get no gradient from them, and belong to
            the generator.
        generator: the generator; if it is frozen, it owns no parameters.
    """
    submodules = [part for module in modules for part in module.modules()]
    bases = [part.base for part in submodules if isinstance(part, DisentangledEmbeddings)]
    base_ids = {id(p) for base in bases for p in base.parameters()}
    owned = {id(p): p for p in chain.from_iterable(module.parameters() for module in modules)}
    owned = {key: p for key, p in owned.items() if key not in base_ids}
    rest = [p for p in generator.parameters() if p.requires_grad and id(p) not in owned]
    return {name: list(owned.values())} | ({"generator": rest} if rest else {})
