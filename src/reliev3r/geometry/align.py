"""Alignment of quantities that are known up to scale, scale and shift, or a similarity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.rigid import rotation_from_9d
from reliev3r.geometry.statistics import weighted_median


def align_scale_l1(
    x: Float[Tensor, "*b n"], y: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"]
) -> Float[Tensor, "*b"]:
    """argmin_s sum w |s * x - y|, exactly: the median of y/x under weights w|x| (MoGe's ROE solver).

    Entries with x = 0 say nothing about s and are left out; 0 where nothing is left.
    """
    usable = x.abs() > 1e-12
    ratio = torch.where(usable, y / torch.where(usable, x, torch.ones_like(x)), torch.zeros_like(y))
    return weighted_median(ratio, torch.where(usable, weight * x.abs(), torch.zeros_like(x)))


def align_scale_shift(
    x: Float[Tensor, "*b n"], y: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """argmin_{s,t} sum w (s * x + t - y)^2, in closed form: (s, t). s = 1 where x is constant."""
    total = weight.sum(-1).clamp_min(1e-12)
    x_mean, y_mean = (weight * x).sum(-1) / total, (weight * y).sum(-1) / total
    dx, dy = x - x_mean[..., None], y - y_mean[..., None]
    variance = (weight * dx * dx).sum(-1) / total
    covariance = (weight * dx * dy).sum(-1) / total
    varies = variance > 1e-12 * (weight * x * x).sum(-1) / total  # relative: x may come in any unit
    scale = torch.where(varies, covariance / torch.where(varies, variance, torch.ones_like(variance)), 1.0)
    return scale, y_mean - scale * x_mean


def umeyama(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"] | None = None,
    *,
    with_scale: bool = True,
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """(s, R, t) minimising sum w |s R x + t - y|^2 (Umeyama 1991, eqs. 40-43; Horn's problem without scale: s = 1)."""
    if weight is None:
        weight = torch.ones_like(source[..., 0])
    share = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
    source_mean, target_mean = (share * source).sum(-2), (share * target).sum(-2)
    x, y = source - source_mean[..., None, :], target - target_mean[..., None, :]
    u, singular, vh = torch.linalg.svd((share * y).mT @ x)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.where(torch.det(u @ vh) < 0, -1.0, 1.0)
    rotation = (u * sign[..., None, :]) @ vh
    variance = (share * x * x).sum((-2, -1)).clamp_min(1e-24)
    scale = (singular * sign).sum(-1) / variance if with_scale else torch.ones_like(variance)
    translation = target_mean - scale[..., None] * (rotation @ source_mean[..., None])[..., 0]
    return scale, rotation, translation


def align_cameras(
    source: Float[Tensor, "v 4 4"], target: Float[Tensor, "v 4 4"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """(s, R, t) of the similarity that takes ``world_from_cam`` poses onto others; cameras on a line are no exception.

    R is the mean (chordal) of the cameras' own relative rotations, s and t then fit the centres by least squares;
    s = 1 where all centres coincide.
    """
    rotation = rotation_from_9d((target[:, :3, :3] @ source[:, :3, :3].mT).mean(0))
    x, y = source[:, :3, 3] @ rotation.T, target[:, :3, 3]
    x_mean, y_mean = x.mean(0), y.mean(0)
    variance, covariance = (x - x_mean).square().sum(), ((x - x_mean) * (y - y_mean)).sum()
    usable = (variance > 1e-24) & (covariance > 0)
    scale = torch.where(usable, covariance / variance.clamp_min(1e-24), torch.ones_like(variance))
    return scale, rotation, y_mean - scale * x_mean
