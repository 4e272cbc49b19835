"""Sizes for captures of mixed aspect: a few, of nearly equal area, so that batches are rectangular and cost alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

ASPECTS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
"""Width over height."""


def bucket_sizes(pixels: int, patch: int, aspects: Sequence[float] = ASPECTS) -> list[tuple[int, int]]:
    """(height, width) for each aspect (width / height), multiples of ``patch``, at most ``pixels`` in area.

    Each is the size that loses least of the aspect (which counts twice) and of the area, both as ratios; equal ones
    count once.

    Raises:
        ValueError: fewer pixels than a patch has, or aspects outside [0.5, 2].
    """
    if pixels < patch * patch:
        raise ValueError(f"{pixels} pixels do not hold a patch of {patch}x{patch}")
    if not aspects or any(not 0.5 <= aspect <= 2 for aspect in aspects):
        raise ValueError(f"aspects {tuple(aspects)} must lie within 0.5 and 2")
    patches = pixels // (patch * patch)

    def loss(grid: tuple[int, int], aspect: float) -> float:
        rows, columns = grid
        return 2 * abs(math.log(columns / rows / aspect)) + math.log(patches / (rows * columns))

    def grids(aspect: float) -> list[tuple[int, int]]:
        """For each number of rows, the columns next to the aspect's, as far as they fit."""
        highest = min(patches, math.isqrt(int(patches / aspect)) + 1)
        columns = [(rows, math.floor(rows * aspect) + up) for rows in range(1, highest + 1) for up in (0, 1)]
        return [(r, max(1, min(c, patches // r))) for r, c in columns]

    best = [min(grids(aspect), key=lambda grid, aspect=aspect: loss(grid, aspect)) for aspect in aspects]
    return list(dict.fromkeys((rows * patch, columns * patch) for rows, columns in best))


def assign_bucket(size: tuple[int, int], buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket (height, width) whose aspect is nearest to that of ``size`` (height, width), as a ratio."""
    return min(buckets, key=lambda bucket: abs(math.log(bucket[1] * size[0] / (bucket[0] * size[1]))))
