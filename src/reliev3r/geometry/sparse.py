"""Sparse points from tracks and cameras: robust triangulation and its errors in pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.geometry.camera import project, transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.triangulate import parallax, triangulate, triangulation_angles, world_rays
from reliev3r.types import Tracks

_PAIRS_AT_ONCE = 4_000_000  # bounds the memory of the [v, v, m] parallax to about 200 MB


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
    all_rays = world_rays(tracks.to(torch.float64), K.double(), world_from_cam.double())
    step = max(1, _PAIRS_AT_ONCE // max(1, centres.shape[0] ** 2))
    points, kept = [], []
    for start in range(0, all_rays.shape[1], step):
        rays = all_rays[:, start : start + step]
        weight = tracks.weight[:, start : start + step].double()
        some_points, some_kept = _consistent(rays, centres, weight, max_angle=max_angle, rounds=rounds)
        enough = (some_kept.sum(0) >= 2) & (parallax(rays, some_kept.double()) >= min_parallax)
        points.append(some_points)
        kept.append(some_kept & enough)
    if not points:
        return centres.new_zeros(0, 3), torch.zeros_like(tracks.visible)
    return torch.cat(points), torch.cat(kept, dim=1)


def _consistent(
    rays: Tensor, centres: Tensor, weight: Tensor, *, max_angle: float, rounds: int
) -> tuple[Tensor, Tensor]:
    robust = weight
    for _ in range(rounds):
        angles = triangulation_angles(triangulate(rays, centres, robust), rays, centres)
        robust = weight / (1 + (angles / max_angle).square())
    kept = (weight > 0) & (angles < max_angle)
    points = triangulate(rays, centres, weight * kept)
    return points, kept & (triangulation_angles(points, rays, centres) < max_angle)


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
