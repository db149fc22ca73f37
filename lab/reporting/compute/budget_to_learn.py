"""Advice on the compute of a trial, for a report whose trials score no better than untrained."""

from lab.loading.learned_sizes import LEARNED


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
