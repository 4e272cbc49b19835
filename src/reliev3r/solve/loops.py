"""Where a long walk comes back to a place: by look, then by geometry. For the passes of a network over many views."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from reliev3r.data.capture import Capture
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.pairwise import look_alike_descriptors
from reliev3r.model.passes import AT_ONCE

_TRIED = 3
"""Candidates for each pass that the walk is split into."""
_MATCHES = 30
"""That agree with one geometry, of a loop that is believed."""


def loop_pairs(capture: Capture, *, beyond: int = AT_ONCE) -> list[tuple[int, int]]:
    """Pairs of views (i, j) that see the same place and lie ``beyond`` or more apart; few, and far from one another.

    None where there are no more views than that. A repeated pattern can be taken for a loop: what is made of them has
    to bear it (:func:`~reliev3r.model.passes.predict_in_passes` drops one that contradicts the rest).
    """
    if len(capture.frames) <= beyond:
        return []
    described = look_alike_descriptors(capture)
    tried = _TRIED * -(-len(capture.frames) // beyond)
    return [pair for pair in candidates(described @ described.T, beyond, tried) if _sees_the_same(capture, pair)]


def candidates(similarity: Float[np.ndarray, "v v"], beyond: int, count: int) -> list[tuple[int, int]]:
    """The ``count`` most similar pairs i < j at least ``beyond`` apart; of pairs whose both ends are near, the best."""
    index = np.arange(len(similarity))
    left = np.where(index[None] - index[:, None] >= beyond, similarity, -np.inf)
    found: list[tuple[int, int]] = []
    while len(found) < count and np.isfinite(left).any():
        i, j = (int(each) for each in np.unravel_index(left.argmax(), left.shape))
        found.append((i, j))
        near = max(1, beyond // 4)
        left[max(0, i - near) : i + near + 1, max(0, j - near) : j + near + 1] = -np.inf
    return found


def _sees_the_same(capture: Capture, pair: tuple[int, int]) -> bool:
    two = dataclasses.replace(capture, frames=tuple(capture.frames[view] for view in pair))
    return track_expert("sift").track(two).weight.shape[-1] >= _MATCHES
