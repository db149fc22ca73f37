"""Compute from which encoders of some sizes are known to score above untrained ones.

Measured by this lab with objective `electra` on its embedded text; each row names its source.
"""

from dataclasses import dataclass

from lab.config.architecture import SIZES, EncoderConfig


@dataclass(frozen=True, kw_only=True)
class LearnedAt:
    """A size that learned, and the compute within which it did.

    Attributes:
        size: a key of `SIZES`.
        window: positions of a training window.
        low: FLOPs at which the first runs score above untrained.
        high: FLOPs at which every seed does.
        source: file of the repository with the measurement.
    """

    size: str
    window: int
    low: float
    high: float
    source: str

    @property
    def encoder(self) -> EncoderConfig:
        """Its shape."""
        return SIZES[self.size]

    def __str__(self) -> str:
        layers = self.encoder.layers
        shape = f"{self.encoder.hidden} wide, {layers} layer{'s' * (layers > 1)}"
        span = f"{self.low:.2g} to {self.high:.2g} FLOPs".replace("e+", "e")
        return f"{self.size} ({shape}) learns at {span} ({self.source})"


# Cheapest first.
LEARNED = (
    LearnedAt(size="nano32", window=16, low=2.5e11, high=1e12, source="reports/nano32"),
    LearnedAt(size="nano", window=16, low=1.25e12, high=2.5e12, source="reports/gen_ratio"),
    LearnedAt(size="tiny", window=16, low=6e12, high=1.2e13, source="reports/noise"),
)


def advise_budget(hidden: int, layers: int, flops: float) -> str:
    """Return a sentence on the size or the budget at which something would be learned.

    Args:
        hidden: width of the encoder that learned nothing.
        layers: of it.
        flops: that it was trained with.
    """
    same = [r for r in LEARNED if (r.encoder.hidden, r.encoder.layers) == (hidden, layers)]
    if any(row.high <= flops for row in same):
        return (
            f"The same size has learned with less: {same[0]}; compare learning rate, mask rate, "
            f"batch and window (there {same[0].window})."
        )
    rows = dict.fromkeys((LEARNED[0], *same))
    return f"On windows of {LEARNED[0].window} {', '.join(map(str, rows))}."
