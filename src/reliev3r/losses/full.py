"""Full supervision: pi^3's losses against ground truth, for the sibling (pi^3-dagger) of weak training.

The one loss of the project that reads ground truth (``FullLabels``); what weak training reads carries none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.types import FullLabels, Loss, Prediction
from reliev3r.geometry.align import align_scale_l1
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import angle_between, rigid_from
from reliev3r.geometry.sampling import depth_edges, spread_choice
from reliev3r.geometry.statistics import weighted_mean
from reliev3r.losses.cameras import focal_loss, relative_pose_gap
from reliev3r.losses.matching import CorrespondenceConfig, correspondence_loss, match_loss

DEGREE = math.pi / 180


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """pi^3's sum of losses with its weights (its training branch: models/loss.py), and what may be added to it."""

    points_weight: float = 1.0
    """Camera-frame points, L1 over depth, with one scale a scene."""
    normals_weight: float = 1.0
    """Surface normals; 0 for captures whose depth is noisy."""
    translation_weight: float = 10.0
    rotation_weight: float = 0.1
    huber: float = 0.1
    """Knee of the translation loss, in units of the scene's mean distance."""
    solver_points: int = 4096
    """Pixels a scene from which the scale is solved."""
    confidence_weight: float = 1.0
    """W error - alpha log W, the form of Eq. 4, on the error that the points have: the siblings' confidences mean the
    same. The error is detached so that the network cannot lower the loss by doubting ground truth. (pi^3 trains its
    confidence alone, afterwards.)"""
    alpha: float = 0.04
    """As in Eq. 4: pixels worse than alpha / 2 are doubted; here 2 %, the error that pi^3's confidence calls wrong."""
    fov_weight: float = 0.0
    """|log f / f*|, for networks that predict the focal length."""
    correspondence_weight: float = 0.0
    """InfoNCE over tracks; needs a network with ``match_dim``."""
    correspondence: CorrespondenceConfig = field(default_factory=CorrespondenceConfig)
    match_weight: float = 0.5
    """InfoNCE over all cells, of networks that solve their cameras. Truth teaches them depth alone: translation and
    rotation are consequences, and are not compared."""
    match_tracks: int = 128


def supervised(prediction: Prediction, labels: FullLabels, config: SupervisedConfig) -> Loss:
    """Full supervision of a prediction by ground truth in any unit and any world frame.

    Blind to one similarity of the truth and one of the prediction in each scene. All terms but ``confidence`` and
    ``correspondence`` are 0 at the truth. Each is a mean over a scene, then over scenes; a scene without anything to
    compare contributes 0 (without a valid pixel it has no unit, and only its rotations are compared). Terms whose
    weight is 0 are not computed. Runs in float32 (float64 stays) outside autocast.
    """
    with torch.autocast(prediction.depth.device.type, enabled=False):
        if prediction.depth.dtype != torch.float64:
            prediction = prediction.to(torch.float32)
        scene = _in_one_unit(prediction, labels, config.solver_points)
        weights = {
            "points": config.points_weight, "confidence": config.confidence_weight, "normals": config.normals_weight,
            "translation": config.translation_weight, "rotation": config.rotation_weight, "fov": config.fov_weight,
            "correspondence": config.correspondence_weight, "match": config.match_weight,
        }  # fmt: skip
        parts: dict[str, Tensor] = {}
        if config.points_weight > 0 or config.confidence_weight > 0:
            error = scene.weight * (scene.points - scene.target).abs().mean(-1)
            parts["points"] = _mean(error, scene.valid, 3)
            if config.confidence_weight > 0:
                doubt = prediction.conf * error.detach() - config.alpha * prediction.conf.log()
                parts["confidence"] = _mean(doubt, scene.valid, 3)
        if config.normals_weight > 0:
            values, known = normal_loss(scene.points, scene.target, scene.smooth)
            parts["normals"] = _mean(values, known, 4) / max(scene.valid.shape[-2:])
        if prediction.has_cameras and (config.translation_weight > 0 or config.rotation_weight > 0):
            rotation, gap = relative_pose_gap(scene.cameras, scene.target_cameras)
            pair = ~torch.eye(rotation.shape[-1], dtype=torch.bool, device=rotation.device).expand(rotation.shape)
            huber = F.huber_loss(gap, torch.zeros_like(gap), reduction="none", delta=config.huber).mean(-1)
            parts["translation"] = _mean(huber, pair & scene.known[..., None, None], 2)
            parts["rotation"] = _mean(rotation, pair, 2)
        if config.fov_weight > 0:
            parts["fov"] = focal_loss(prediction, labels.truth.K.to(prediction.depth.dtype)).mean()
        if config.correspondence_weight > 0:
            values, weight = correspondence_loss(prediction, labels.tracks, config.correspondence)
            parts["correspondence"] = _mean(values, weight, 3)
        if config.match_weight > 0 and prediction.features is not None:
            values, weight = match_loss(prediction, labels.tracks, config.match_tracks)
            parts["match"] = _mean(values, weight, 3)
        total = sum((weights[name] * part for name, part in parts.items()), prediction.depth.new_zeros(()))
        return Loss(total=total, parts=parts)


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """Prediction and truth in one unit: that in which the true points' mean distance from their cameras is 1."""

    points: Float[Tensor, "*b v h w 3"]
    target: Float[Tensor, "*b v h w 3"]
    weight: Float[Tensor, "*b v h w"]
    """Of the points: one over depth."""
    valid: Bool[Tensor, "*b v h w"]
    smooth: Bool[Tensor, "*b v h w"]
    """Valid and at no depth edge."""
    cameras: Float[Tensor, "*b v 4 4"]
    target_cameras: Float[Tensor, "*b v 4 4"]
    known: Bool[Tensor, "*b"]
    """Whether there is a valid pixel."""


def _in_one_unit(prediction: Prediction, labels: FullLabels, solver_points: int) -> _Scene:
    """Each side divided by its own mean distance, then the prediction scaled by the factor that fits its points best.

    The first carries gradient, the second does not (pi^3). pi^3 measures the truth from its first camera; distances
    from each point's own camera make no view special, and the factor absorbs the difference.
    """
    truth = labels.truth.to(prediction.depth.dtype)
    valid = truth.valid
    depth = torch.where(valid, truth.depth, torch.ones_like(truth.depth))
    target = ray_map(truth.K, *depth.shape[-2:]) * depth[..., None]
    points = prediction.points_cam
    unit, target_unit = _mean_distance(points, valid), _mean_distance(target, valid)
    points, target = points / _per_pixel(unit), target / _per_pixel(target_unit)
    z = target[..., 2]
    nearest = 0.1 * weighted_mean(z.flatten(-2), valid.flatten(-2).to(z.dtype))[..., None, None]
    weight = valid / z.maximum(nearest)
    with torch.no_grad():
        scale = scene_scale(points, target, weight, solver_points)
    return _Scene(
        points=points * _per_pixel(scale), target=target, weight=weight, valid=valid,
        smooth=valid & ~depth_edges(truth.depth),
        cameras=_scaled(prediction.world_from_cam, scale / unit),
        target_cameras=_scaled(truth.world_from_cam, 1 / target_unit),
        known=valid.flatten(-3).any(-1),
    )  # fmt: skip


def normal_loss(
    points: Float[Tensor, "*b v h w 3"], target: Float[Tensor, "*b v h w 3"], mask: Bool[Tensor, "*b v h w"]
) -> tuple[Float[Tensor, "*b v 4 h2 w2"], Bool[Tensor, "*b v 4 h2 w2"]]:
    """Smooth-L1 (knee 3 degrees) of the angle between the normals of the four triangles at every inner pixel, and
    whether all three corners of the triangle are in ``mask``.

    Angles, in radians, are clamped to [1, 90] degrees (MoGe); less what 1 degree costs: the truth costs nothing.
    """
    angle = angle_between(_normals(points), _normals(target)).clamp(DEGREE, 90 * DEGREE)
    values = F.smooth_l1_loss(angle, torch.zeros_like(angle), reduction="none", beta=3 * DEGREE)
    up, left, down, right, centre = _neighbours(mask[..., None]).squeeze(-1).unbind(-3)
    known = torch.stack([up & left, left & down, down & right, right & up], dim=-3) & centre[..., None, :, :]
    return values - DEGREE / 6, known


def _normals(points: Float[Tensor, "*b h w 3"]) -> Float[Tensor, "*b 4 h2 w2 3"]:
    """Cross products (not of unit length) of the edges to neighbours up, left, down and right, each with the next."""
    neighbours = _neighbours(points)
    edges = neighbours[..., :4, :, :, :] - neighbours[..., 4:, :, :, :]
    # Coordinate by coordinate: a third of the time of torch.linalg.cross on a CPU.
    (x, y, z), (p, q, r) = (side.movedim(-1, 0).contiguous() for side in (edges, edges.roll(-1, dims=-4)))
    return torch.stack([y * r - z * q, z * p - x * r, x * q - y * p], dim=-1)


def _neighbours(maps: Tensor) -> Tensor:
    """[*b, h, w, c] as [*b, 5, h - 2, w - 2, c]: up, left, down, right and the inner pixel itself."""
    inner, before, after = slice(1, -1), slice(None, -2), slice(2, None)
    steps = [(before, inner), (inner, before), (after, inner), (inner, after), (inner, inner)]
    return torch.stack([maps[..., rows, columns, :] for rows, columns in steps], dim=-4)


def _mean_distance(points: Float[Tensor, "*b v h w 3"], valid: Bool[Tensor, "*b v h w"]) -> Float[Tensor, "*b"]:
    """Mean distance of the valid points of a scene from their own cameras; 1 where none is valid."""
    distance = weighted_mean(points.norm(dim=-1).flatten(-3), valid.flatten(-3).to(points.dtype))
    return torch.where(valid.flatten(-3).any(-1), distance, torch.ones_like(distance))


def _per_pixel(value: Float[Tensor, "*b"]) -> Float[Tensor, "*b 1 1 1 1"]:
    return value[..., None, None, None, None]


def _scaled(world_from_cam: Float[Tensor, "*b v 4 4"], factor: Float[Tensor, "*b"]) -> Float[Tensor, "*b v 4 4"]:
    """The same cameras in a world ``factor`` times as large."""
    return rigid_from(world_from_cam[..., :3, :3], factor[..., None, None] * world_from_cam[..., :3, 3])


def _mean(values: Tensor, weight: Tensor, dims: int) -> Float[Tensor, ""]:
    """Weighted mean over the last ``dims`` dimensions of a scene, then over scenes."""
    return weighted_mean(values.flatten(-dims), weight.flatten(-dims).to(values.dtype)).mean()


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
