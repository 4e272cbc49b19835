"""The one scale of a scene by which predicted points are compared with others (pi^3, MoGe)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.align import align_scale_l1
from reliev3r.geometry.sampling import spread_choice


def scene_scale(
    points: Float[Tensor, "*b v h w 3"],
    target: Float[Tensor, "*b v h w 3"],
    weight: Float[Tensor, "*b v h w"],
    limit: int,
) -> Float[Tensor, "*b"]:
    """argmin_s sum weight |s * points - target|_1 of each scene over at most ``limit`` pixels, exactly; positive.

    A negative optimum is turned round (pi^3); 1 where nothing has weight.
    """
    flat = weight.flatten(-3)
    chosen, counts = spread_choice(flat > 0, limit)
    of_points = chosen[..., None].expand(*chosen.shape, 3)
    x, y = (side.flatten(-4, -2).gather(-2, of_points).flatten(-2) for side in (points, target))
    chosen_weight = (flat.gather(-1, chosen) * counts)[..., None].expand(of_points.shape).flatten(-2)
    scale = align_scale_l1(x, y, chosen_weight).abs()
    return torch.where(scale > 0, scale, torch.ones_like(scale))
