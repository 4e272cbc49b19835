"""Reprojection losses over tracks: the paper's trigonometric (angular) form, and others for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.camera import rays_from_uv, transform, unproject
from reliev3r.geometry.rigid import angle_between, invert
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_mean

Form = Literal["angle", "focal_angle", "pixel", "cosine", "point"]


@dataclass(frozen=True, kw_only=True)
class ReprojectionConfig:
    """Which residual compares view i's observation of a track with the point that view j predicts for it."""

    form: Form = "angle"
    """``angle``: the paper's, radians. ``focal_angle``: angle times focal / width, for predicted intrinsics (the plain
    angle shrinks with every longer lens). ``pixel``: image distance / focal, clipped. ``cosine``: 1 - cos(angle).
    ``point``: 3D distance / scene factor."""
    pixel_clip: float = 10.0
    """Upper bound of the ``pixel`` residual in focal lengths (points near or behind the image plane)."""


@dataclass(frozen=True, kw_only=True)
class TrackGeometry:
    """What the reprojection losses look at, at every track observation."""

    rays: Float[Tensor, "*b v m 3"]
    """Observed camera-frame rays with z = 1."""
    points_cam: Float[Tensor, "*b v m 3"]
    """Point that each view predicts for each track, in its own camera frame."""
    points_world: Float[Tensor, "*b v m 3"]


def track_geometry(prediction: Prediction, tracks: Tracks) -> TrackGeometry:
    """Look up depth and rays at the track observations (bilinear; differentiable in both)."""
    depth = sample_bilinear(prediction.depth, tracks.uv)
    xy = [sample_bilinear(prediction.rays[..., axis], tracks.uv) for axis in (0, 1)]
    rays = torch.stack([*xy, torch.ones_like(xy[0])], dim=-1)
    points_cam = rays * depth[..., None]
    return TrackGeometry(
        rays=rays, points_cam=points_cam, points_world=transform(prediction.world_from_cam, points_cam)
    )


def visible_pairs(tracks: Tracks) -> Int[Tensor, "4 n"]:
    """(batch, i, j, track) of each ordered pair i != j of views that both see a track; leading dimensions flat."""
    visible = tracks.visible.reshape(-1, *tracks.weight.shape[-2:])
    both = visible[:, :, None] & visible[:, None]
    both &= ~torch.eye(visible.shape[1], dtype=torch.bool, device=visible.device)[:, :, None]
    return both.nonzero().mT


class _SeenPairs:
    """Quantities at the pairs of :func:`visible_pairs`, in their order."""

    def __init__(self, tracks: Tracks) -> None:
        views, count = tracks.weight.shape[-2:]
        self._sample, i, j, k = visible_pairs(tracks)
        self._camera = self._sample * views + i
        self._first, self._second = self._camera * count + k, (self._sample * views + j) * count + k
        self.weight = self.first(tracks.weight) * self.second(tracks.weight)

    def first(self, x: Tensor, own: int = 0) -> Tensor:
        """Of view i's observation: [*b, v, m, ...] with ``own`` dimensions behind as [n, ...]."""
        return _rows(x, own, self._first)

    def second(self, x: Tensor, own: int = 0) -> Tensor:
        """Of view j's observation."""
        return _rows(x, own, self._second)

    def camera(self, x: Tensor, own: int = 0) -> Tensor:
        """Of view i: [*b, v, ...] as [n, ...]."""
        return _rows(x, own, self._camera)

    def sample(self, x: Tensor) -> Tensor:
        """[*b] as [n]."""
        return x.reshape(-1)[self._sample]


def _rows(x: Tensor, own: int, at: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[x.ndim - own :]).index_select(0, at)  # several times faster than x[b, i, k]


class _AllPairs:
    """The same at all pairs, seen or not, as [b, v, v, m, ...] or what broadcasts to it: how many there are depends on
    no value, so that nobody waits for the device to count them, and a compiled step needs no break."""

    def __init__(self, tracks: Tracks) -> None:
        views = tracks.weight.shape[-2]
        apart = 1 - torch.eye(views, dtype=tracks.weight.dtype, device=tracks.weight.device)[:, :, None]
        self.weight = self.first(tracks.weight) * self.second(tracks.weight) * apart

    def first(self, x: Tensor, own: int = 0) -> Tensor:
        return x.reshape(-1, *x.shape[x.ndim - own - 2 :])[:, :, None]

    def second(self, x: Tensor, own: int = 0) -> Tensor:
        return x.reshape(-1, *x.shape[x.ndim - own - 2 :])[:, None]

    def camera(self, x: Tensor, own: int = 0) -> Tensor:
        return x.reshape(-1, *x.shape[x.ndim - own - 1 :])[:, :, None, None]

    def sample(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 1, 1, 1)


def _pairs_of(tracks: Tracks) -> _SeenPairs | _AllPairs:
    """On a CPU every pair costs, and looking costs nothing; elsewhere it is the other way round."""
    by_value = tracks.weight.device.type == "cpu" and not torch.compiler.is_compiling()
    return _SeenPairs(tracks) if by_value else _AllPairs(tracks)


def reprojection_loss(
    prediction: Prediction, tracks: Tracks, config: ReprojectionConfig, geometry: TrackGeometry | None = None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Residual between view i's ray of track k and the point of view j, and its weight: on a CPU in the order of
    :func:`visible_pairs`; on other devices of all pairs, of which those that are not seen weigh 0.

    The paper's L_rgst is the weighted mean of the ``angle`` form over all ordered pairs: angle(p_ik - t_i, p_jk - t_i).
    The first direction depends on view i's rotation alone, so it is formed from the ray, never from view i's depth.
    Unreduced; finite in value and gradient for points behind the camera and zero baseline; empty or without weight
    where no two views share a track. float32. ``geometry`` saves its computation where the caller has it.
    """
    geometry = geometry or track_geometry(prediction, tracks)
    pairs = _pairs_of(tracks)
    return _residuals(prediction, tracks, config, geometry, pairs).flatten(), pairs.weight.flatten()


def _residuals(
    prediction: Prediction, tracks: Tracks, config: ReprojectionConfig, geometry: TrackGeometry,
    pairs: _SeenPairs | _AllPairs,
) -> Tensor:  # fmt: skip
    point = pairs.second(geometry.points_world, 1)
    if config.form == "point":
        distance = _length(pairs.first(geometry.points_world, 1) - point)
        return distance / pairs.sample(scene_factor(geometry.points_cam, tracks))
    pose = prediction.world_from_cam
    towards = point - pairs.camera(pose[..., :3, 3], 1)
    if config.form == "pixel":
        in_camera = torch.einsum("...ij,...i->...j", pairs.camera(pose[..., :3, :3], 2), towards)
        return _pixel_residual(pairs.first(geometry.rays, 1), in_camera, config.pixel_clip)
    angle = angle_between(pairs.first(geometry.rays @ pose[..., :3, :3].mT, 1), towards)
    if config.form == "cosine":
        return 1 - torch.cos(angle)
    if config.form == "focal_angle":
        return angle * pairs.camera(prediction.K[..., 0, 0] / prediction.depth.shape[-1])
    return angle


def scene_factor(points_cam: Float[Tensor, "*b v m 3"], tracks: Tracks) -> Float[Tensor, "*b"]:
    """Geometric mean distance of the predicted track points from their cameras: the one length that fixes the gauge.

    Not the mean: one false match with hardly any parallax lies a hundred times as far as the scene, and would set it.
    """
    weight = tracks.weight.flatten(-2)
    return weighted_mean(_length(points_cam).clamp_min(1e-8).log().flatten(-2), weight).exp()


def gauge_loss(prediction: Prediction, tracks: Tracks, geometry: TrackGeometry | None = None) -> Float[Tensor, "*b"]:
    """Squared log of the scene factor: keeps the one free scale at 1 (both main losses are blind to it).

    Without it the scale drifts (docs/method.md), and Adam's effective step shrinks with it. Falls back to the mean log
    depth where no track is seen.
    """
    geometry = geometry or track_geometry(prediction, tracks)
    seen = tracks.weight.flatten(-2).sum(-1) > 0
    # Depth alone is to obey: a predicted focal length would follow the gauge long before the tracks teach it.
    points_cam = geometry.rays.detach() * geometry.points_cam[..., 2:]
    by_tracks = scene_factor(points_cam, tracks).log()
    by_depth = prediction.depth.clamp_min(1e-8).log().mean((-3, -2, -1))
    return torch.where(seen, by_tracks, by_depth).square()


def track_depth_loss(
    geometry: TrackGeometry, tracks: Tracks
) -> tuple[Float[Tensor, "*b v m"], Float[Tensor, "*b v m"]]:
    """|log| of predicted over solved depth at each track observation, and its weight (0 where nothing was solved)."""
    if tracks.depth is None:
        return torch.zeros_like(tracks.weight), torch.zeros_like(tracks.weight)
    solved = (tracks.depth > 0) & tracks.visible
    target = torch.where(solved, tracks.depth, torch.ones_like(tracks.depth))
    return (geometry.points_cam[..., 2].clamp_min(1e-8) / target).log().abs(), tracks.weight * solved


def _length(vector: Tensor) -> Tensor:
    """Euclidean length with zero, not NaN, gradient at zero."""
    squared = vector.square().sum(-1)
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), squared)


def _pixel_residual(rays: Tensor, in_camera: Tensor, clip: float) -> Tensor:
    """Distance on the z = 1 plane, depth clipped at 1e-3 (MASt3R-SfM's guard), the residual at ``clip``."""
    image = in_camera[..., :2] / in_camera[..., 2:].clamp_min(1e-3)
    return _length(image - rays[..., :2]).clamp_max(clip)


def heldout_angles(
    prediction: Prediction, tracks: Tracks, K: Float[Tensor, "v 3 3"] | None = None
) -> Float[Tensor, " n"]:
    """Angles in degrees over all ordered pairs (i, j), i != j, of observations of each track: the training loss's own.

    At camera i: between its observed ray and the point that view j predicts for the track (depth looked up bilinearly).
    Tracks are in pixels of the prediction's grid; ``K`` gives the rays through them (default ``prediction.K``, the
    pinhole that fits the predicted rays). Weights only say what is seen. float64, [n] in no promised order.
    """
    K = (prediction.K if K is None else K).double()
    uv, world_from_cam = tracks.uv.double(), prediction.world_from_cam.double()
    depth = sample_bilinear(prediction.depth.double(), uv)
    points = transform(world_from_cam, unproject(uv, depth, K))
    rays = rays_from_uv(uv, K) @ world_from_cam[:, :3, :3].mT
    angles = []
    for i, (ray, seen) in enumerate(zip(rays, tracks.visible)):  # a loop over views keeps memory at [v, m]
        pairs = tracks.visible & seen
        pairs[i] = False
        towards = points - world_from_cam[i, :3, 3]
        angles.append(angle_between(ray.expand_as(towards), towards)[pairs])
    return torch.cat(angles).rad2deg()


def heldout_depths(prediction: Prediction, tracks: Tracks) -> Float[Tensor, " n"]:
    """How far two views disagree about a track's depth, over the ordered pairs of :func:`heldout_angles`.

    At camera i: |log| of the depth of the point that view j predicts over the depth that view i predicts for the track,
    0.05 for 5 percent; a point behind camera i counts as very near. Zero for one wrong scale that all share, so it says
    how well depth and cameras fit together, not that they are right. float64, [n].
    """
    uv, world_from_cam = tracks.uv.double(), prediction.world_from_cam.double()
    depth = sample_bilinear(prediction.depth.double(), uv)
    points = transform(world_from_cam, unproject(uv, depth, prediction.K.double()))
    differences = []
    for view, (cam_from_world, own, seen) in enumerate(zip(invert(world_from_cam), depth, tracks.visible)):
        pairs = tracks.visible & seen
        pairs[view] = False
        there = (points @ cam_from_world[2, :3] + cam_from_world[2, 3]).clamp_min(1e-6)
        differences.append((there / own).log().abs()[pairs])
    return torch.cat(differences)
