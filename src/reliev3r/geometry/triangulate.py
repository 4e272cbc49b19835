"""Points from rays of several cameras."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import angle_between
from reliev3r.types import Tracks


def world_rays(
    tracks: Tracks, K: Float[Tensor, "*b v 3 3"], world_from_cam: Float[Tensor, "*b v 4 4"]
) -> Float[Tensor, "*b v m 3"]:
    """Unit directions, in the world frame, in which each view sees each track."""
    rays = rays_from_uv(tracks.uv, K) @ world_from_cam[..., :3, :3].mT
    return torch.nn.functional.normalize(rays, dim=-1)


def triangulate(
    rays: Float[Tensor, "*b v m 3"],
    centres: Float[Tensor, "*b v 3"],
    weight: Float[Tensor, "*b v m"],
    *,
    iterations: int = 3,
) -> Float[Tensor, "*b m 3"]:
    """The point of each track nearest to its rays, re-weighted by 1/distance^2 so that angles count, not lengths.

    ``rays`` are unit vectors in the world frame. Tracks seen by fewer than two views, or without parallax, give a
    finite but meaningless point (a small damping towards the mean camera centre): judge a point by its angles.
    Computed in float64: in float32, parallel rays give systems that are exactly singular.
    """
    dtype = rays.dtype
    rays, centres, weight = torch.nn.functional.normalize(rays.double(), dim=-1), centres.double(), weight.double()
    identity = torch.eye(3, dtype=rays.dtype, device=rays.device)
    projector = identity - rays[..., :, None] * rays[..., None, :]
    anchor = centres.mean(-2)[..., None, :]
    inverse_square = torch.ones_like(weight)
    points = anchor.expand(*rays.shape[:-3], rays.shape[-2], 3)
    for _ in range(iterations):
        w = (weight * inverse_square)[..., None, None] * projector
        normal = w.sum(-4)
        right = (w @ centres[..., :, None, :, None]).sum(-4)
        damping = 1e-9 * normal.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] + 1e-20
        normal = normal + damping * identity
        points = torch.linalg.solve(normal, right + damping * anchor[..., None])[..., 0]
        squared = (points[..., None, :, :] - centres[..., :, None, :]).square().sum(-1)
        inverse_square = 1 / squared.clamp_min(1e-12)
    return points.to(dtype)


def triangulation_angles(
    points: Float[Tensor, "*b m 3"], rays: Float[Tensor, "*b v m 3"], centres: Float[Tensor, "*b v 3"]
) -> Float[Tensor, "*b v m"]:
    """Angle in radians at each camera between the observed ray and the direction of the point (behind: over pi/2)."""
    return angle_between(rays, points[..., None, :, :] - centres[..., :, None, :])


def parallax(rays: Float[Tensor, "*b v m 3"], weight: Float[Tensor, "*b v m"]) -> Float[Tensor, "*b m"]:
    """Largest angle in radians between any two rays (world frame) of each track; 0 with fewer than two views."""
    angles = angle_between(rays[..., :, None, :, :], rays[..., None, :, :, :])
    seen = weight > 0
    both = seen[..., :, None, :] & seen[..., None, :, :]
    both = both & ~torch.eye(rays.shape[-3], dtype=torch.bool, device=rays.device)[:, :, None]
    return torch.where(both, angles, torch.zeros_like(angles)).flatten(-3, -2).amax(-2)
