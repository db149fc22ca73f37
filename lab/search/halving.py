"""Synchronous successive halving: which points of a search continue past a rung."""

from collections.abc import Sequence


class Rungs:
    """The rungs of one cell's search, and the points that have passed all earlier ones.

    A rung is decided when every point of it has a score or has ended without one. Which points
    continue therefore does not depend on the order of their ends.

    Args:
        evaluations: numbers of the evaluations that are rungs, in order.
        points: number of points of the search.
        factor: one point in `factor` continues; at least one does if any has a score.
        maximize: whether larger scores are better.

    Attributes:
        members: points that are trained to the next rung, or to the end.
    """

    def __init__(
        self, evaluations: Sequence[int], points: int, factor: int, *, maximize: bool
    ) -> None:
        self._left, self._factor = list(evaluations), factor
        self._sign = 1 if maximize else -1
        self._scores: dict[int, float | None] = {}
        self.members = frozenset(range(points))

    @property
    def until(self) -> int | None:
        """Evaluation at which the points pause; None if they are trained to the end."""
        return self._left[0] if self._left else None

    def record(self, point: int, score: float | None) -> frozenset[int] | None:
        """Record the score of a point at the rung, or None if it has ended without one.

        Returns:
            The points with a score that do not continue; None while the rung is not decided.
        """
        self._scores[point] = score
        if len(self._scores) < len(self.members):
            return None
        scored = {each: value for each, value in self._scores.items() if value is not None}
        ranked = sorted(scored, key=lambda each: (-self._sign * scored[each], each))
        self.members = frozenset(ranked[: max(1, len(self._scores) // self._factor)])
        self._scores = {}
        del self._left[0]
        return frozenset(ranked) - self.members
