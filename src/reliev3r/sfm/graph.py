"""TODO."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.types import Tracks


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


def connected_views(seen: Bool[Tensor, "v m"]) -> Int[Tensor, " v"]:
    """Number of the connected part of the track graph that each view lies in; -1 for views that see no track."""
    linked = (seen.double() @ seen.double().T) > 0
    parts = torch.where(seen.any(1), torch.arange(len(seen)), torch.full((len(seen),), -1))
    for _ in range(len(seen)):  # spread the smallest number; a chain of v views needs v - 1 steps
        reach = torch.where(linked, parts[None, :], torch.full_like(linked, len(seen), dtype=parts.dtype))
        spread = torch.where(parts >= 0, torch.minimum(reach.amin(1), parts), parts)
        if torch.equal(spread, parts):
            break
        parts = spread
    return parts
