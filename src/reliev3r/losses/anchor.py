"""Staying near the predictions that a network made before it was adapted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Prediction
from reliev3r.losses.cameras import relative_pose_loss


def anchor_loss(prediction: Prediction, original: Prediction) -> Float[Tensor, ""]:
    """Mean |log| of the depth ratio, plus rotation (radians) and translation of every ordered pair of views.

    Translations are in units of the original's median pair distance (see :func:`relative_pose_loss`); the scale itself
    is held, so both must come from the same network on the same views. 0 where nothing changed; float32.
    """
    depth = (prediction.depth.clamp_min(1e-8) / original.depth.clamp_min(1e-8)).log().abs().mean()
    ones = torch.ones_like(original.world_from_cam[..., 0, 0])
    poses, pair = relative_pose_loss(
        prediction.world_from_cam, original.world_from_cam, ones, scale=torch.ones_like(ones[..., 0])
    )
    return depth + (pair * poses).sum() / pair.sum().clamp_min(1)
