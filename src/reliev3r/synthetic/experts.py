"""Simulated experts: pseudo-labels degraded from ground truth, for controlled tests and the demo only.

They stand in for a monocular depth network and a matcher where a test must know what is wrong with the labels. A number
obtained with them says so; on real captures the experts of :mod:`reliev3r.labels` are used.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from reliev3r.core.types import DepthLabels, Tracks, Truth
from reliev3r.geometry.camera import pixel_grid, project, transform, unproject
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import depth_edges, inside, sample_bilinear


@dataclass(frozen=True, kw_only=True)
class DepthNoise:
    """What is wrong with the simulated depth."""

    scale: float = 2.0
    """Each view has a factor of its own, log-uniform in [1/scale, scale]."""
    distortion: float = 0.06
    """Standard deviation, over a view, of the logarithm of a smooth multiplicative error."""
    control_points: int = 4
    """Of the distortion, along each image axis: few make it smooth."""
    edge_blur: float = 0.004
    """Depth edges are blurred by a Gaussian of this many image widths."""
    outliers: float = 0.02
    """Share of a view's pixels, in a few patches, that are seen far away, like sky in a window."""
    outlier_factor: float = 5.0
    """How many times too far."""


@dataclass(frozen=True, kw_only=True)
class TrackNoise:
    """Number and quality of the simulated tracks."""

    count: int = 512
    pixel: float = 0.3
    """Standard deviation in pixels, per axis, of every observation."""
    false: float = 0.02
    """Share of observations that are moved to a random place in the image."""
    drop: float = 0.1
    """Share of the possible observations that are missed."""


def simulate_depth(truth: Truth, noise: DepthNoise, seed: int) -> DepthLabels:
    """A *simulated* monocular expert: true depth, degraded (controlled tests only). Each view knows its shape alone.

    Returns:
        Depth up to a scale per view, of the shape of ``truth.depth``; the simulated expert gives a value wherever the
        truth has one, outliers included.
    """
    size = truth.depth.shape[-2:]
    depths, masks = truth.depth.reshape(-1, *size), truth.valid.reshape(-1, *size)
    maps = [
        simulate_depth_map(depth, valid, noise, name=str(k), seed=seed)
        for k, (depth, valid) in enumerate(zip(depths, masks, strict=True))
    ]
    return DepthLabels(depth=torch.stack(maps).view_as(truth.depth), valid=truth.valid, ambiguity="scale")


def simulate_depth_map(
    depth: Float[Tensor, "h w"], valid: Bool[Tensor, "h w"], noise: DepthNoise, *, name: str, seed: int
) -> Float[Tensor, "h w"]:
    """:func:`simulate_depth` of one map (controlled tests only); the frame's ``name`` and ``seed`` draw the errors."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    height, width = depth.shape
    scale = math.log(noise.scale) * (2 * torch.rand((), generator=generator) - 1)
    distortion = noise.distortion * _smooth_field(height, width, noise.control_points, generator).to(depth.device)
    patches = _smooth_field(height, width, 2 * noise.control_points, generator).to(depth.device)

    degraded = _blurred_edges(depth, valid, noise.edge_blur * width) * torch.exp(scale.to(depth.device) + distortion)
    count = int(noise.outliers * valid.sum())
    if count:
        threshold = patches[valid].sort(descending=True).values[count - 1]
        degraded = torch.where(patches >= threshold, noise.outlier_factor * degraded, degraded)
    return torch.where(valid, degraded, depth)


def simulate_tracks(truth: Truth, noise: TrackNoise, seed: int) -> Tracks:
    """A *simulated* matcher: random surface points seen in several views, degraded (controlled tests only).

    Points are drawn at pixels of random views and projected into all; a view sees one where its own true depth there
    agrees within 1 % (a point near a depth edge may count as hidden). Tracks that fewer than two views see are drawn
    again as far as possible; a track that is left over has weight 0 in all views.

    Returns:
        Tracks with uv [*b v m 2] and weight [*b v m] of 0 or 1, m = ``noise.count``.
    """
    generator = torch.Generator().manual_seed(seed)
    views, height, width = truth.depth.shape[-3:]
    device, batch = truth.depth.device, truth.depth.shape[:-3]

    def rand(*shape: int) -> Tensor:
        return torch.rand(*batch, *shape, generator=generator).to(device)

    candidates = 4 * noise.count
    points = _surface_points(truth, (rand(candidates) * views * height * width).long())
    uv, visible = _observe(points, truth)
    visible = visible & (rand(views, candidates) >= noise.drop)

    # Those that two views see come first, in the order in which they were drawn.
    order = ((visible.sum(-2) < 2).to(torch.uint8)).sort(dim=-1, stable=True).indices[..., : noise.count]
    order = order[..., None, :].expand(*batch, views, -1)
    visible = visible.gather(-1, order)
    visible = visible & (visible.sum(-2, keepdim=True) >= 2)
    uv = uv.gather(-2, order[..., None].expand(*order.shape, 2))

    size = torch.tensor([width, height], device=device, dtype=uv.dtype)
    jitter = torch.randn(*uv.shape, generator=generator).to(device) * noise.pixel
    astray = rand(views, noise.count) < noise.false
    uv = torch.where(astray[..., None], rand(views, noise.count, 2) * size, uv + jitter)
    uv = torch.where(visible[..., None], uv, torch.zeros_like(uv))
    return Tracks(uv=torch.minimum(uv.clamp_min(0), size), weight=visible.to(uv.dtype))


def _surface_points(truth: Truth, index: Tensor) -> Float[Tensor, "*b n 3"]:
    """World points of flat indices [*b, n] into the pixels of all views; the camera's own centre where invalid."""
    height, width = truth.depth.shape[-2:]
    uv = pixel_grid(height, width, device=truth.depth.device).reshape(-1, 2)
    uv = uv.expand(*truth.depth.shape[:-2], -1, -1)
    depth = torch.where(truth.valid, truth.depth, 0.0).flatten(-2)
    points = transform(truth.world_from_cam, unproject(uv, depth, truth.K)).flatten(-3, -2)
    return points.gather(-2, index[..., None].expand(*index.shape, 3))


def _observe(points: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Projection [*b, v, n, 2] of world points [*b, n, 3] into every view, and whether the view sees them."""
    height, width = truth.depth.shape[-2:]
    points = points[..., None, :, :].expand(*truth.depth.shape[:-2], -1, -1)
    local = transform(invert(truth.world_from_cam), points)
    uv = project(local, truth.K)
    # The inverse of z is linear in the image of a plane: bilinear lookup is exact there.
    inverse = sample_bilinear(1 / torch.where(truth.valid, truth.depth, 1.0), uv)
    known = sample_bilinear(truth.valid.to(uv.dtype), uv) > 0.999
    agrees = (local[..., 2] * inverse - 1).abs() < 0.01
    return uv, inside(uv, height, width) & (local[..., 2] > 1e-6) & known & agrees


def _smooth_field(height: int, width: int, points: int, generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Bicubic interpolation of ``points`` x ``points`` random values, with mean 0 and standard deviation 1."""
    control = torch.randn(1, 1, points, points, generator=generator)
    field = functional.interpolate(control, size=(height, width), mode="bicubic", align_corners=True)[0, 0]
    return (field - field.mean()) / field.std().clamp_min(1e-12)


def _blurred_edges(depth: Tensor, valid: Tensor, sigma: float) -> Tensor:
    """``depth`` with a Gaussian blur (of the valid pixels) within two sigma of its depth edges."""
    reach = math.ceil(2 * sigma)
    if reach < 1:
        return depth
    offset = torch.arange(-reach, reach + 1, device=depth.device, dtype=depth.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma).square())
    kernel = kernel / kernel.sum()

    def blur(x: Tensor) -> Tensor:
        x = functional.conv2d(x[None, None], kernel[None, None, None], padding=(0, reach))
        return functional.conv2d(x, kernel[None, None, :, None], padding=(reach, 0))[0, 0]

    weight = valid.to(depth.dtype)
    smooth = blur(depth * weight) / blur(weight).clamp_min(1e-6)
    edges = depth_edges(depth, rtol=0.1) & valid
    near_edge = functional.max_pool2d(edges[None, None].to(depth.dtype), 2 * reach + 1, stride=1, padding=reach)[0, 0]
    return torch.where((near_edge > 0) & valid, smooth, depth)
