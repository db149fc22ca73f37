"""Measured compute at which encoders of some sizes start to score above untrained ones.

The measurements use the objective `electra` on the embedded English text. Each row names the
report that it comes from.
"""

from dataclasses import dataclass

from lab.config.architecture import SIZES, EncoderConfig


@dataclass(frozen=True, kw_only=True)
class LearnedAt:
    """Compute at which encoders of one size start to score above untrained ones.

    Attributes:
        size: name of the encoder size, a key of `SIZES`.
        window: window length in tokens.
        low: FLOPs at which the first trials score above untrained.
        high: FLOPs at which the trials with every seed score above untrained.
        source: folder of the repository with the report of the measurement.
    """

    size: str
    window: int
    low: float
    high: float
    source: str

    @property
    def encoder(self) -> EncoderConfig:
        """Shape of the encoder."""
        return SIZES[self.size]

    def __str__(self) -> str:
        layers = self.encoder.layers
        shape = f"hidden size {self.encoder.hidden}, {layers} layer{'s' * (layers > 1)}"
        span = f"{self.low:.2g} to {self.high:.2g} FLOPs".replace("e+", "e")
        return f"{self.size} ({shape}) at {span} ({self.source})"


# Sorted by compute, smallest first.
LEARNED = (
    LearnedAt(size="nano32", window=16, low=2.5e11, high=1e12, source="reports/nano32"),
    LearnedAt(size="nano", window=16, low=1.25e12, high=2.5e12, source="reports/gen_ratio_nano"),
    LearnedAt(size="tiny", window=16, low=6e12, high=1.2e13, source="reports/noise"),
)


def advise_budget(hidden: int, layers: int, flops: float) -> str:
    """Return a sentence with the measured sizes and budgets that gave scores above untrained.

    Args:
        hidden: hidden size of the encoder that scored no better than untrained.
        layers: number of its layers.
        flops: FLOPs of its training.
    """
    same = [r for r in LEARNED if (r.encoder.hidden, r.encoder.layers) == (hidden, layers)]
    if any(row.high <= flops for row in same):
        return (
            f"Encoders of this size have scored above untrained with no more compute: {same[0]}. "
            f"Compare learning rate, mask probability, batch size and window length "
            f"({same[0].window} tokens there)."
        )
    rows = dict.fromkeys((LEARNED[0], *same))
    return (
        f"With windows of {LEARNED[0].window} tokens, encoders were measured to score above "
        f"untrained as follows: {'; '.join(map(str, rows))}."
    )
