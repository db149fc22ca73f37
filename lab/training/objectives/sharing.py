"""What the encoder that is kept and the generator have in common (paper, section 3.2).

Every shared part is one object in both networks, so no copy can go stale (trap 4).
"""

from itertools import chain
from typing import assert_never

from torch import nn

from lab.config import trial as spec
from lab.config.objectives.generators import JointObjectiveConfig
from lab.training.model import DisentangledEmbeddings, Encoder


def build_encoders(trial: spec.Trial, settings: JointObjectiveConfig) -> tuple[Encoder, Encoder]:
    """Return the encoder that is kept, and the generator's."""
    vocab, length = trial.data.vocab, trial.data.length
    shape = settings.generator.of(trial.encoder)
    kept = Encoder(trial.encoder, vocab, length)
    if settings.sharing == "all":
        return kept, kept
    generator = Encoder(shape, vocab, length)
    match settings.sharing:
        case "none":
            pass
        case "tokens":
            generator.embeddings = kept.embeddings
        case "gdes":
            assert not isinstance(generator.embeddings, DisentangledEmbeddings)  # noqa: S101
            kept.embeddings = DisentangledEmbeddings(generator.embeddings, trial.encoder)
        case _:
            assert_never(settings.sharing)
    return kept, generator


def parameter_owners(
    name: str, kept: list[nn.Module], generator: nn.Module
) -> dict[str, list[nn.Parameter]]:
    """Return every parameter once: those of `kept` under `name`, and the generator's own.

    Tables that the kept network reads without sending them a gradient are the generator's. A
    frozen generator has no parameters to own.
    """
    modules = [part for module in kept for part in module.modules()]
    read = [part.base for part in modules if isinstance(part, DisentangledEmbeddings)]
    theirs = {id(p) for base in read for p in base.parameters()}
    mine = {id(p): p for p in chain.from_iterable(module.parameters() for module in kept)}
    mine = {key: p for key, p in mine.items() if key not in theirs}
    own = [p for p in generator.parameters() if p.requires_grad and id(p) not in mine]
    return {name: list(mine.values())} | ({"generator": own} if own else {})
