"""Colours for people: maps as pictures and one distinct colour per view."""

from __future__ import annotations

import colorsys
import logging
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.core.files import atomic_path
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.geometry.sampling import depth_edges

COLOUR_MAPS = {"depth": cv2.COLORMAP_TURBO, "conf": cv2.COLORMAP_VIRIDIS}
_NOTHING = 128  # grey: neither map contains it


def colour_map(
    values: np.ndarray, low: float, high: float, *, kind: str, valid: np.ndarray | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a map [h, w] on a linear scale from ``low`` to ``high`` (clipped); grey where not ``valid``."""
    known = np.isfinite(values) if valid is None else np.isfinite(values) & valid
    unit = np.where(known, (values - low) / max(high - low, 1e-12), 0.0)
    picture = cv2.applyColorMap((unit.clip(0, 1) * 255).round().astype(np.uint8), COLOUR_MAPS[kind])
    picture[~known] = _NOTHING
    return np.ascontiguousarray(picture[..., ::-1])


def depth_picture(depth: np.ndarray, near: float, far: float) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a depth map, logarithmic from ``near`` (blue) to ``far`` (red); grey where not positive."""
    known = np.isfinite(depth) & (depth > 0)
    logarithm = np.log(np.where(known, depth, 1.0))
    return colour_map(logarithm, float(np.log(near)), float(np.log(far)), kind="depth", valid=known)


def view_colours(count: int) -> UInt8[np.ndarray, "count 3"]:
    """RGB colours that run through the hues from red to violet in the order of the views."""
    hues = np.linspace(0, 0.83, count)
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(h, 0.85, 0.9)] for h in hues], dtype=np.uint8)


_log = logging.getLogger(__name__)
_FEWEST = 100
_SMALLEST_SHARE = 0.1
"""Where the edge filter leaves less than this of the confident pixels, it fits the maps badly and is not used."""
_GRAZING = math.tan(math.radians(85))


def coloured_points(
    reconstruction: Reconstruction,
    *,
    keep: float = 0.8,
    edge_rtol: float = 0.05,
    max_points: int = 1_000_000,
) -> tuple[Float[Tensor, "n 3"], UInt8[Tensor, "n 3"]]:
    """World points of the most confident pixels with their colours; never empty.

    ``keep`` is the share of pixels to keep, by confidence over all views together (a percentile, so that it means the
    same for every model); pixels that float between surfaces (:func:`floating_pixels` with ``edge_rtol``) are left out.
    Where this leaves next to nothing, the most confident pixels are given all the same, with a warning. At most
    ``max_points`` are drawn, evenly at random with a fixed seed, in the order of the pixels.
    """
    prediction = reconstruction.prediction
    confident = _most_confident(prediction.conf, keep)
    chosen = confident & ~floating_pixels(prediction, rtol=edge_rtol)
    if int(chosen.sum()) < min(chosen.numel(), max(_FEWEST, _SMALLEST_SHARE * int(confident.sum()))):
        chosen = _most_confident(prediction.conf, max(keep, _FEWEST / chosen.numel()))
        _log.warning("almost every pixel lies at a depth edge: points are exported without the edge filter")
    index = chosen.flatten().nonzero()[:, 0]
    if len(index) > max_points:
        generator = torch.Generator().manual_seed(0)
        index = index[torch.randperm(len(index), generator=generator)[:max_points].sort().values]
    return prediction.points_world.reshape(-1, 3)[index], reconstruction.image.reshape(-1, 3)[index]


def floating_pixels(prediction: Prediction, *, rtol: float) -> Bool[Tensor, "v h w"]:
    """Pixels at a step of the depth or on a ramp across one, told from slanted surfaces at any resolution.

    Inverse depth is linear over the image of a plane, however slanted: a second difference above ``rtol`` of it is a
    step. A network's blurred step is a ramp, known by its slope: a surface seen at more than 85 degrees.
    """
    inverse = 1 / prediction.depth
    kink = torch.zeros_like(inverse, dtype=torch.bool)
    for axis in (1, 2):
        size = inverse.shape[axis] - 2
        if size > 0:
            before, here, after = (inverse.narrow(axis, start, size) for start in (0, 1, 2))
            kink.narrow(axis, 1, size).logical_or_((before + after - 2 * here).abs() > rtol * here)
    pixel_angle = 1 / float(prediction.K[:, 0, 0].mean())
    return kink | depth_edges(prediction.depth, rtol=max(rtol, 2 * pixel_angle * _GRAZING))


def _most_confident(conf: Tensor, keep: float) -> Bool[Tensor, "v h w"]:
    """Pixels at or above the confidence of the last of the best ``keep``; a constant map is kept whole."""
    count = min(conf.numel(), max(1, round(keep * conf.numel())))
    return conf >= conf.flatten().kthvalue(conf.numel() - count + 1).values


def write_ply(reconstruction: Reconstruction, path: Path | str, *, keep: float = 0.8) -> int:
    """Write the confident points (x, y, z, colour), in the reconstruction's own world frame; returns their number."""
    import trimesh

    points, colours = coloured_points(reconstruction, keep=keep)
    cloud = trimesh.PointCloud(points.numpy(), colors=colours.numpy())
    with atomic_path(path) as temporary:
        temporary.write_bytes(cloud.export(file_type="ply"))
    return len(points)
