"""What the tracks say about a capture before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from reliev3r.types import Tracks

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


def check_labels(tracks: Tracks, names: Sequence[str]) -> list[str]:
    """Warnings in plain language: images that nothing ties, parts that no track connects, weakly tied images."""
    parts = connected_parts(tracks)
    lonely = [names[part[0]] for part in parts if len(part) == 1]
    groups = [part for part in parts if len(part) > 1]
    warnings = []
    if len(groups) > 1:
        listed = "; ".join(_listed([names[index] for index in part]) for part in groups)
        warnings.append(
            f"the images fall into {len(groups)} parts that no track connects ({listed}): "
            "they cannot be placed relative to each other; add images between them or use one part alone"
        )
    if lonely:
        warnings.append(f"no track ties {_listed(lonely)} to the other images; remove them or add images between")
    counts = shared_tracks(tracks).diagonal().tolist()
    weak = [f"{names[i]} ({counts[i]} tracks)" for part in groups for i in part if counts[i] < FEW]
    if weak:
        warnings.append(f"few tracks tie {_listed(weak)}; expect uncertain cameras there")
    return warnings


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
