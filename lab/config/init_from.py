"""Configuration of the initial weights of a trial's networks."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from lab.config.base import StrictConfig
from lab.config.bounds import LearningRate, Name, NameOrEmpty
from lab.config.budget import Budget


@dataclass(frozen=True, kw_only=True)
class FromScratch(StrictConfig):
    """Random initial weights, drawn with the seed `seeds.init`."""

    kind: Literal["scratch"] = "scratch"


@dataclass(frozen=True, kw_only=True)
class FromCheckpoint(StrictConfig):
    """Initial weights from ELECTRA checkpoints of the `transformers` library.

    Attributes:
        discriminator: folder or hub name of the discriminator's checkpoint, for example
            google/electra-small-discriminator.
        generator: folder or hub name of the generator's checkpoint; if empty, the weights that
            the generator does not share with the discriminator are random.
    """

    kind: Literal["transformers"]
    discriminator: Name
    generator: NameOrEmpty = ""


@dataclass(frozen=True, kw_only=True)
class FromTrial(StrictConfig):
    """Initial weights from another trial in the same storage, with the same vocabulary.

    Attributes:
        name: name of that trial's record (`runs/trials/<name>`), or a unique prefix of it.
    """

    kind: Literal["trial"]
    name: Annotated[Name, MinLen(4)]


@dataclass(frozen=True, kw_only=True)
class FromMlmRun(StrictConfig):
    """Initial weights from a masked-language-model run that the sweep trains before the trial.

    Text, batch, masking, optimizer, schedule and seeds of the run are those of the trial. Trials
    that agree in these settings share one run. The compute of the run counts towards the budget
    of each trial that starts from it.

    Attributes:
        budget: budget of one masked-language-model run, in FLOPs or tokens.
        lr: peak learning rate of the masked-language-model run; null uses the trial's, which
            requires a separate run for each tuned learning rate.
    """

    kind: Literal["mlm"]
    budget: Budget
    lr: LearningRate | None = None

    def __post_init__(self) -> None:
        if self.budget.kind == "seconds":
            raise ValueError("the budget of an mlm run must be in flops or tokens, not in seconds")


InitFrom = FromScratch | FromCheckpoint | FromTrial | FromMlmRun
