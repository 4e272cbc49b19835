"""Which images are matched with which."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from jaxtyping import Float

EXHAUSTIVE = 60
"""Up to so many photographs all pairs are tried."""
EXHAUSTIVE_VIDEO = 30
"""Up to so many frames of a video: they lie far apart then."""
WINDOW = 8
"""Frames of a longer video are matched with their neighbours up to this far apart."""
LOOPS = 3
"""Candidates of each frame of a video beyond its window."""
NEAREST = 10
"""Of more photographs, each is matched with so many that look most like it."""
MUTUAL = 20
"""And with those among so many that look like it and to which it looks alike too."""


def is_exhaustive(views: int, *, ordered: bool) -> bool:
    """Whether :func:`choose_pairs` takes all pairs."""
    return views <= (EXHAUSTIVE_VIDEO if ordered else EXHAUSTIVE)


def choose_pairs(
    views: int, *, ordered: bool, descriptors: Callable[[], Float[np.ndarray, "v d"]]
) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, in order.

    Few views: all. A longer video (``ordered``): windows in time, and beyond them the frames that look most alike.
    More photographs: the most alike by the global ``descriptors`` (unit length or zero; asked for in these cases only),
    neighbours by name, and what is needed to tie all together. Geometry decides afterwards which pairs are true.
    """
    if is_exhaustive(views, ordered=ordered):
        return list(combinations(range(views), 2))
    described = descriptors()
    similarity = (described @ described.T).astype(np.float64)
    index = np.arange(views)
    apart = np.abs(index[:, None] - index)
    if ordered:
        chosen = (apart <= WINDOW) | _nearest(np.where(apart > WINDOW, similarity, -np.inf), LOOPS)
    else:
        similarity[index, index] = -np.inf
        look_alike = _nearest(similarity, MUTUAL)
        chosen = _nearest(similarity, NEAREST) | (look_alike & look_alike.T) | (apart <= 1)
        chosen |= _spanning_tree(similarity)
    first, second = np.nonzero(np.triu(chosen | chosen.T, 1))
    return list(zip(first.tolist(), second.tolist()))


def _nearest(similarity: Float[np.ndarray, "v v"], count: int) -> np.ndarray:
    """For each row the ``count`` most similar columns, as a mask; minus infinity is never taken."""
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    mask = np.zeros(similarity.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask & np.isfinite(similarity)


def _spanning_tree(similarity: Float[np.ndarray, "v v"]) -> np.ndarray:
    """The tree over all views with the largest sum of similarities (Prim), as a mask [child, parent]."""
    views = len(similarity)
    best, parent = similarity[0].copy(), np.zeros(views, dtype=int)
    inside = np.arange(views) == 0
    mask = np.zeros((views, views), dtype=bool)
    for _ in range(views - 1):
        child = int(np.where(inside, -np.inf, best).argmax())
        if inside[child]:  # nothing but minus infinity is left
            break
        mask[child, parent[child]] = True
        inside[child] = True
        better = similarity[child] > best
        best, parent = np.where(better, similarity[child], best), np.where(better, child, parent)
    return mask
