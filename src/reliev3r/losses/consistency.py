"""How far the views of a prediction contradict each other: what confidence can hear of beside the labels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.camera import project, transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import inside, sample_bilinear

WORST = 0.3
"""Disagreement at which a pixel counts as hidden from the other view, or as wrong altogether: no more is worse."""
MOST_PARTNERS = 4
"""Other views that each view is compared with."""


@torch.no_grad()
def view_gaps(prediction: Prediction, tracks: Tracks) -> Float[Tensor, "*b v h w"]:
    """|log| of the depth that a view's point has in another view over the depth that this other view predicts there.

    In [0, 0.3] (``WORST``), the mean over at most four other views (:func:`partners`) that the point falls into. A
    pixel that none of them sees counts as the average one of its sample. 0 where all agree and nothing is hidden;
    without gradient; blind to a similarity of the prediction.
    """
    height, width = prediction.depth.shape[-2:]
    chosen, tied = partners(tracks)
    points, K, depth = prediction.points_world.flatten(-3, -2), prediction.K, prediction.depth
    total, count = torch.zeros_like(points[..., 0]), torch.zeros_like(points[..., 0])
    for other in chosen.unbind(-1):
        local = transform(invert(_of(prediction.world_from_cam, other)), points)
        uv = project(local, _of(K, other))
        seen = inside(uv, height, width) & (local[..., 2] > 0) & tied[..., None]
        there = sample_bilinear(_of(depth, other), torch.where(seen[..., None], uv, 0.0))
        gap = (local[..., 2].clamp_min(1e-8) / there.clamp_min(1e-8)).log().abs().clamp_max(WORST)
        total, count = total + torch.where(seen, gap, 0.0), count + seen
    everywhere = (-2, -1)
    average = total.sum(everywhere, keepdim=True) / count.sum(everywhere, keepdim=True).clamp_min(1)
    return torch.where(count > 0, total / count.clamp_min(1), average).unflatten(-1, (height, width))


def partners(tracks: Tracks) -> tuple[Int[Tensor, "*b v p"], Bool[Tensor, "*b v"]]:
    """For each view the others that it is compared with, and whether there are any: of those that share tracks with it,
    spread evenly from the most to the least (near ones see the same points, far ones see them from elsewhere)."""
    seen = tracks.visible.to(torch.float32)
    views = seen.shape[-2]
    shared = (seen @ seen.mT).masked_fill(torch.eye(views, dtype=torch.bool, device=seen.device), -1)
    by_ties = shared.argsort(dim=-1, descending=True, stable=True)
    tied = (shared > 0).sum(-1, keepdim=True)
    count = max(min(MOST_PARTNERS, views - 1), 1)
    steps = torch.linspace(0, 1, count, device=seen.device) if count > 1 else seen.new_zeros(1)
    rank = (steps * (tied - 1).clamp_min(0)).round().long()
    return by_ties.gather(-1, rank), tied[..., 0] > 0


def _of(values: Tensor, view: Int[Tensor, "*b v"]) -> Tensor:
    """``values`` [*b, v, ...] of the view that each view is compared with."""
    index = view.reshape(*view.shape, *(1,) * (values.ndim - view.ndim)).expand(*view.shape, *values.shape[view.ndim :])
    return values.gather(view.ndim - 1, index)
