"""Pinhole cameras: pixels to rays and points, and back. Pixel (0, 0) is the image's top-left corner."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def pixel_grid(height: int, width: int, *, device: torch.device | str | None = None) -> Float[Tensor, "h w 2"]:
    """Centres (u, v) of all pixels: (0.5, 0.5) is the first."""
    u = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    v = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def rays_from_uv(uv: Float[Tensor, "*b m 2"], K: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b m 3"]:
    """Camera-frame rays with z = 1 through pixels ``uv`` (zero skew)."""
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[..., None, :]
    centre = K[..., None, :2, 2]
    xy = (uv - centre) / focal
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def ray_map(K: Float[Tensor, "*b 3 3"], height: int, width: int) -> Float[Tensor, "*b h w 3"]:
    """Camera-frame rays with z = 1 through every pixel's centre."""
    uv = pixel_grid(height, width, device=K.device).to(K.dtype).reshape(-1, 2)
    rays = rays_from_uv(uv.expand(*K.shape[:-2], -1, -1), K)
    return rays.unflatten(-2, (height, width))


def unproject(
    uv: Float[Tensor, "*b m 2"], depth: Float[Tensor, "*b m"], K: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b m 3"]:
    """Camera-frame points at z-depth ``depth`` behind pixels ``uv``."""
    return rays_from_uv(uv, K) * depth[..., None]


def project(points: Float[Tensor, "*b m 3"], K: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b m 2"]:
    """Pixels of camera-frame points. Points at z <= 0 have no image: test ``points[..., 2] > 0`` first.

    z is kept away from 0 by 1e-8 in magnitude, so that the result stays finite.
    """
    z = points[..., 2:]
    z = torch.where(z.abs() < 1e-8, torch.full_like(z, 1e-8), z)
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[..., None, :]
    return points[..., :2] / z * focal + K[..., None, :2, 2]


def transform(a_from_b: Float[Tensor, "*b 4 4"], points_b: Float[Tensor, "*b m 3"]) -> Float[Tensor, "*b m 3"]:
    """Points in frame a of points given in frame b."""
    return points_b @ a_from_b[..., :3, :3].mT + a_from_b[..., None, :3, 3]


def K_from_focal(focal: Float[Tensor, "*b"], height: int, width: int) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics with square pixels and centred principal point from the focal length in pixels; differentiable."""
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = [focal, zero, one * (width / 2), zero, focal, one * (height / 2), zero, zero, one]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def K_from_fov(fov: Float[Tensor, "*b"] | float, height: int, width: int) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics with square pixels and centred principal point from the *horizontal* field of view in radians."""
    return K_from_focal(focal_from_fov(torch.as_tensor(fov, dtype=torch.float32), width), height, width)


def focal_from_fov(fov: Number, width: float = 1.0) -> Number:
    """Focal length from the field of view in radians across ``width``, in its unit; by default in widths."""
    return 0.5 * width / (torch.tan(0.5 * fov) if isinstance(fov, Tensor) else math.tan(0.5 * fov))


def fov_from_focal(focal: Number, width: float = 1.0) -> Number:
    """Field of view in radians across ``width``, in whose unit the focal length is; by default in widths."""
    tangent = 0.5 * width / focal
    return 2 * (torch.atan(tangent) if isinstance(tangent, Tensor) else math.atan(tangent))


def K_of_crop_resize(
    K: Float[Tensor, "*b 3 3"],
    *,
    offset: tuple[float, float] | tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]],
    scale: tuple[float, float] | tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]],
) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics after cropping ``offset`` = (left, top) pixels and then scaling by ``scale`` = (sx, sy).

    Numbers for all, or tensors with a value for each. With corner-based pixels, uv' = (uv - offset) * scale exactly.
    """
    moved = K.clone()
    for row in (0, 1):
        moved[..., row, 2] = (K[..., row, 2] - offset[row]) * scale[row]
        moved[..., row, row] = K[..., row, row] * scale[row]
    return moved


def focal_from_35mm(focal_35mm: float, height: int, width: int) -> float:
    """Focal length in pixels from the 35-mm-equivalent one, by the diagonal (43.27 mm), as EXIF 2.3 defines it."""
    return focal_35mm / math.hypot(36.0, 24.0) * math.hypot(height, width)
