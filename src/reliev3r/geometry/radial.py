"""Radial distortion with one coefficient: COLMAP's SIMPLE_RADIAL, x_stored = x (1 + k1 r^2), x on the plane z = 1."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Tracks

_STEPS = 20
"""Of Newton; from a start at the edge of where the lens can be inverted, ten reach float64's precision."""


def distort(
    uv: Float[Tensor, "*b m 2"], K: Float[Tensor, "*b 3 3"], k1: Float[Tensor, "*b"]
) -> Float[Tensor, "*b m 2"]:
    """Pixels of the pinhole image in pixels of the stored one; both have ``K``."""
    xy, focal, centre = _normalised(uv, K)
    return xy * (1 + k1[..., None, None] * xy.square().sum(-1, keepdim=True)) * focal + centre


def undistort(
    uv: Float[Tensor, "*b m 2"], K: Float[Tensor, "*b 3 3"], k1: Float[Tensor, "*b"]
) -> Float[Tensor, "*b m 2"]:
    """The inverse of :func:`distort`. Where a barrel (k1 < 0) never reaches, the last place that it does reach."""
    xy, focal, centre = _normalised(uv, K)
    stored, k = xy.norm(dim=-1, keepdim=True), k1[..., None, None]
    last = torch.where(k < 0, (-3 * k.clamp_max(-1e-12)).rsqrt(), torch.inf)  # there the radius stops growing
    radius = torch.minimum(stored, last)
    for _ in range(_STEPS):
        slope = (1 + 3 * k * radius.square()).clamp_min(1e-6)
        radius = (radius - (radius * (1 + k * radius.square()) - stored) / slope).clamp_min(0)
        radius = torch.minimum(radius, last)
    return xy * (radius / stored.clamp_min(1e-12)) * focal + centre


def undistorted(tracks: Tracks, K: Float[Tensor, "*b v 3 3"], k1: Float[Tensor, "*b v"]) -> Tracks:
    """Tracks [v, m] of stored images in pixels of the pinhole images of ``K``, in float64 and back."""
    uv = undistort(tracks.uv.double(), K.double(), k1.double())
    return dataclasses.replace(tracks, uv=uv.to(tracks.uv.dtype))


def _normalised(uv: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[..., None, :]
    centre = K[..., None, :2, 2]
    return (uv - centre) / focal, focal, centre
