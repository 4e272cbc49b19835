"""Tracks as a graph: views are its nodes, and the tracks that two of them share tie them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.sampling import evenly_spaced

MIN_SHARED = 8
"""Two views are tied where they share this many tracks: fewer leave their relative pose open or in doubt."""


def shared_tracks(seen: Bool[Tensor, "v m"]) -> Int[Tensor, "v v"]:
    """How many tracks each pair of views shares; on the diagonal, how many each view sees together with another."""
    several = (seen & (seen.sum(0) >= 2)).float()
    return (several @ several.T).round().long()


def connected_parts(seen: Bool[Tensor, "v m"], *, min_shared: int = MIN_SHARED) -> list[list[int]]:
    """The views in parts between which no pair shares ``min_shared`` tracks; the largest part first.

    A view that nothing ties is a part of its own.
    """
    from scipy.sparse.csgraph import connected_components

    count, part = connected_components((shared_tracks(seen) >= min_shared).numpy(), directed=False)
    parts = [(part == number).nonzero()[0].tolist() for number in range(count)]
    return sorted(parts, key=lambda views: (-len(views), views))


def sample_views(tracks: Tracks, count: int) -> list[int]:
    """At most ``count`` views of the largest part: evenly spaced ones where tracks tie those, else a cluster.

    The cluster starts at the best tied view and adds the view that shares most tracks with it, again and again.
    """
    part = connected_parts(tracks.visible)[0]
    if len(part) <= count:
        return part
    spread = evenly_spaced(part, count)
    if len(connected_parts(tracks.select_views(spread).visible, min_shared=2 * MIN_SHARED)) == 1:
        return spread
    shared = shared_tracks(tracks.visible)[part][:, part].float()
    chosen = [int((shared.sum(1) - shared.diagonal()).argmax())]
    while len(chosen) < count:
        tied = shared[chosen].sum(0)
        tied[chosen] = -1
        chosen.append(int(tied.argmax()))
    return sorted(part[k] for k in chosen)


def pair_rarity(tracks: Tracks) -> Float[Tensor, " m"]:
    """For each track [v, m] the sum over the pairs of views it ties of 1 / (tracks that tie the pair)."""
    seen = (tracks.weight > 0).float()
    shared = seen @ seen.T
    inverse = torch.where(shared > 0, 1 / shared.clamp_min(1), torch.zeros_like(shared)).fill_diagonal_(0)
    return 0.5 * (seen * (inverse @ seen)).sum(0)


def balanced_tracks(tracks: Tracks, count: int) -> Tensor:
    """Indices of at most ``count`` tracks [v, m]: long ones, and those that tie rarely tied pairs, before others."""
    if tracks.weight.shape[-1] <= count:
        return torch.arange(tracks.weight.shape[-1])
    return pair_rarity(tracks).topk(count).indices.sort().values


def survival(seen: Bool[Tensor, "v m"]) -> dict[str, float]:
    """Share of the tracks that are seen by at least 2, 3, 4, 6, 8, 12, ... views; {} without tracks."""
    length = seen.sum(0)
    length = length[length >= 2]
    steps = [n for k in range(1, 12) for n in (2**k, 3 * 2 ** (k - 1)) if n <= len(seen)]
    return {str(n): float((length >= n).float().mean()) for n in sorted({*steps}) if len(length)}


def lifetimes(seen: Bool[Tensor, "v m"]) -> dict[str, float]:
    """Share of the tracks that are seen again 1, 2, 4, 8, ... frames or more after their first; views in order.

    {} without tracks.
    """
    seen = seen[:, seen.sum(0) >= 2]
    if not seen.shape[1]:
        return {}
    first, last = seen.int().argmax(0), len(seen) - 1 - seen.flip(0).int().argmax(0)
    gaps = [2**k for k in range(12) if 2**k < len(seen)]
    return {str(gap): float((last - first >= gap).float().mean()) for gap in gaps}
