"""How the tracks tie the views: shared tracks, parts, how long tracks live."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from reliev3r.core.types import Tracks

MIN_SHARED = 8
"""Two views are tied where they share this many tracks: fewer leave their relative pose open or in doubt."""
FEW = 30
"""A view with fewer observations is named as weakly tied."""


def shared_tracks(tracks: Tracks) -> Int[Tensor, "v v"]:
    """How many tracks each pair of views shares; on the diagonal, how many each view sees together with another."""
    seen = (tracks.visible & (tracks.visible.sum(0) >= 2)).float()
    return (seen @ seen.T).round().long()


def connected_parts(tracks: Tracks, *, min_shared: int = MIN_SHARED) -> list[list[int]]:
    """The views in parts between which no pair shares ``min_shared`` tracks; the largest part first."""
    tied = shared_tracks(tracks) >= min_shared
    left = set(range(len(tied)))
    parts = []
    while left:
        part, frontier = set(), {min(left)}
        while frontier:
            part |= frontier
            neighbours = {int(j) for i in frontier for j in torch.nonzero(tied[i])[:, 0]}
            frontier = neighbours - part
        parts.append(sorted(part))
        left -= part
    return sorted(parts, key=lambda part: (-len(part), part))


def survival(tracks: Tracks) -> dict[str, float]:
    """Share of the tracks [v, m] that are seen by at least 2, 3, 4, 6, 8, 12, ... views; {} without tracks."""
    length = tracks.visible.sum(0)
    length = length[length >= 2]
    steps = [n for k in range(1, 12) for n in (2**k, 3 * 2 ** (k - 1)) if n <= tracks.weight.shape[0]]
    return {str(n): float((length >= n).float().mean()) for n in sorted({*steps}) if len(length)}


def lifetimes(tracks: Tracks) -> dict[str, float]:
    """Share of the tracks [v, m] that are seen again 1, 2, 4, 8, ... frames or more after their first; views in order.

    {} without tracks.
    """
    seen = tracks.visible[:, tracks.visible.sum(0) >= 2]
    if not seen.shape[1]:
        return {}
    first, last = seen.int().argmax(0), len(seen) - 1 - seen.flip(0).int().argmax(0)
    gaps = [2**k for k in range(12) if 2**k < len(seen)]
    return {str(gap): float((last - first >= gap).float().mean()) for gap in gaps}


def check_labels(tracks: Tracks, names: Sequence[str]) -> list[str]:
    """Warnings in plain language: images that nothing ties, parts that no track connects, weakly tied images."""
    parts = connected_parts(tracks)
    lonely = [names[part[0]] for part in parts if len(part) == 1]
    groups = [part for part in parts if len(part) > 1]
    warnings = []
    if len(groups) > 1:
        sets = "; ".join(listed([names[index] for index in part]) for part in groups)
        warnings.append(
            f"the images fall into {len(groups)} parts that no track connects ({sets}): "
            "they cannot be placed relative to each other; add images between them or use one part alone"
        )
    if lonely:
        warnings.append(f"no track ties {listed(lonely)} to the other images; remove them or add images between")
    counts = shared_tracks(tracks).diagonal().tolist()
    weak = [f"{names[i]} ({counts[i]} tracks)" for part in groups for i in part if counts[i] < FEW]
    if weak:
        warnings.append(f"few tracks tie {listed(weak)}; expect uncertain cameras there")
    return warnings


def listed(names: list[str], most: int = 12) -> str:
    """Names in a row; beyond ``most`` how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
