"""Points from rays of several cameras."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import project, rays_from_uv, transform
from reliev3r.geometry.rigid import angle_between, invert


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


_TRACKS_AT_ONCE = 512  # bounds the memory of the [m, v, v] parallax


def consistent_points(
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    *,
    max_angle: float,
    min_parallax: float = 0.0,
    rounds: int = 5,
) -> tuple[Float[Tensor, "m 3"], Bool[Tensor, "v m"]]:
    """World points of the tracks and the observations that agree with them; outliers within a track are tolerated.

    Triangulation is re-weighted by Cauchy's weight of each residual angle, so that a false observation loses its say;
    then observations further than ``max_angle`` (radians, also those with the point behind the camera) are dropped.
    A track keeps either no observation or at least two that span ``min_parallax`` (radians). Points of tracks without
    kept observations are finite and meaningless. Works in float64.
    """
    centres = world_from_cam[:, :3, 3].double()
    rays = world_rays(tracks.to(torch.float64), K.double(), world_from_cam.double())
    points, kept = centres.new_zeros(tracks.weight.shape[1], 3), torch.zeros_like(tracks.visible)
    lengths = tracks.visible.sum(0)
    # A track sees few of many views: chunks of tracks of like length are packed to the views that each of them has.
    for chunk in lengths.argsort().split(_TRACKS_AT_ONCE):
        longest = int(lengths[chunk].max()) if len(chunk) else 0
        if longest < 2:
            continue
        views = tracks.visible[:, chunk].int().argsort(dim=0, descending=True)[:longest].T
        packed_rays, packed_weight = rays[views, chunk[:, None]], tracks.weight[views, chunk[:, None]].double()
        points[chunk], packed = _consistent(
            packed_rays, centres[views], packed_weight, max_angle=max_angle, min_parallax=min_parallax, rounds=rounds
        )
        kept[views, chunk[:, None]] = packed
    return points, kept


def _consistent(
    rays: Float[Tensor, "m n 3"],
    centres: Float[Tensor, "m n 3"],
    weight: Float[Tensor, "m n"],
    *,
    max_angle: float,
    min_parallax: float,
    rounds: int,
) -> tuple[Float[Tensor, "m 3"], Bool[Tensor, "m n"]]:
    """The same for tracks that are the batch, each with ``n`` observations of its own."""
    rays, weight = rays[..., None, :], weight[..., None]
    robust = weight
    for _ in range(rounds):
        angles = triangulation_angles(triangulate(rays, centres, robust), rays, centres)
        robust = weight / (1 + (angles / max_angle).square())
    kept = (weight > 0) & (angles < max_angle)
    points = triangulate(rays, centres, weight * kept)
    kept = kept & (triangulation_angles(points, rays, centres) < max_angle)
    enough = (kept.sum(-2) >= 2) & (parallax(rays, kept.double()) >= min_parallax)
    return points[:, 0], (kept & enough[..., None, :])[..., 0]


def reprojection_errors(
    points: Float[Tensor, "m 3"],
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
) -> tuple[Float[Tensor, "v m"], Bool[Tensor, "v m"]]:
    """Distance in pixels of each observation from its point's image, and whether the point is in front of the camera.

    Float64; entries of unseen tracks mean nothing, nor does the distance of a point behind the camera.
    """
    points_cam = transform(invert(world_from_cam.double()), points.double().expand(len(world_from_cam), -1, -1))
    error = (project(points_cam, K.double()) - tracks.uv.double()).norm(dim=-1)
    return error, points_cam[..., 2] > 0
