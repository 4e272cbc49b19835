"""From pairwise matches of any matcher to tracks over all images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from reliev3r.core.types import Tracks
from reliev3r.labels.tracks.matcher import PointMatches
from reliev3r.sfm.two_view import epipolar_distance

if TYPE_CHECKING:
    from scipy import sparse

_PLACE = 0.25
"""Keypoints of one image that fall into the same cell of this many pixels are one place."""
_TABLE = 40_000_000
"""Views times tracks that are kept at most: tables of tracks are dense, and memory would grow with the square of the
views. From some 550 views on there are fewer tracks a view for it: of 1000 views 40 000 in all."""
_AT_ONCE = 2**21
"""Views times tracks that are judged at once: before they are thinned, long captures have hundreds of thousands."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMatches:
    """Verified matches of two images."""

    first: int
    second: int
    """Positions of the images."""
    index_first: Int[np.ndarray, " n"]
    index_second: Int[np.ndarray, " n"]
    """Positions in the images' lists of keypoints."""
    doubt: Float[np.ndarray, " n"]
    """The surer a match, the smaller; comparable across pairs."""
    F: Float[np.ndarray, "3 3"]
    """Fundamental matrix in the keypoints' pixels: [uv_second, 1]^T F [uv_first, 1] = 0."""
    against: Int[np.ndarray, "k 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Keypoints whose match the matcher was sure of although it clearly violates F: false, or on what moves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PointPair:
    """Matches of two images without keypoints, verified."""

    first: int
    second: int
    found: PointMatches
    F: Float[np.ndarray, "3 3"]
    near: Bool[np.ndarray, " n"]
    """Which of them agree with F."""
    against: Bool[np.ndarray, " n"]
    """Which of them clearly violate it."""


def merge_points(
    views: int, pairs: Sequence[PointPair], *, cell: float
) -> tuple[list[Float[np.ndarray, "_ 2"]], list[PairMatches]]:
    """Keypoints of every image from the points of all its pairs: in each cell of ``cell`` pixels the surest one.

    Returns them and the matches between them. A point is moved by less than the cell's diagonal.
    """
    gathered: list[list[np.ndarray]] = [[np.zeros((0, 3))] for _ in range(views)]
    start = []
    for pair in pairs:
        start.append([sum(map(len, gathered[view])) for view in (pair.first, pair.second)])
        for view, uv in ((pair.first, pair.found.first), (pair.second, pair.found.second)):
            gathered[view].append(np.concatenate([uv, pair.found.confidence[:, None]], axis=1))
    merged = [_merge(np.concatenate(parts), cell) for parts in gathered]
    matches = []
    for pair, (start_first, start_second) in zip(pairs, start):
        count = len(pair.near)
        first = merged[pair.first][1][start_first : start_first + count]
        second = merged[pair.second][1][start_second : start_second + count]
        matches.append(
            PairMatches(
                first=pair.first,
                second=pair.second,
                index_first=first[pair.near],
                index_second=second[pair.near],
                doubt=1 - pair.found.confidence[pair.near],
                F=pair.F,
                against=np.stack([first[pair.against], second[pair.against]], axis=1),
            )
        )
    return [uv for uv, _ in merged], matches


def tracks_from_matches(points: Sequence[Float[np.ndarray, "_ 2"]], pairs: Sequence[PairMatches]) -> Tracks:
    """Union-find over the keypoints of all images; the surest matches first.

    A match that would bring two different places of one image into a track is left out, so no track visits an image
    twice. Tracks are [v, m] in the keypoints' pixels, weight 1 where seen, the longest first. Of very many views they
    are thinned (:func:`thin`) to twice as many as are kept in the end.
    """
    start = np.concatenate([[0], np.cumsum([len(uv) for uv in points])])
    place = np.concatenate([_places(uv) + start[view] for view, uv in enumerate(points)])
    view_of = np.repeat(np.arange(len(points)), np.diff(start))
    links = [np.zeros((0, 2), np.int64)]
    links += [np.stack([p.index_first + start[p.first], p.index_second + start[p.second]], axis=1) for p in pairs]
    links_array = place[np.concatenate(links)]
    order = np.argsort(np.concatenate([np.zeros(0), *(p.doubt for p in pairs)]), kind="stable")
    label = _union(links_array[order], view_of)

    nodes = np.unique(links_array)
    root, track = np.unique(label[nodes], return_inverse=True)
    length = np.bincount(track, minlength=len(root))
    keep = np.argsort(-length, kind="stable")[: int((length >= 2).sum())]
    most = 2 * _TABLE // max(1, len(points))
    if len(keep) > most:
        from scipy import sparse

        seen = sparse.csr_array((np.ones(len(nodes), np.int32), (view_of[nodes], track)), (len(points), len(root)))
        keep = keep[_spread(seen[:, keep], most)]
    position = np.full(len(root), -1)
    position[keep] = np.arange(len(keep))
    nodes, column = nodes[position[track] >= 0], position[track][position[track] >= 0]
    uv = np.zeros((len(points), len(keep), 2), np.float32)
    weight = np.zeros((len(points), len(keep)), np.float32)
    uv[view_of[nodes], column] = np.concatenate([np.zeros((0, 2)), *points])[nodes]
    weight[view_of[nodes], column] = 1
    return Tracks(uv=torch.from_numpy(uv), weight=torch.from_numpy(weight))


def drop_inconsistent(tracks: Tracks, pairs: Sequence[PairMatches], *, threshold: float) -> Tracks:
    """Take out observations that violate the geometry of over a third of their pairs by more than ``threshold`` pixels.

    Chains of matches tie views together that were never compared for this track; here they are, where the geometry of
    the two views is known. The worst observation of each track goes first, then the rest is judged again.
    """
    seen = tracks.visible.numpy().copy()
    step = max(1, _AT_ONCE // len(seen))
    for begin in range(0, seen.shape[1], step):  # each track is judged by itself
        part = slice(begin, begin + step)
        _drop(seen[:, part], tracks.uv[:, part].double().numpy(), pairs, threshold)
    weight = torch.where(torch.from_numpy(seen), tracks.weight, torch.zeros_like(tracks.weight))
    left = np.nonzero(seen.sum(0) >= 2)[0]
    order = left[np.argsort(-seen.sum(0)[left], kind="stable")]
    return Tracks(uv=tracks.uv, weight=weight).select_tracks(torch.from_numpy(order))


def _drop(
    seen: Bool[np.ndarray, "v m"], uv: Float[np.ndarray, "v m 2"], pairs: Sequence[PairMatches], threshold: float
) -> None:
    """:func:`drop_inconsistent` of some tracks, in place."""
    checks = []
    for pair in pairs:
        both = np.nonzero(seen[pair.first] & seen[pair.second])[0]
        violated = epipolar_distance(pair.F, uv[pair.first, both], uv[pair.second, both]) > threshold
        checks.append((pair.first, pair.second, both, violated))
    while True:
        bad, total = np.zeros(seen.shape), np.zeros(seen.shape)
        for first, second, both, violated in checks:
            alive = seen[first, both] & seen[second, both]
            for view in (first, second):
                total[view, both] += alive
                bad[view, both] += alive & violated
        share = bad / np.maximum(total, 1)
        track = np.nonzero(share.max(0, initial=0) > 1 / 3)[0]
        if not len(track):
            break
        seen[share[:, track].argmax(0), track] = False


def track_budget(few: int, views: int) -> int:
    """How many tracks so many views keep: ``few`` of up to 32 views, in proportion of more, as far as memory goes."""
    return min(round(few * max(1, views / 32)), max(few, _TABLE // views))


def thin(tracks: Tracks, most: int) -> Tracks:
    """At most ``most`` tracks, so chosen that every pair of views keeps its longest ones, as evenly as possible."""
    if tracks.weight.shape[1] <= most:
        return tracks
    from scipy import sparse

    return tracks.select_tracks(torch.from_numpy(_spread(sparse.csr_array(tracks.visible.numpy()), most)))


def _spread(seen: sparse.csr_array, most: int) -> Int[np.ndarray, " k"]:
    """The columns of ``seen`` [v, m], in order, that :func:`thin` keeps."""
    from scipy import sparse

    length = seen.astype(np.int32).sum(0)
    longest = np.argsort(-length, kind="stable")
    by_length = seen[:, longest].astype(np.int32)
    by_length.sort_indices()
    of_view = np.split(by_length.indices, by_length.indptr[1:-1])
    rank = np.full(len(longest), len(longest))
    tied = sparse.triu(by_length @ by_length.T, 1).tocoo()
    for first, second in zip(tied.row, tied.col, strict=True):
        shared = np.intersect1d(of_view[first], of_view[second], assume_unique=True)
        rank[shared] = np.minimum(rank[shared], np.arange(len(shared)))
    return np.sort(longest[np.argsort(rank, kind="stable")[:most]])


def _merge(points: Float[np.ndarray, "n 3"], cell: float) -> tuple[Float[np.ndarray, "k 2"], Int[np.ndarray, " n"]]:
    """The surest of the points (u, v, confidence) of each cell, and for every point the position of its cell's."""
    surest_first = np.argsort(-points[:, 2], kind="stable")
    cells = np.floor(points[surest_first, :2] / cell).astype(np.int64)
    _, first, group = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    position = np.empty(len(points), np.int64)
    position[surest_first] = group.ravel()
    return points[surest_first[first], :2], position


def _places(uv: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    """For each keypoint the first one of the same place (SIFT repeats a place for every orientation it sees)."""
    _, first, group = np.unique(np.rint(uv / _PLACE).astype(np.int64), axis=0, return_index=True, return_inverse=True)
    return first[group.ravel()]


def _union(links: Int[np.ndarray, "n 2"], view_of: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """The root of every node after joining the links in order, except those that would join two nodes of one view."""
    parent = list(range(len(view_of)))
    views = [1 << view for view in view_of.tolist()]

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in links.tolist():
        a, b = root(a), root(b)
        if a != b and not views[a] & views[b]:
            parent[b] = a
            views[a] |= views[b]
    return np.array([root(node) for node in range(len(parent))], dtype=np.int64)
