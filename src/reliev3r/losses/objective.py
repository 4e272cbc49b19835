"""The weak objective: the paper's two losses, the gauge and an optional early teacher. It never sees ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.statistics import weighted_mean
from reliev3r.losses.depth import DepthLossConfig, depth_loss
from reliev3r.losses.pose import relative_pose_loss
from reliev3r.losses.reprojection import ReprojectionConfig, gauge_loss, reprojection_loss, scene_factor, track_geometry
from reliev3r.types import Prediction, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """L = depth_weight * L_d + tracks_weight * L_rgst + gauge_weight * L_gauge + teacher_weight * L_pose."""

    depth: DepthLossConfig = field(default_factory=DepthLossConfig)
    reprojection: ReprojectionConfig = field(default_factory=ReprojectionConfig)
    depth_weight: float = 1.0
    """0: tracks only."""
    tracks_weight: float = 0.5
    """The paper's 0.5; 0: depth only."""
    gauge_weight: float = 0.1
    teacher_weight: float = 0.0
    """Relative pose against pseudo cameras solved from the same tracks, where labels carry them; the training loop
    anneals it to 0."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The number to descend and its named parts (unweighted)."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]


def objective(prediction: Prediction, labels: PseudoLabels, config: ObjectiveConfig, *, teacher: float = 1.0) -> Loss:
    """Weak supervision of a prediction; ``teacher`` in [0, 1] scales the teacher's weight (its annealing).

    Terms whose weight is 0 are not computed. Means are over valid pixels and over visible ordered pairs; a term without
    any contributes 0. Runs in float32 outside autocast.
    """
    with torch.autocast(prediction.depth.device.type, enabled=False):
        prediction = prediction.to(torch.float32)
        total = prediction.depth.new_zeros(())
        parts: dict[str, Tensor] = {}
        if config.depth_weight > 0:
            parts["depth"] = _depth_term(prediction, labels, config.depth)
            total = total + config.depth_weight * parts["depth"]
        if config.tracks_weight > 0:
            values, weight = reprojection_loss(prediction, labels.tracks, config.reprojection)
            parts["tracks"] = weighted_mean(values, weight)
            total = total + config.tracks_weight * parts["tracks"]
        if config.gauge_weight > 0:
            parts["gauge"] = gauge_loss(prediction, labels.tracks).mean()
            total = total + config.gauge_weight * parts["gauge"]
        if config.teacher_weight > 0 and teacher > 0 and labels.cameras is not None:
            cameras = labels.cameras
            # Pseudo cameras come in the unit in which the scene factor is 1, the one that the gauge term asks for.
            scale = scene_factor(track_geometry(prediction, labels.tracks).points_cam, labels.tracks).detach()
            values, weight = relative_pose_loss(
                prediction.world_from_cam, cameras.world_from_cam, cameras.weight, scale=scale
            )
            parts["teacher"] = weighted_mean(values.flatten(), weight.flatten())
            total = total + config.teacher_weight * teacher * parts["teacher"]
        return Loss(total=total, parts=parts)


def _depth_term(prediction: Prediction, labels: PseudoLabels, config: DepthLossConfig) -> Tensor:
    values, valid = depth_loss(prediction.depth, prediction.conf, labels.depth, config)
    weight = valid.to(values.dtype)
    if labels.depth.trust is not None:
        weight = weight * labels.depth.trust[..., None, None]
    # Divided by the number of valid pixels, not by the trust: an untrusted expert must weigh less than the tracks.
    return (weight * values).sum() / valid.sum().clamp_min(1)
