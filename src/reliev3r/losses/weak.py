"""Weak supervision: the paper's two losses, the gauge and an optional early teacher. It never sees ground truth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.types import CameraLabels, Loss, Prediction, PseudoLabels
from reliev3r.geometry.statistics import weighted_mean
from reliev3r.losses.cameras import focal_loss, relative_pose_loss
from reliev3r.losses.consistency import view_gaps
from reliev3r.losses.depth import DepthLossConfig, depth_loss
from reliev3r.losses.matching import CorrespondenceConfig, correspondence_loss, match_loss
from reliev3r.losses.tracks import (
    ReprojectionConfig,
    TrackGeometry,
    gauge_loss,
    reprojection_loss,
    track_depth_loss,
    track_geometry,
)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """L = depth_weight * L_d + tracks_weight * L_rgst + gauge_weight * L_gauge + teacher_weight * L_pose, and the
    options fov_weight * L_fov + correspondence_weight * L_corr + match_weight * L_match.

    Where the network solves its cameras, the terms see the pseudo cameras of the labels in their place: the angle of
    Eq. 5 then teaches depth, and the tracks teach the matches that cameras are solved from."""

    depth: DepthLossConfig = field(default_factory=DepthLossConfig)
    reprojection: ReprojectionConfig = field(default_factory=ReprojectionConfig)
    depth_weight: float = 1.0
    """0: tracks only."""
    tracks_weight: float = 0.5
    """The paper's 0.5; 0: depth only."""
    gauge_weight: float = 2.0
    """Strong, because the depth's free scale would otherwise grow away from the translations: at 0.1 the baseline
    collapsed on a real capture."""
    teacher_weight: float = 0.0
    """Relative pose, track depth and an unknown focal length (``labels.K``) against what the label-side solve made of
    the same tracks, where labels carry them; ``objective``'s argument hands over to the tracks."""
    fov_weight: float = 0.0
    """|log f / f*| against ``labels.K``, to the end of training: for an expert's field of view."""
    correspondence_weight: float = 0.0
    """InfoNCE over the same tracks; needs a network with ``match_dim``. Gets matching going from random weights."""
    correspondence: CorrespondenceConfig = field(default_factory=CorrespondenceConfig)
    match_weight: float = 0.5
    """InfoNCE over all cells, of networks that solve their cameras; others have no such term."""
    match_tracks: int = 128
    """Tracks of a sample that it looks at, at most."""
    doubt: float = 0.0
    """Ours: W hears of contradictions between the views' depths beside those with the labels. 10: a pixel on whose
    depth the views disagree by 10 % counts as one deviation worse. 0: the paper's W."""


def objective(prediction: Prediction, labels: PseudoLabels, config: ObjectiveConfig, *, teacher: float = 1.0) -> Loss:
    """Weak supervision of a prediction; ``teacher`` in [0, 1] hands over from the teacher (1) to the tracks (0).

    While depth is still wrong, the tracks would be explained by wrong rotations; so their loss grows as the teacher
    fades. Without a teacher (no pseudo cameras, or weight 0) the tracks have their full weight from the start.

    Terms whose weight is 0 are not computed. Means are over valid pixels and over visible ordered pairs; a term without
    any contributes 0. Runs in float32 outside autocast.
    """
    with torch.autocast(prediction.depth.device.type, enabled=False):
        labels, every_track = _where_cameras_are(prediction, labels), labels.tracks
        prediction = with_label_cameras(prediction.to(torch.float32), labels)
        geometry = track_geometry(prediction, labels.tracks)
        taught = teacher if config.teacher_weight > 0 and labels.cameras is not None else 0.0
        weights = {
            "depth": config.depth_weight, "tracks": (1 - taught) * config.tracks_weight, "gauge": config.gauge_weight,
            "teacher": taught * config.teacher_weight, "fov": config.fov_weight,
            "correspondence": config.correspondence_weight, "match": config.match_weight,
        }  # fmt: skip
        parts: dict[str, Tensor] = {}
        if config.depth_weight > 0:
            parts["depth"] = _depth_term(prediction, labels, config)
        if config.tracks_weight > 0:
            values, weight = reprojection_loss(prediction, labels.tracks, config.reprojection, geometry)
            parts["tracks"] = weighted_mean(values, weight)
        if config.gauge_weight > 0:
            parts["gauge"] = gauge_loss(prediction, labels.tracks, geometry).mean()
        if taught > 0 and labels.cameras is not None:
            parts["teacher"] = _teacher_term(prediction, labels, labels.cameras, geometry)
        if config.fov_weight > 0 and labels.K is not None:
            parts["fov"] = focal_loss(prediction, labels.K).mean()
        if config.correspondence_weight > 0:
            values, weight = correspondence_loss(prediction, labels.tracks, config.correspondence)
            parts["correspondence"] = weighted_mean(values.flatten(-3), weight.flatten(-3)).mean()
        if config.match_weight > 0 and prediction.features is not None:
            values, weight = match_loss(prediction, every_track, config.match_tracks)
            parts["match"] = weighted_mean(values.flatten(-3), weight.flatten(-3)).mean()
        total = sum((weights[name] * part for name, part in parts.items()), prediction.depth.new_zeros(()))
        return Loss(total=total, parts=parts)


def _where_cameras_are(prediction: Prediction, labels: PseudoLabels) -> PseudoLabels:
    """Where cameras come from the labels: without the observations of views that these do not reach."""
    if prediction.has_cameras or labels.cameras is None:
        return labels
    weight = labels.tracks.weight * labels.cameras.weight[..., None]
    return dataclasses.replace(labels, tracks=dataclasses.replace(labels.tracks, weight=weight))


def with_label_cameras(prediction: Prediction, labels: PseudoLabels) -> Prediction:
    """The prediction itself, or where it has no cameras of its own, with the pseudo cameras of the labels.

    Raises:
        UserError: neither has any.
    """
    if prediction.has_cameras:
        return prediction
    if labels.cameras is None:
        raise UserError("a network that solves its cameras is trained with the pseudo cameras of the labels; make them")
    return dataclasses.replace(prediction, world_from_cam=labels.cameras.world_from_cam, has_cameras=True)


def _teacher_term(
    prediction: Prediction, labels: PseudoLabels, cameras: CameraLabels, geometry: TrackGeometry
) -> Tensor:
    """Relative poses and track depths against the pseudo cameras, and the focal length where the labels have one."""
    unit = torch.ones_like(prediction.depth[..., 0, 0, 0])  # the one that the gauge term asks for
    poses, pair = relative_pose_loss(prediction.world_from_cam, cameras.world_from_cam, cameras.weight, scale=unit)
    depths, seen = track_depth_loss(geometry, labels.tracks)
    term = weighted_mean(poses.flatten(), pair.flatten()) + weighted_mean(depths.flatten(), seen.flatten())
    return term if labels.K is None else term + focal_loss(prediction, labels.K).mean()


def _depth_term(prediction: Prediction, labels: PseudoLabels, config: ObjectiveConfig) -> Tensor:
    doubt = config.doubt * view_gaps(prediction, labels.tracks) if config.doubt > 0 else None
    values, valid = depth_loss(prediction.depth, prediction.conf, labels.depth, config.depth, doubt)
    weight = valid.to(values.dtype)
    if labels.depth.trust is not None:
        weight = weight * labels.depth.trust[..., None, None]
    if labels.depth.weight is not None:
        weight = weight * labels.depth.weight
    # Divided by the number of valid pixels, not by the trust: an untrusted expert must weigh less than the tracks.
    return (weight * values).sum() / valid.sum().clamp_min(1)
