"""Pseudo cameras of whole batches at once, from tracks and label depths: the early teacher of streamed training."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import CameraLabels, PseudoLabels
from reliev3r.geometry.align import umeyama
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import rigid_from
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_mean
from reliev3r.sfm.bundle_batched import PolishConfig, Sightings, polish, seen_depth

_ROUNDS = 4
_TOLERATED = 0.1
"""Gap of two lifted points, as a share of their distance, at which a track's say has fallen to a half."""
_MIN_SAY = 6.0
"""Tracks that must agree before one view ties another."""


def with_pseudo_cameras(
    labels: PseudoLabels, K: Float[Tensor, "*b v 3 3"], config: PolishConfig | None = None
) -> PseudoLabels:
    """``labels`` with cameras and track depths: every view's tracks, lifted by its label depth, laid onto one another.

    For each pair of views the similarity between their lifted tracks (Umeyama, re-weighted against false matches and
    wrong depth), then the cameras along the spanning tree of the pairs that agree most, then a few steps of bundle
    adjustment (``config``; :func:`polish`). Without a loop over samples, unlike
    :func:`sfm.solve_cameras.solve_cameras`: made for batches that are seen once. Cameras come in the unit of
    ``CameraLabels``; views that nothing ties have weight 0, observations that the cameras contradict have depth 0.
    Pseudo-labels only, no ground truth; no gradient.
    """
    config = config or PolishConfig()
    with torch.no_grad():
        uv, weight = labels.tracks.uv, labels.tracks.weight
        depth = sample_bilinear(labels.depth.depth, uv)
        usable = (weight > 0) & (sample_bilinear(labels.depth.valid.to(depth.dtype), uv) > 0.5) & (depth > 0)
        points = rays_from_uv(uv, K) * torch.where(usable, depth, 1.0)[..., None]
        scale, rotation, translation, say = _pairs(points, usable)
        world, reached = along_tree(scale, rotation, translation, say)
        factor = torch.det(world[..., :3, :3]).clamp_min(1e-12).pow(1 / 3)
        cameras = rigid_from(world[..., :3, :3] / factor[..., None, None], world[..., :3, 3])
        solved = usable & reached[..., None]
        track_depth = factor[..., None] * points[..., 2]
        if config.steps > 0:
            cameras, track_depth, solved = _polished(cameras, factor, points, solved, K, config)
        return _labelled(labels, cameras, reached, track_depth, solved, K)


def _polished(
    cameras: Tensor, factor: Tensor, points: Tensor, solved: Tensor, K: Tensor, config: PolishConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Cameras, z-depth of the tracks' points and whether the observation agrees with them."""
    batch, (views, count) = solved.shape[:-2], solved.shape[-2:]
    several = solved & (solved.sum(-2, keepdim=True) > 1)
    sightings = Sightings(
        points=points.reshape(-1, views, count, 3), seen=several.reshape(-1, views, count),
        angle=config.pixel / K[..., 0, 0].reshape(-1, views), depth=config.depth,
    )  # fmt: skip
    cameras, _, tracks = polish(cameras.reshape(-1, views, 4, 4), factor.reshape(-1, views), sightings, config.steps)
    z, agrees = seen_depth(cameras, tracks, sightings)
    return cameras.view(*batch, views, 4, 4), z.view(*batch, views, count), agrees.view(*batch, views, count)


def _pairs(points: Float[Tensor, "*b v m 3"], usable: Bool[Tensor, "*b v m"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(s, R, t) with X_i = s R X_j + t for all [i, j], and how many tracks agree with it."""
    shape = (*points.shape[:-3], points.shape[-3], *points.shape[-3:])
    target, source = points[..., :, None, :, :].expand(shape), points[..., None, :, :, :].expand(shape)
    both = (usable[..., :, None, :] & usable[..., None, :, :]).to(points.dtype)
    return lifted_motion(target, source, both)


def lifted_motion(
    target: Float[Tensor, "*b n 3"], source: Float[Tensor, "*b n 3"], weight: Float[Tensor, "*b n"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(s, R, t) with target = s R source + t, and how many of the lifted points agree with it: Umeyama, re-weighted
    against false matches and wrong depth."""
    far = target.square().sum(-1).clamp_min(1e-12)
    say = torch.ones_like(weight)
    for _ in range(_ROUNDS):
        scale, rotation, translation = umeyama(source, target, weight * say / far)
        laid = scale[..., None, None] * source @ rotation.mT + translation[..., None, :]
        say = 1 / (1 + (laid - target).square().sum(-1) / (far * _TOLERATED**2))
    return scale, rotation, translation, (weight * say).sum(-1)


def along_tree(
    scale: Tensor, rotation: Tensor, translation: Tensor, say: Float[Tensor, "*b v v"]
) -> tuple[Float[Tensor, "*b v 4 4"], Bool[Tensor, "*b v"]]:
    """Similarities world_from_view (their 3x3 part is s R), grown from the best tied view; and the views reached."""
    batch, views = say.shape[:-2], say.shape[-1]
    pair = rigid_from(scale[..., None, None] * rotation, translation).reshape(-1, views, views, 4, 4)
    say = torch.minimum(say, say.mT).reshape(-1, views, views)
    say = say * (1 - torch.eye(views, device=say.device, dtype=say.dtype))
    rows = torch.arange(len(say), device=say.device)
    reached = torch.zeros(len(say), views, dtype=torch.bool, device=say.device)
    reached[rows, say.sum(-1).argmax(-1)] = True
    world = torch.eye(4, device=say.device, dtype=pair.dtype).expand(len(say), views, 4, 4).clone()
    for _ in range(views - 1):
        open_edges = torch.where(reached[:, :, None] & ~reached[:, None, :], say, torch.zeros_like(say))
        best, edge = open_edges.flatten(1).max(-1)
        i, j = edge // views, edge % views
        grown = world[rows, i] @ pair[rows, i, j]
        tied = best >= _MIN_SAY
        world[rows, j] = torch.where(tied[:, None, None], grown, world[rows, j])
        reached[rows, j] = reached[rows, j] | tied
    return world.view(*batch, views, 4, 4), reached.view(*batch, views)


def _labelled(
    labels: PseudoLabels, cameras: Tensor, reached: Tensor, depth: Tensor, solved: Tensor, K: Tensor
) -> PseudoLabels:
    """Views that are tied to no other have no say."""
    alone = reached.sum(-1, keepdim=True) < 2
    found = dataclasses.replace(
        labels,
        tracks=dataclasses.replace(labels.tracks, depth=torch.where(solved, depth, 0.0)),
        cameras=CameraLabels(world_from_cam=cameras, weight=(reached & ~alone).to(depth.dtype)),
    )
    return in_unit_of_tracks(found, K)


def in_unit_of_tracks(labels: PseudoLabels, K: Float[Tensor, "*b v 3 3"]) -> PseudoLabels:
    """``labels`` whose pseudo cameras and track depths are in the unit that :class:`CameraLabels` promises, that of the
    tracks they have *now*: for a sample of a capture's views and tracks, cropped, it is another than the capture's.

    Without it the gauge and the cameras ask for two different sizes of the same scene.
    """
    tracks, cameras = labels.tracks, labels.cameras
    if cameras is None or tracks.depth is None:
        return labels
    say = (tracks.weight * (tracks.depth > 0) * cameras.weight[..., None]).flatten(-2)
    distance = (tracks.depth * rays_from_uv(tracks.uv, K).norm(dim=-1)).clamp_min(1e-9)
    unit = weighted_mean(distance.log().flatten(-2), say).exp()  # 1 where nothing was solved
    pose = cameras.world_from_cam
    return dataclasses.replace(
        labels,
        tracks=dataclasses.replace(tracks, depth=tracks.depth / unit[..., None, None]),
        cameras=dataclasses.replace(
            cameras, world_from_cam=rigid_from(pose[..., :3, :3], pose[..., :3, 3] / unit[..., None, None])
        ),
    )
