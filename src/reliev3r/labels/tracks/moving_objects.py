"""Doubt about tracks that the static scene contradicts: on things that move, or plainly wrong.

:func:`weigh_moving` for tracks made from matches of pairs, :func:`verified` for those that were not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from reliev3r.core.types import Tracks
from reliev3r.labels.tracks.union import PairMatches, drop_inconsistent
from reliev3r.sfm.two_view import epipolar_distance, estimate_fundamental

_POOL = 8
"""Keypoints around an observation that are asked."""
_NEIGHBOURS, _ALIKE = 4, 2
"""Contradicting matches count where so many of so many neighbours move alike."""
_TOLERATED, _HOPELESS = 0.2, 0.7
"""Shares of contradiction at which doubt begins, and ends; on static captures 95 in 100 tracks are below the first."""
_LEAST = 0.05
"""Weight at and beyond the last; not 0, which would mean "not seen"."""
_LEAST_MATCHES = 15
"""Pairs that share fewer tracks, or fewer that agree, say nothing."""


def weigh_moving(tracks: Tracks, points: Sequence[Float[np.ndarray, "_ 2"]], pairs: Sequence[PairMatches]) -> Tracks:
    """Lower the weight of tracks [v, m] whose surroundings disagree with the static majority; uv stays.

    A sure match that violates the geometry of its pair is false or on something that moved. False ones are scattered,
    those on a moving thing move alike: only these count (``_coherent``), and the more, the clearer the majority of the
    pair is. Where they are frequent the *place* moves, and so do the few matches there that satisfy the geometry by
    chance or because two images follow each other closely. Each observation asks the nearest keypoints of its image, a
    track all its observations: with s the share of contradicting matches its weight is 1 up to s = 0.2 and falls
    linearly to 0.05 at s = 0.7.

    A motion along the epipolar lines of all pairs contradicts none of them and is not noticed here.
    """
    support = [np.zeros(len(uv)) for uv in points]
    against = [np.zeros(len(uv)) for uv in points]
    for pair in pairs:
        good, bad = len(pair.index_first), len(pair.against)
        clear = (good - bad) / max(good + bad, 1)
        if clear > 0:
            uv_first, uv_second = points[pair.first][pair.against[:, 0]], points[pair.second][pair.against[:, 1]]
            together = pair.against[_coherent(uv_first, uv_second)]
            for view, index, column in ((pair.first, pair.index_first, 0), (pair.second, pair.index_second, 1)):
                np.add.at(support[view], index, clear)
                np.add.at(against[view], together[:, column], clear)
    visible = tracks.visible.numpy()
    doubted, asked = np.zeros(visible.shape[1]), np.zeros(visible.shape[1])
    for view, uv in enumerate(points):
        seen = np.nonzero(visible[view])[0]
        contradicted, total = _pooled(uv, support[view], against[view], tracks.uv[view, seen].double().numpy())
        doubted[seen] += contradicted
        asked[seen] += total
    share = doubted / np.maximum(asked, 1e-9)
    trust = np.interp(share, [_TOLERATED, _HOPELESS], [1, _LEAST])
    return dataclasses.replace(tracks, weight=tracks.weight * torch.from_numpy(trust).float())


def _coherent(uv_a: Float[np.ndarray, "n 2"], uv_b: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Which matches move as at least two of their four neighbours do, up to a change of shape by a half."""
    from scipy.spatial import cKDTree

    count = min(_NEIGHBOURS, len(uv_a) - 1)
    if count < _ALIKE:
        return np.zeros(len(uv_a), dtype=bool)
    distance, index = cKDTree(uv_a).query(uv_a, k=count + 1)
    shift = uv_b - uv_a
    differ = np.linalg.norm(shift[index[:, 1:]] - shift[:, None], axis=-1)
    return (differ < 0.5 * distance[:, 1:] + 3).sum(1) >= _ALIKE


def _pooled(
    uv: Float[np.ndarray, "n 2"],
    support: Float[np.ndarray, " n"],
    against: Float[np.ndarray, " n"],
    where: Float[np.ndarray, "k 2"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Contradicted and all matches of the keypoints nearest to some places (of keypoints that have any)."""
    from scipy.spatial import cKDTree

    known = np.nonzero(support + against > 0)[0]
    if not len(known) or not len(where):
        return np.zeros(len(where)), np.zeros(len(where))
    _, nearest = cKDTree(uv[known]).query(where, k=np.arange(1, min(_POOL, len(known)) + 1))
    bad, total = against[known][nearest], (support + against)[known][nearest]
    return bad.sum(1), total.sum(1)


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
