"""What a trial's networks start from."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from lab.noun import Noun


@dataclass(frozen=True, kw_only=True)
class Scratch(Noun):
    """Weights drawn by `seeds.init`."""

    kind: Literal["scratch"] = "scratch"


@dataclass(frozen=True, kw_only=True)
class Released(Noun):
    """ELECTRA checkpoints of `transformers`: folders, or names on the hub.

    Attributes:
        discriminator: for example google/electra-small-discriminator.
        generator: its generator; without one the generator is drawn by chance, beside what it
            shares.
    """

    kind: Literal["transformers"]
    discriminator: Annotated[str, MinLen(1)]
    generator: str = ""


@dataclass(frozen=True, kw_only=True)
class Earlier(Noun):
    """Another trial of the lab, with the same storage and the same text's vocabulary.

    Attributes:
        name: of its record (`runs/trials/<name>`), or enough of its beginning.
    """

    kind: Literal["trial"]
    name: Annotated[str, MinLen(4)]


Start = Scratch | Released | Earlier
