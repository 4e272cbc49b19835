"""The check by two-view geometry of tracks that were not made from pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from reliev3r.core.types import Tracks
from reliev3r.labels.tracks.moving import weigh_moving
from reliev3r.labels.tracks.union import PairMatches, drop_inconsistent
from reliev3r.sfm.two_view import epipolar_distance, estimate_fundamental

_LEAST_MATCHES = 15
"""Pairs that share fewer tracks, or fewer that agree, say nothing."""


def verified(tracks: Tracks, K: list[Float[np.ndarray, "3 3"] | None], *, threshold: float) -> Tracks:
    """Tracks [v, m] without the observations that violate the geometry of their pairs of frames (pixels).

    Frames 1, 2, 4, 8, ... apart are compared; points whose surroundings move against the static majority weigh less.
    """
    uv, seen = tracks.uv.double().numpy(), tracks.visible.numpy()
    pairs = []
    for first, second in _compared(len(uv)):
        both = np.nonzero(seen[first] & seen[second])[0]
        if len(both) < _LEAST_MATCHES:
            continue
        a, b = uv[first, both], uv[second, both]
        F = estimate_fundamental(a, b, K[first], K[second], threshold=threshold)
        near = np.zeros(len(both), bool) if F is None else epipolar_distance(F, a, b) < threshold
        if F is None or near.sum() < _LEAST_MATCHES:
            continue
        pairs.append(
            PairMatches(
                first=first, second=second, index_first=both[near], index_second=both[near],
                doubt=np.zeros(int(near.sum())), F=F, against=np.stack([both[~near], both[~near]], axis=1),
            )
        )  # fmt: skip
    consistent = drop_inconsistent(tracks, pairs, threshold=4 / 3 * threshold)
    return weigh_moving(consistent, list(uv), pairs)


def _compared(views: int) -> list[tuple[int, int]]:
    gaps = [1 << power for power in range(views.bit_length()) if 1 << power < views]
    return [(first, first + gap) for gap in gaps for first in range(views - gap)]
