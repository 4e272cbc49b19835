"""Relative poses against given cameras: pseudo cameras (the teacher), true ones in the supervised sibling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Prediction
from reliev3r.geometry.rigid import relative, rigid_from, rotation_angle
from reliev3r.geometry.statistics import weighted_median


def relative_pose_gap(
    world_from_cam: Float[Tensor, "*b v 4 4"], target: Float[Tensor, "*b v 4 4"]
) -> tuple[Float[Tensor, "*b v v"], Float[Tensor, "*b v v 3"]]:
    """Rotation angle (radians) and difference of the translations of cam_i_from_cam_j, every ordered pair [i, j].

    Blind to the world frame of either side; lengths are compared as they come.
    """
    predicted, wanted = relative(world_from_cam), relative(target)
    rotation = rotation_angle(wanted[..., :3, :3].mT @ predicted[..., :3, :3])
    return rotation, predicted[..., :3, 3] - wanted[..., :3, 3]


def relative_pose_loss(
    world_from_cam: Float[Tensor, "*b v 4 4"],
    target: Float[Tensor, "*b v 4 4"],
    weight: Float[Tensor, "*b v"],
    *,
    scale: Float[Tensor, "*b"],
) -> tuple[Float[Tensor, "*b v v"], Float[Tensor, "*b v v"]]:
    """Rotation angle (radians) plus translation error of every ordered pair, and the pair's weight (0 for i = j).

    ``scale`` takes the target's unit to the prediction's. Translation errors are divided by the target's median pair
    distance, so both terms are free of units (pi^3's camera loss with an L1 translation). Unreduced.
    """
    centre = scale[..., None, None] * target[..., :3, 3]
    rotation, gap = relative_pose_gap(world_from_cam, rigid_from(target[..., :3, :3], centre))
    pair = weight[..., :, None] * weight[..., None, :]
    pair = pair * (1 - torch.eye(pair.shape[-1], device=pair.device, dtype=pair.dtype))
    distance = (target[..., :, None, :3, 3] - target[..., None, :, :3, 3]).norm(dim=-1)
    unit = scale * weighted_median(distance.flatten(-2), pair.flatten(-2)).clamp_min(1e-8)
    translation = (gap.square().sum(-1) + 1e-12).sqrt() / unit[..., None, None]
    return rotation + translation, pair


SHORTEST = 0.01
"""Of the given focal length."""


def focal_loss(prediction: Prediction, K: Float[Tensor, "*b v 3 3"]) -> Float[Tensor, "*b v"]:
    """|log f / f*| of each view's horizontal focal length. 0, without gradient, where the network was given K.

    Rays that fit no camera (an untrained network's) can have a focal length below 0: it counts as ``SHORTEST``.
    """
    return (prediction.K[..., 0, 0] / K[..., 0, 0]).clamp_min(SHORTEST).log().abs()
