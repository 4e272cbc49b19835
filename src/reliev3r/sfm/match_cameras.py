"""Cameras of whole batches, solved from dense matches and predicted depth: the forward pass of a solving network.

Two starts - the similarity of lifted points, and the epipolar geometry of bearings - go along the spanning tree of the
pairs that agree most and through the same bundle adjustment; the end of lower cost is kept, and adjusted once more at
the scale that its own matches turn out to be good for. No loop over samples, no host sync, no gradient.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import angle_between, rigid_from
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_median
from reliev3r.sfm.batched import along_tree, lifted_motion
from reliev3r.sfm.bundle_batched import Sightings, polish, polish_cost
from reliev3r.sfm.pair_motion import epipolar_motion

_THIN = 256
"""Matches of a pair that the epipolar start looks at."""


@dataclass(frozen=True, kw_only=True)
class MatchSolveConfig:
    """Lengths in the image are shares of its width."""

    angle: float = 0.25 / 64
    """Scale of the Cauchy loss of the angles, as that of a centred pixel distance."""
    depth: float = 1.0
    """Scale of the log of predicted depth: a loose hint, for it may be a third off."""
    steps: int = 20
    sharpen: int = 10
    """Steps at the scale of the matches' own residuals, with depth eight times as loose; 0: none."""
    epipolar: bool = True
    """The second start, which does not need depth."""


@dataclass(frozen=True, kw_only=True)
class MatchSolve:
    """Cameras and points that explain dense matches."""

    world_from_cam: Float[Tensor, "b v 4 4"]
    """In the unit of the depth, on average over the views."""
    reached: Bool[Tensor, "b v"]
    """Whether enough matches tie the view to the others; those of the others mean nothing."""
    factor: Float[Tensor, "b v"]
    """By which each view's depth is to be multiplied."""
    points: Float[Tensor, "b m 3"]
    sightings: Sightings


def cameras_from_matches(
    depth: Float[Tensor, "b v h w"],
    K: Float[Tensor, "b v 3 3"],
    tracks: Tracks,
    config: MatchSolveConfig | None = None,
) -> MatchSolve:
    """Solve cameras, a factor of each view's depth, and the matches' points.

    Args:
        depth: predicted z-depth, at the size of the images.
        K: their intrinsics.
        tracks: as :func:`sfm.dense_matches.mutual_matches` gives them: the same number for each view, in its order.
        config: see there.
    """
    config = config or MatchSolveConfig()
    with torch.no_grad():
        usable = tracks.weight > 0
        usable = usable & (usable.sum(-2, keepdim=True) > 1)
        z = sample_bilinear(depth, tracks.uv)
        points = rays_from_uv(tracks.uv, K) * z[..., None]
        scale = config.angle * depth.shape[-1] / K[..., 0, 0]  # b v, radians
        starts = [_tree(_lifted(points, usable))]
        if config.epipolar:
            starts.append(_tree(_epipolar(points, usable, scale)))
        return _best_end(starts, points, usable, scale, config)


def _best_end(
    starts: list[tuple[Tensor, Tensor, Tensor]], points: Tensor, usable: Tensor, scale: Tensor, config: MatchSolveConfig
) -> MatchSolve:
    """All starts through the same adjustment, as one batch; of each sample the cheapest."""
    count, samples = len(starts), len(points)
    cameras, factor, reached = (torch.cat(part) for part in zip(*starts, strict=True))

    def many(x: Tensor) -> Tensor:
        return x.repeat(count, *[1] * (x.ndim - 1))

    seen = many(usable) & reached[..., None]
    seen = seen & (seen.sum(-2, keepdim=True) > 1)
    sightings = Sightings(points=many(points), seen=seen, angle=many(scale), depth=config.depth)
    cameras, factor, tracks = polish(cameras, factor, sightings, config.steps)
    # A start that ties fewer views would be cheap: each view that it lacks costs more than any that it has.
    missing = (reached.sum(-1).view(count, samples).amax(0).repeat(count) - reached.sum(-1)) * 1e6
    cost = (polish_cost(cameras, factor, tracks, sightings) + missing).nan_to_num(1e12)
    best = cost.view(count, samples).argmin(0) * samples + torch.arange(samples, device=cost.device)
    cameras, factor, tracks, reached, seen = (x[best] for x in (cameras, factor, tracks, reached, seen))
    sightings = dataclasses.replace(sightings, points=points, seen=seen, angle=scale)
    if config.sharpen > 0:
        own = torch.minimum(scale, _residual_scale(cameras, tracks, sightings))
        sightings = dataclasses.replace(sightings, angle=own, depth=8 * config.depth)
        cameras, factor, tracks = polish(cameras, factor, sightings, config.sharpen)
    unit = _mean_log(factor, reached).exp()
    return MatchSolve(
        world_from_cam=rigid_from(cameras[..., :3, :3], cameras[..., :3, 3] / unit[..., None, None]),
        reached=reached & (reached.sum(-1, keepdim=True) > 1), factor=factor / unit[..., None],
        points=tracks / unit[..., None, None], sightings=sightings,
    )  # fmt: skip


def _residual_scale(cameras: Tensor, points: Tensor, sightings: Sightings) -> Float[Tensor, "b v"]:
    """1.5 times the median angle of each view's sightings that agree at all, at least a twentieth of the scale."""
    p = (points[:, None] - cameras[..., None, :3, 3]) @ cameras[..., :3, :3]
    apart = angle_between(p, sightings.points)
    agrees = sightings.seen & (apart < 4 * sightings.angle[..., None])
    return torch.maximum(1.5 * weighted_median(apart, agrees.to(apart.dtype)), 0.05 * sightings.angle)


def _mean_log(factor: Tensor, reached: Tensor) -> Float[Tensor, " b"]:
    return (factor.log() * reached).sum(-1) / reached.sum(-1).clamp_min(1)


PairMotion = tuple[Tensor, Tensor, Tensor, Tensor]
"""Scale, rotation, translation and say of every ordered pair [b v v ...]."""


def _lifted(points: Tensor, usable: Tensor) -> PairMotion:
    first, second = _pair_index(usable.shape[1], points.device)
    target, both = _of_pairs(points, usable, first, second)
    source, _ = _of_pairs(points, usable, second, first)
    return _both_ways(lifted_motion(target, source, both.to(points.dtype)), first, second, usable.shape[1])


def _epipolar(points: Tensor, usable: Tensor, scale: Tensor) -> PairMotion:
    first, second = _pair_index(usable.shape[1], points.device)
    a, both = _of_pairs(points, usable, first, second)
    b, _ = _of_pairs(points, usable, second, first)
    step = max(1, a.shape[-2] // _THIN)
    a, b, both = (x[:, :, ::step] for x in (a, b, both))
    motion = epipolar_motion(
        F.normalize(a, dim=-1), F.normalize(b, dim=-1), (a[..., 2], b[..., 2]), both.to(a.dtype),
        4 * 0.5 * (scale[:, first] + scale[:, second]),
    )  # fmt: skip
    motion = (*motion[:3], step * motion[3])
    return _both_ways(motion, first, second, usable.shape[1])


def _pair_index(views: int, device: torch.device) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    index = torch.triu_indices(views, views, 1, device=device)
    return index[0], index[1]


def _of_pairs(points: Tensor, usable: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """What views ``own`` measure of the queries of either view of a pair, always the first view's queries before the
    second's, and whether both views see them: [b p 2k 3], [b p 2k]."""
    views = usable.shape[1]
    by_source = points.unflatten(-2, (views, -1))  # b, seen in, source, k, 3
    seen = usable.unflatten(-1, (views, -1))
    low, high = torch.minimum(own, other), torch.maximum(own, other)
    measured = torch.cat([by_source[:, own, low], by_source[:, own, high]], dim=-2)
    both = torch.cat([seen[:, own, low] & seen[:, other, low], seen[:, own, high] & seen[:, other, high]], dim=-1)
    return measured, both


def _both_ways(motion: PairMotion, first: Tensor, second: Tensor, views: int) -> PairMotion:
    """Motions of the pairs first < second, and their inverses."""
    scale, rotation, translation, say = motion
    samples = len(scale)
    scales = scale.new_ones(samples, views, views)
    rotations = torch.eye(3, dtype=scale.dtype, device=scale.device).expand(samples, views, views, 3, 3).clone()
    translations = scale.new_zeros(samples, views, views, 3)
    says = scale.new_zeros(samples, views, views)
    scales[:, first, second], rotations[:, first, second] = scale, rotation
    translations[:, first, second], says[:, first, second] = translation, say
    scales[:, second, first], rotations[:, second, first] = 1 / scale, rotation.mT
    translations[:, second, first] = -(rotation.mT @ translation[..., None])[..., 0] / scale[..., None]
    says[:, second, first] = say
    return scales, rotations, translations, says


def _tree(motion: PairMotion) -> tuple[Tensor, Tensor, Tensor]:
    """(cameras, factors, reached views) along the spanning tree."""
    world, reached = along_tree(*motion)
    factor = torch.det(world[..., :3, :3]).clamp_min(1e-12).pow(1 / 3)
    return rigid_from(world[..., :3, :3] / factor[..., None, None], world[..., :3, 3]), factor, reached


def bent_depth(
    depth: Float[Tensor, "b v h w"], solve: MatchSolve, tracks: Tracks, *, reach: float = 5 / 64, prior: float = 2.0
) -> Float[Tensor, "b v h w"]:
    """Depth in the unit of the solved cameras, bent by a smooth factor towards the depths of the solved points.

    A kernel regression of the log ratio over image position on a coarse grid: standard deviation ``reach`` image
    widths, shrunk to each view's own factor with the weight of ``prior`` observations.
    """
    height, width = depth.shape[-2:]
    p = (solve.points[:, None] - solve.world_from_cam[..., None, :3, 3]) @ solve.world_from_cam[..., :3, :3]
    own = solve.sightings.points
    z, apart = p[..., 2], angle_between(p, own) / solve.sightings.angle[..., None]
    say = (solve.sightings.seen & (z > 1e-4)) / (1 + apart.square())
    gap = (z.clamp_min(1e-4) / (solve.factor[..., None] * own[..., 2])).log().clamp(-1.5, 1.5)
    columns = 24
    rows = max(2, round(columns * height / width))
    y = (torch.arange(rows, device=depth.device) + 0.5) * height / rows
    x = (torch.arange(columns, device=depth.device) + 0.5) * width / columns
    far_y = (y[:, None] - tracks.uv[..., None, :, 1]).square()  # b v rows m
    far_x = (x[:, None] - tracks.uv[..., None, :, 0]).square()
    spread = 2 * (reach * width) ** 2
    near_y, near_x = (-far_y / spread).exp(), (-far_x / spread).exp()  # a Gaussian is the product of its axes
    weight = near_y @ (near_x * say[..., None, :]).mT
    field = near_y @ (near_x * (say * gap)[..., None, :]).mT / (weight + prior)
    field = F.interpolate(field, size=(height, width), mode="bilinear", align_corners=False)
    return depth * solve.factor[..., None, None] * field.exp()
