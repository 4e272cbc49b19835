"""Sparse points from tracks and cameras: robust triangulation and its errors in pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.geometry.camera import project, transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.triangulate import parallax, triangulate, triangulation_angles, world_rays
from reliev3r.types import Tracks

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
