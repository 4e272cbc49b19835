"""Relative-pose loss against given cameras: pseudo cameras (teacher) here, true ones in the supervised sibling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.rigid import relative, rotation_angle
from reliev3r.geometry.statistics import weighted_median


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
    predicted, wanted = relative(world_from_cam), relative(target)
    pair = weight[..., :, None] * weight[..., None, :]
    pair = pair * (1 - torch.eye(pair.shape[-1], device=pair.device, dtype=pair.dtype))
    distance = wanted[..., :3, 3].norm(dim=-1)
    unit = scale * weighted_median(distance.flatten(-2), pair.flatten(-2)).clamp_min(1e-8)
    rotation = rotation_angle(wanted[..., :3, :3].mT @ predicted[..., :3, :3])
    gap = predicted[..., :3, 3] - scale[..., None, None, None] * wanted[..., :3, 3]
    translation = (gap.square().sum(-1) + 1e-12).sqrt() / unit[..., None, None]
    return rotation + translation, pair
