"""What an adaptation descends: the weak objective in the network's own unit of length, and the anchor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from reliev3r.adapt.settings import AdaptConfig
from reliev3r.losses.anchor import anchor_loss
from reliev3r.losses.loss import Loss
from reliev3r.losses.objective import objective
from reliev3r.losses.reprojection import scene_factor, track_geometry
from reliev3r.reconstruct import predict
from reliev3r.scenes import HeldoutScene, teacher_share, weak_settings
from reliev3r.types import Prediction, PseudoLabels, Tracks, _Tensors


@dataclass(frozen=True, kw_only=True)
class AnchoredLabels(_Tensors):
    """Labels of a batch, and what the original network says of it."""

    labels: PseudoLabels
    original: Prediction

    _AXES: ClassVar[dict[str, dict[str, int]]] = {}

    @property
    def tracks(self) -> Tracks:
        """Of the labels."""
        return self.labels.tracks


def weak_objective(
    config: AdaptConfig, *, unit: float = 1.0
) -> Callable[[Prediction, PseudoLabels | AnchoredLabels, float], Loss]:
    """The weak objective in units of ``unit``, and the anchor. A pretrained network keeps its own unit of length: the
    gauge, which would pull it to 1, asks for ``unit`` instead."""
    settings = weak_settings(config.objective, hide_intrinsics=config.batch.hide_intrinsics)

    def weak(prediction: Prediction, labels: PseudoLabels | AnchoredLabels, progress: float) -> Loss:
        teacher = teacher_share(progress, config.teacher_until)
        pseudo = labels.labels if isinstance(labels, AnchoredLabels) else labels
        loss = objective(in_unit(prediction, unit), pseudo, settings, teacher=teacher)
        if not isinstance(labels, AnchoredLabels):
            return loss
        anchor = anchor_loss(prediction.to(torch.float32), labels.original)
        return Loss(total=loss.total + config.anchor * anchor, parts={**loss.parts, "anchor": anchor})

    return weak


def in_unit(prediction: Prediction, unit: float) -> Prediction:
    """The same scene, its lengths divided by ``unit``."""
    pose = prediction.world_from_cam
    scaled = torch.cat([pose[..., :3, :3], pose[..., :3, 3:] / unit], dim=-1)
    return dataclasses.replace(
        prediction,
        depth=prediction.depth / unit,
        world_from_cam=torch.cat([scaled, pose[..., 3:, :]], dim=-2),
    )


def network_unit(network: nn.Module, scenes: list[HeldoutScene]) -> float:
    """The median, over captures, of the mean distance from cameras to tracked points as a network predicts them."""
    factors = []
    for scene in scenes:
        if bool(scene.tracks.visible.any()):
            geometry = track_geometry(predict(network, scene.views), scene.tracks)
            factors.append(scene_factor(geometry.points_cam, scene.tracks))
    return float(torch.stack(factors).median()) if factors else 1.0
