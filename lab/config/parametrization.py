"""Parametrization of an encoder: how initial weights and learning rates depend on the width."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from lab.config.base import StrictConfig

_Width = Annotated[int, Interval(ge=2, le=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class StandardParametrization(StrictConfig):
    """Initial weights and learning rates that do not depend on the width."""

    kind: Literal["standard"] = "standard"


@dataclass(frozen=True, kw_only=True)
class MaximalUpdateParametrization(StrictConfig):
    """The maximal update parametrization (muP; Yang et al. 2022, arXiv 2203.03466, table 8).

    Initial weights and learning rates are scaled with the width, so that activations and their
    changes in a step have the same size at every width, and the best learning rate of one width is
    near the best one of another. An encoder of the base shape is trained as with the standard
    parametrization; the settings of a sweep (`init_std`, `optim.lr`) are those of the base shape.
    Depth is not scaled.

    Attributes:
        hidden: width of the residual stream of the base shape.
        head_width: width of an attention head of the base shape.
    """

    kind: Literal["mup"]
    hidden: _Width = 32
    head_width: _Width = 16


Parametrization = StandardParametrization | MaximalUpdateParametrization
