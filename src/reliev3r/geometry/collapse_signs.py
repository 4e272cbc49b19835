"""Signs of a collapsed reconstruction, read off a prediction alone, and where they become alarming."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Prediction
from reliev3r.geometry.rigid import relative, rotation_angle

COLLAPSED_BASELINE = 0.01
"""Baseline over depth below which the cameras count as one point: the median parallax is then under 0.6 degrees, less
than the 1 degree that a good match may be off, so no match can tell near from far."""
EQUAL_ROTATIONS_DEG = 0.5
"""Median rotation between views below which all count as equal, if the matches contradict it."""
CONF_LOGIT_BOUND = 4.0
"""Networks keep the logit of W = 2 sigmoid(logit) within this: W stays within 0.036 and 1.964."""
SATURATED_SHARE, SATURATED_MARGIN = 0.99, 0.04
"""W counts as saturated when this share of its pixels lies this close to 0 or 2, which the bounds above do."""
GOOD_ANGLE_DEG, BAD_ANGLE_DEG = 1.0, 2.0
"""A match within 1 degree (two or three pixels of the smallest network) fits; a median above 2 is no reconstruction."""


def baseline_to_depth(prediction: Prediction) -> Float[Tensor, "*b"]:
    """Median distance between two cameras over median depth; 0 for a single view."""
    baseline = _pairs(prediction)[..., :3, 3].norm(dim=-1)
    depth = prediction.depth.flatten(-3).median(-1).values
    return _median(baseline) / depth.to(baseline.dtype).clamp_min(1e-12)


def rotation_spread_deg(prediction: Prediction) -> Float[Tensor, "*b"]:
    """Median rotation between two cameras, in degrees; 0 for a single view."""
    return _median(rotation_angle(_pairs(prediction)[..., :3, :3]).rad2deg())


def share_at_zero(conf: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Share of pixels whose confidence W lies at its lower bound."""
    return (conf < SATURATED_MARGIN).double().mean()


def share_at_two(conf: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Share of pixels whose confidence W lies at its upper bound."""
    return (conf > 2 - SATURATED_MARGIN).double().mean()


def _pairs(prediction: Prediction) -> Float[Tensor, "*b p 4 4"]:
    """Relative poses of all unordered pairs of views, float64."""
    between = relative(prediction.world_from_cam.double())
    views = between.shape[-3]
    first, second = torch.triu_indices(views, views, offset=1, device=between.device).unbind(0)
    return between[..., first, second, :, :]


def _median(values: Float[Tensor, "*b p"]) -> Float[Tensor, "*b"]:
    return values.median(-1).values if values.shape[-1] else values.sum(-1)
