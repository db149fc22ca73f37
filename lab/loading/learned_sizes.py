"""Measured compute at which encoders of some sizes start to score above untrained ones.

The measurements use the objective `electra` on the embedded English text. Each row names the
committed report that it comes from; a test compares the two.
"""

from dataclasses import dataclass

from lab.config.architecture import SIZES, EncoderConfig


@dataclass(frozen=True, kw_only=True)
class LearnedAt:
    """Compute at which encoders of one size start to score above untrained ones.

    Attributes:
        size: name of the encoder size, a key of `SIZES`.
        window: window length in tokens.
        low: FLOPs at which the mean bigram AUROC of the trials is above that of untrained encoders
            by .01, more than twice its sampling error.
        high: FLOPs at which the trials of every seed are above untrained ones by .05.
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
    LearnedAt(size="nano32", window=16, low=2.5e11, high=1e12, source="reports/archive/nano32"),
    LearnedAt(
        size="nano", window=16, low=1.25e12, high=2.5e12, source="reports/archive/gen_ratio_nano"
    ),
    LearnedAt(size="tiny", window=16, low=4e12, high=8e12, source="reports/archive/optimizer_tiny"),
)
MIN_TO_LEARN = min(row.low for row in LEARNED)  # with less, no measured encoder learned
