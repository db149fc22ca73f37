"""Selection of the predicted tokens, and the input tokens at their positions."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import Discriminator, Tag

from lab.config.base import StrictConfig

TAGS = ("a masking", "shares")  # pydantic's names of the two alternatives, in error locations


@dataclass(frozen=True, kw_only=True)
class InputShares(StrictConfig):
    """Distinct positions; the masked language model reads [MASK], a random word or the token there.

    Attributes:
        mask: share of the chosen tokens that become [MASK].
        random: share of the chosen tokens that become a random word; all words have the same
            probability. The remaining chosen tokens are kept.
    """

    mask: Annotated[float, Interval(ge=0, le=1)]
    random: Annotated[float, Interval(ge=0, le=1)]

    def __post_init__(self) -> None:
        if self.mask + self.random > 1 + 1e-9:  # decimal fractions are rounded
            raise ValueError(
                f"the shares mask and random must add up to at most 1, not "
                f"{self.mask + self.random:g}"
            )

    @property
    def keep(self) -> float:
        """Share of the chosen tokens that the input keeps."""
        return max(0.0, 1 - self.mask - self.random)


# create_pretraining_data.create_masked_lm_predictions of BERT.
BERT = InputShares(mask=0.8, random=0.1)


def _tag(raw: object) -> str:
    return TAGS[isinstance(raw, (dict, InputShares))]


Masking = Annotated[
    Annotated[Literal["paper", "code", "bert"], Tag(TAGS[0])]
    | Annotated[InputShares, Tag(TAGS[1])],
    Discriminator(_tag),
]
