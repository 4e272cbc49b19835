"""Points from rays of several cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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


_TRACKS_AT_ONCE, _PAIRS_AT_ONCE = 512, 2**20  # bound the memory of the [m, v, v] parallax


def packed_tracks(
    visible: Bool[Tensor, "v m"],
) -> Iterator[tuple[Int[Tensor, " t"], Int[Tensor, "t n"], Bool[Tensor, "t n"]]]:
    """Tracks of two views or more, some of like length at a time: (tracks, their views, which of these are theirs).

    A track sees few of many views: work on what each of them sees grows with the observations, not with ``v * m``.
    """
    lengths = visible.sum(0)
    order = lengths.argsort(stable=True)
    several = order[lengths[order] >= 2]
    begin = 0
    while begin < len(several):
        longest = int(lengths[several[min(begin + _TRACKS_AT_ONCE, len(several)) - 1]])
        tracks = several[begin : begin + max(1, min(_TRACKS_AT_ONCE, _PAIRS_AT_ONCE // longest**2))]
        begin += len(tracks)
        count = lengths[tracks]
        _, view = visible[:, tracks].T.nonzero(as_tuple=True)
        theirs = torch.arange(int(count.max()), device=visible.device) < count[:, None]
        views = torch.zeros_like(theirs, dtype=torch.long)
        views[theirs] = view  # both are sorted by track
        yield tracks, views, theirs


@dataclass(frozen=True, kw_only=True)
class AgreeingPoints:
    """Points of tracks under cameras, and who agrees with them."""

    points: Float[Tensor, "m 3"]
    """Finite; without meaning where fewer than two observations agree."""
    inlier: Bool[Tensor, "v m"]
    """Of each track none or at least two."""
    parallax: Float[Tensor, " m"]
    """Largest angle in radians between two rays that agree; 0 where none do."""


def agreeing_points(
    tracks: Tracks, K: Float[Tensor, "v 3 3"], world_from_cam: Float[Tensor, "v 4 4"], *, max_angle: float
) -> AgreeingPoints:
    """Triangulate every track [v, m]; false observations lose their say as the scale tightens to ``max_angle`` radians.

    From 16 times that angle on, so that a start with wrong observations finds its way. Works in float64.
    """
    weight, K, world_from_cam = tracks.weight.double(), K.double(), world_from_cam.double()
    found = AgreeingPoints(
        points=weight.new_zeros(weight.shape[1], 3), inlier=torch.zeros_like(tracks.visible),
        parallax=weight.new_zeros(weight.shape[1]),
    )  # fmt: skip
    for chunk, views, theirs in packed_tracks(tracks.visible):
        own = (weight[views, chunk[:, None]] * theirs)[..., None]
        rays, centres = _packed_rays(tracks, K, world_from_cam, chunk, views), world_from_cam[views, :3, 3]
        points = triangulate(rays, centres, own)
        for factor in (16.0, 4.0, 1.0, 0.5):
            angles = triangulation_angles(points, rays, centres) / (factor * max_angle)
            points = triangulate(rays, centres, own / (1 + angles.square()).square(), iterations=2)
        agree = (own > 0) & (triangulation_angles(points, rays, centres) < max_angle)
        agree = agree & (agree.sum(-2, keepdim=True) >= 2)
        found.points[chunk] = points[:, 0]
        found.parallax[chunk] = parallax(rays, agree.double())[:, 0]
        found.inlier[views[theirs], chunk[:, None].expand_as(views)[theirs]] = agree[..., 0][theirs]
    return found


def _packed_rays(tracks: Tracks, K: Tensor, world_from_cam: Tensor, chunk: Tensor, views: Tensor) -> Tensor:
    """World rays [t, n, 1, 3] of packed observations, float64."""
    rays = rays_from_uv(tracks.uv[views, chunk[:, None], None].double(), K[views])
    return torch.nn.functional.normalize(rays @ world_from_cam[views, :3, :3].mT, dim=-1)


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
    K, world_from_cam, weight = K.double(), world_from_cam.double(), tracks.weight.double()
    points, kept = weight.new_zeros(weight.shape[1], 3), torch.zeros_like(tracks.visible)
    for chunk, views, theirs in packed_tracks(tracks.visible):
        rays = _packed_rays(tracks, K, world_from_cam, chunk, views)
        own = weight[views, chunk[:, None]] * theirs
        points[chunk], packed = _consistent(
            rays, world_from_cam[views, :3, 3], own, max_angle=max_angle, min_parallax=min_parallax, rounds=rounds
        )
        kept[views[theirs], chunk[:, None].expand_as(views)[theirs]] = packed[theirs]
    return points, kept


def _consistent(
    rays: Float[Tensor, "m n 1 3"],
    centres: Float[Tensor, "m n 3"],
    weight: Float[Tensor, "m n"],
    *,
    max_angle: float,
    min_parallax: float,
    rounds: int,
) -> tuple[Float[Tensor, "m 3"], Bool[Tensor, "m n"]]:
    """The same for tracks that are the batch, each with ``n`` observations of its own."""
    weight = weight[..., None]
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
