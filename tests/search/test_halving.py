"""Rungs of successive halving: fair, and independent of the order in which trials end."""

import random
from collections import Counter

import pytest

from lab.search.halving import Rungs


def finish(scores: list[list[float]], order: random.Random, slots: int, factor: int) -> set[int]:
    """Return the points that are trained to the end, if `slots` of them run at a time.

    Args:
        scores: score of each point at each rung.
        order: source of the order in which running points reach a rung.
        slots: number of points that run at the same time.
        factor: reduction factor.
    """
    rungs = Rungs(len(scores[0]), len(scores), factor, maximize=True)
    planned, trained = rungs.trials, 0
    while (rung := rungs.decided) < len(scores[0]):
        trained += len(rungs.members)
        waiting, running = sorted(rungs.members), list[int]()
        while waiting or running:
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
            point = running.pop(order.randrange(len(running)))
            dropped = rungs.record(point, scores[point][rung])
            assert (dropped is None) is bool(waiting or running)
    assert planned == rungs.trials == trained + len(rungs.members)
    return set(rungs.members)


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_equal_points_are_completed_equally_often(slots: int) -> None:
    """Asynchronous halving completes the first point in half of the searches."""
    draw, counts, searches = random.Random(0), Counter[int](), 2_000  # noqa: S311
    for _ in range(searches):
        scores = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(8)]
        counts.update(finish(scores, draw, slots, factor=2))
    assert counts.total() == searches
    deviation = (searches * (1 / 8) * (7 / 8)) ** 0.5
    assert all(abs(counts[point] - searches / 8) < 3.5 * deviation for point in range(8))


def test_each_rung_halves_the_points() -> None:
    scores = [[float(point), float(-point)] for point in range(8)]
    assert finish(scores, random.Random(0), 2, factor=2) == {4, 5}  # noqa: S311


def test_points_without_a_score_never_continue() -> None:
    rungs = Rungs(1, 6, 2, maximize=False)
    for point in range(5):
        assert rungs.record(point, None if point else 3.0) is None
    assert rungs.record(5, 2.0) == frozenset()
    assert rungs.members == {0, 5}
    assert rungs.trials == 6 + 2


def test_no_point_continues_if_none_has_a_score() -> None:
    rungs = Rungs(1, 2, 2, maximize=True)
    assert rungs.record(0, None) is None
    assert rungs.record(1, None) == frozenset()
    assert rungs.members == frozenset()
    assert rungs.trials == 2
