"""What a trial's networks start from."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, MinLen

from lab.config.base import StrictConfig
from lab.config.budget import Budget


@dataclass(frozen=True, kw_only=True)
class FromScratch(StrictConfig):
    """Weights drawn by `seeds.init`."""

    kind: Literal["scratch"] = "scratch"


@dataclass(frozen=True, kw_only=True)
class FromCheckpoint(StrictConfig):
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
class FromTrial(StrictConfig):
    """Another trial of the lab, with the same storage and the same text's vocabulary.

    Attributes:
        name: of its record (`runs/trials/<name>`), or enough of its beginning.
    """

    kind: Literal["trial"]
    name: Annotated[str, MinLen(4)]


@dataclass(frozen=True, kw_only=True)
class FromMlmRun(StrictConfig):
    """A masked-language-model run that the sweep trains before the trials that start from it.

    Text, batch, masking, optimizer, schedule and seeds are those of the trial, so that one run
    serves all trials that agree in these. Its compute is part of the trial's budget.

    Attributes:
        budget: of one run, in FLOPs or tokens.
        lr: its peak learning rate; the trial's where it is not given, which takes a run for each
            rate that is tuned.
    """

    kind: Literal["mlm"]
    budget: Budget
    lr: Annotated[float, Gt(0)] | None = None

    def __post_init__(self) -> None:
        if self.budget.kind == "seconds":
            raise ValueError("the budget of an mlm run is in flops or tokens, not in seconds")


InitFrom = FromScratch | FromCheckpoint | FromTrial | FromMlmRun
