"""Synchronous successive halving: which points of a search continue past a rung."""


def count_continuing(points: int, factor: int) -> int:
    """Return how many points continue past a rung that `points` of them have reached."""
    return min(points, max(1, points // factor))


class Rungs:
    """The rungs of one cell's search, and the points that have passed all earlier ones.

    A rung is decided when every point of it has a score or has ended without one. Which points
    continue therefore does not depend on the order of their ends.

    Args:
        rungs: number of rungs.
        points: number of points of the search.
        factor: one point in `factor` continues; at least one does if any has a score.
        maximize: whether larger scores are better.

    Attributes:
        members: points that are trained to the next rung, or with the full budget.
        decided: number of rungs that are decided.
    """

    def __init__(self, rungs: int, points: int, factor: int, *, maximize: bool) -> None:
        self._rungs, self._factor = rungs, factor
        self._sign = 1 if maximize else -1
        self._scores: dict[int, float | None] = {}
        self._trained = 0
        self.members = frozenset(range(points))
        self.decided = 0

    @property
    def trials(self) -> int:
        """Number of trials at all rungs and with the full budget, if all later ones have scores."""
        count = len(self.members)
        total = self._trained + count
        for _ in range(self.decided, self._rungs):
            count = count_continuing(count, self._factor)
            total += count
        return total

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
        self._trained += len(self.members)
        self.members = frozenset(ranked[: count_continuing(len(self._scores), self._factor)])
        self._scores = {}
        self.decided += 1
        return frozenset(ranked) - self.members
