"""Reading maps at sub-pixel positions, and choosing evenly from many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Item = TypeVar("Item")


def sample_bilinear(maps: Float[Tensor, "*b h w"], uv: Float[Tensor, "*b m 2"]) -> Float[Tensor, "*b m"]:
    """Bilinear lookup of ``maps`` at pixels ``uv`` (corner convention), clamped to the outermost pixel centres.

    Differentiable in ``maps`` and in ``uv``.
    """
    height, width = maps.shape[-2:]
    x = (uv[..., 0] - 0.5).clamp(0, width - 1)
    y = (uv[..., 1] - 0.5).clamp(0, height - 1)
    x0 = x.detach().floor().clamp_max(max(width - 2, 0))
    y0 = y.detach().floor().clamp_max(max(height - 2, 0))
    dx, dy = x - x0, y - y0
    x0, y0 = x0.long(), y0.long()
    x1, y1 = (x0 + 1).clamp_max(width - 1), (y0 + 1).clamp_max(height - 1)
    # One lookup for all four corners: backward then fills one map, not four.
    corners = torch.cat([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], dim=-1)
    top_left, top_right, bottom_left, bottom_right = maps.flatten(-2).gather(-1, corners).chunk(4, dim=-1)
    top = top_left * (1 - dx) + top_right * dx
    bottom = bottom_left * (1 - dx) + bottom_right * dx
    return top * (1 - dy) + bottom * dy


def sample_features(features: Float[Tensor, "*b c gh gw"], place: Float[Tensor, "*b k 2"]) -> Float[Tensor, "*b k c"]:
    """Features at places in [0, 1]^2 of the image (corner to corner), bilinearly, clamped to the border, and brought
    back to the length that all of them have. Differentiable in both."""
    batch = place.shape[:-2]
    maps = features.reshape(-1, *features.shape[-3:])
    grid = (2 * place - 1).reshape(len(maps), 1, *place.shape[-2:])
    found = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0].mT
    length = maps[:, :, 0, 0].norm(dim=-1)[:, None, None]
    return (length * F.normalize(found, dim=-1)).unflatten(0, batch)


def box_mean(image: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c h w"]:
    """Mean over ``side`` x ``side`` pixels around each (odd); beyond the border lies the border's own colour."""
    return F.avg_pool2d(F.pad(image, (side // 2,) * 4, mode="replicate"), side, stride=1)


def inside(uv: Float[Tensor, "*b m 2"], height: int, width: int) -> Bool[Tensor, "*b m"]:
    """Whether a pixel position lies on the image."""
    u, v = uv.unbind(-1)
    return (u >= 0) & (u <= width) & (v >= 0) & (v <= height)


def evenly_spaced(items: Sequence[Item], count: int | None) -> list[Item]:
    """``count`` of the items at indices round(linspace(0, n - 1, count)); all where there are not more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index] for index in np.rint(np.linspace(0, len(items) - 1, count)).astype(int)]


def clip_ranges(frames: int, *, window: int, overlap: int) -> list[tuple[int, int]]:
    """(start, stop) of clips that cover all frames; all as long as ``window``, unless there are fewer frames.

    Neighbours share ``overlap`` frames or more.
    """
    if frames <= window:
        return [(0, frames)]
    count = -(-(frames - overlap) // (window - overlap))
    starts = np.floor(np.linspace(0, frames - window, count)).astype(int)
    return [(int(start), int(start) + window) for start in starts]


def spread_choice(mask: Bool[Tensor, "*b n"], count: int) -> tuple[Int[Tensor, "*b k"], Bool[Tensor, "*b k"]]:
    """Indices of ``count`` true entries, spread evenly over them, and which of them count (k = min(n, count)).

    All true entries, each once, where there are no more than ``count``. Deterministic, without a host sync.
    """
    n = mask.shape[-1]
    if n <= count:
        return torch.arange(n, device=mask.device).expand(mask.shape), mask
    rank = mask.cumsum(-1)
    total = rank[..., -1:]
    wanted = (2 * torch.arange(count, device=mask.device) + 1) * total // (2 * count) + 1
    index = torch.searchsorted(rank, wanted).clamp_max(n - 1)
    first = torch.ones_like(index[..., :1], dtype=torch.bool)
    return index, torch.cat([first, index[..., 1:] != index[..., :-1]], dim=-1) & (total > 0)


def depth_edges(depth: Float[Tensor, "*b h w"], *, rtol: float = 0.03) -> Bool[Tensor, "*b h w"]:
    """Pixels whose 3x3 neighbourhood spans more than ``rtol`` of their own depth (pi^3's edge mask)."""
    flat = depth.reshape(-1, 1, *depth.shape[-2:])
    padded = F.pad(flat, (1, 1, 1, 1), mode="replicate")
    highest = F.max_pool2d(padded, 3, stride=1)
    lowest = -F.max_pool2d(-padded, 3, stride=1)
    return ((highest - lowest) > rtol * flat).reshape(depth.shape)


def resize_linear(
    maps: Float[Tensor, "*b h w c"], height: int, width: int, *, extrapolate: bool = False
) -> Float[Tensor, "*b h2 w2 c"]:
    """``maps`` at the pixel centres of a ``height`` x ``width`` grid over the same area, bilinearly (no low-pass).

    Beyond the outermost centres it gives the outermost value or, with ``extrapolate``, the linear continuation, which
    is exact for the ray map of a pinhole.
    """
    rows = _interpolation_matrix(maps.shape[-3], height, extrapolate).to(maps)
    columns = _interpolation_matrix(maps.shape[-2], width, extrapolate).to(maps)
    return torch.einsum("yh,...hwc,xw->...yxc", rows, maps, columns)


def _interpolation_matrix(source: int, target: int, extrapolate: bool) -> Float[Tensor, "target source"]:
    """Weights of each source sample in each target sample, in float64."""
    if source == 1:
        return torch.ones(target, 1, dtype=torch.float64)
    position = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
    if not extrapolate:
        position = position.clamp(0, source - 1)
    left = position.floor().clamp(0, source - 2)
    share = position - left
    matrix = torch.zeros(target, source, dtype=torch.float64)
    matrix.scatter_(1, left.long()[:, None], (1 - share)[:, None])
    return matrix.scatter_add_(1, left.long()[:, None] + 1, share[:, None])
