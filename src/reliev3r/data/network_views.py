"""From original pixels to the network's: which part of a frame is seen, and how images, maps, K and pixels move along.

A region is (left, top, width, height) in original pixels, corner convention; a size is (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.core.types import Views
from reliev3r.data.capture import Capture, Frame
from reliev3r.geometry.camera import K_of_crop_resize

Region = tuple[float, float, float, float]

MAX_STRETCH = 1.1
"""Frames may be squeezed anisotropically by this factor (K says so) before anything is cropped away."""


def choose_size(frames: Sequence[Frame], *, long_side: int, patch: int) -> tuple[int, int]:
    """(height, width) of the network's images: multiples of ``patch``, near the median aspect of the frames.

    The majority of wide and upright frames decides the orientation (wide where even).
    """
    wide = [frame for frame in frames if frame.width >= frame.height]
    majority = wide if 2 * len(wide) >= len(frames) else [frame for frame in frames if frame.width < frame.height]
    aspect = float(np.median([frame.aspect for frame in majority]))
    long = max(1, round(long_side / patch)) * patch
    short = max(1, round(long * min(aspect, 1 / aspect) / patch)) * patch
    return (short, long) if aspect >= 1 else (long, short)


def fit_region(frame: Frame, size: tuple[int, int], *, max_stretch: float = MAX_STRETCH) -> Region:
    """The largest centred crop of a frame whose aspect is that of ``size`` within ``max_stretch``."""
    aspect = size[1] / size[0]
    width = min(float(frame.width), max_stretch * aspect * frame.height)
    height = min(float(frame.height), max_stretch * frame.width / aspect)
    return ((frame.width - width) / 2, (frame.height - height) / 2, width, height)


def resize_image(
    image: UInt8[np.ndarray, "H W 3"], region: Region, size: tuple[int, int]
) -> Float[np.ndarray, "3 h w"]:
    """RGB in [0, 1], float32: the mean colour of the area that each new pixel covers, bilinear where it enlarges."""
    mean = area_mean(image, region, size).astype(np.float32) / 255
    return np.ascontiguousarray(mean.transpose(2, 0, 1))


def resize_depth(
    depth: Float[np.ndarray, "H W"],
    valid: Bool[np.ndarray, "H W"],
    region: Region,
    frame_size: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """A depth map of any resolution that covers the whole frame, on the network's grid: (depth, valid).

    Each pixel gets the mean of the valid pixels in its area, and is invalid (depth 1) where there are none.
    ``frame_size`` is (width, height) of the frame in the pixels of ``region``.
    """
    scale = (depth.shape[1] / frame_size[0], depth.shape[0] / frame_size[1])
    left, top, width, height = region
    inner = (left * scale[0], top * scale[1], width * scale[0], height * scale[1])
    share = area_mean(valid, inner, size)
    total = area_mean(np.where(valid, depth, 0), inner, size)
    found = share > 1e-6
    mean = np.where(found, total / np.where(found, share, 1), 1)
    return mean.astype(np.float32), found


def K_in_region(K: Float[Tensor, "3 3"], region: Region, size: tuple[int, int]) -> Float[Tensor, "3 3"]:
    """Intrinsics of the original image in pixels of the network's image."""
    return K_of_crop_resize(K, offset=region[:2], scale=(size[1] / region[2], size[0] / region[3]))


def uv_in_region(uv: Float[Tensor, "*m 2"], region: Region, size: tuple[int, int]) -> Float[Tensor, "*m 2"]:
    """Original pixels in pixels of the network's image; outside [0, width] x [0, height] where it does not see them."""
    scale = uv.new_tensor([size[1] / region[2], size[0] / region[3]])
    return (uv - uv.new_tensor(region[:2])) * scale


def area_mean(values: np.ndarray, region: Region, size: tuple[int, int]) -> Float[np.ndarray, "h w *c"]:
    """Mean of a map [H, W, ...] over the area of each new pixel, exact for borders inside pixels.

    An area is at least one old pixel wide: that makes it bilinear interpolation where the map is enlarged.
    """
    left, top, width, height = region
    rows = _box_mean(values, top, height, size[0])
    return _box_mean(rows.swapaxes(0, 1), left, width, size[1]).swapaxes(0, 1)


def _box_mean(values: np.ndarray, start: float, length: float, count: int) -> np.ndarray:
    """Means over ``count`` equal boxes that share [start, start + length] of axis 0."""
    step = length / count
    centre = start + (np.arange(count) + 0.5) * step
    low = (centre - max(step, 1) / 2).clip(0, len(values))
    high = (centre + max(step, 1) / 2).clip(0, len(values))
    means = np.empty((count, *values.shape[1:]))
    for index, (a, b) in enumerate(zip(low, high, strict=True)):
        edge = np.arange(math.floor(a), math.ceil(b))
        overlap = np.minimum(edge + 1, b) - np.maximum(edge, a)
        means[index] = np.tensordot(overlap / (b - a), values[edge[0] : edge[-1] + 1], axes=1)
    return means


def network_views(capture: Capture, *, long_side: int, patch: int) -> tuple[Views, Float[Tensor, "v 4"]]:
    """Images [v ...] at a size that is a multiple of ``patch``, and the regions (left, top, width, height) they show.

    Regions are in original pixels (corner convention). ``K`` moves along, and is None unless every frame has one.
    """
    size = choose_size(capture.frames, long_side=long_side, patch=patch)
    stretch = MAX_STRETCH if capture.has_K else 1.0  # a network that predicts the focal length assumes square pixels
    regions = [fit_region(frame, size, max_stretch=stretch) for frame in capture.frames]
    images = [resize_image(capture.image(index), region, size) for index, region in enumerate(regions)]
    known = [torch.from_numpy(frame.K) for frame in capture.frames if frame.K is not None]
    K = None
    if len(known) == len(regions):
        K = torch.stack([K_in_region(k, region, size) for k, region in zip(known, regions, strict=True)]).float()
    return Views(image=torch.from_numpy(np.stack(images)), K=K), torch.tensor(regions, dtype=torch.float64)
