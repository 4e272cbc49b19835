"""Which images are matched with which."""

from __future__ import annotations

from itertools import combinations

EXHAUSTIVE = 60
WINDOW = 8


def choose_pairs(views: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j: all up to 60 views; beyond, neighbours up to 8 apart and partners 16, 32, 64, ... apart.

    The order of the views is taken to mean something then: that of a video, or of the file names of a walk.
    """
    if views <= EXHAUSTIVE:
        return list(combinations(range(views), 2))
    gaps = [*range(1, WINDOW + 1)]
    gap = 2 * WINDOW
    while gap < views:
        gaps.append(gap)
        gap *= 2
    return sorted((first, first + gap) for gap in gaps for first in range(views - gap))
