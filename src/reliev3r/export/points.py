"""The confident part of a reconstruction as one coloured point cloud."""

from __future__ import annotations

import logging

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.geometry.sampling import depth_edges
from reliev3r.reconstruction import Reconstruction

_log = logging.getLogger(__name__)
_FEWEST = 100  # fewer points than this (or than there are pixels) show nobody anything


def coloured_points(
    reconstruction: Reconstruction,
    *,
    keep: float = 0.8,
    edge_rtol: float = 0.05,
    max_points: int = 1_000_000,
) -> tuple[Float[Tensor, "n 3"], UInt8[Tensor, "n 3"]]:
    """World points of the most confident pixels with their colours; never empty.

    ``keep`` is the share of pixels to keep, by confidence over all views together (a percentile, so that it means the
    same for every model); pixels at depth edges (3x3 range above ``edge_rtol`` of the depth) are left out because they
    float between surfaces. Where this leaves next to nothing, the most confident pixels are given regardless of edges,
    with a warning. At most ``max_points`` are drawn, evenly at random with a fixed seed, in the order of the pixels.
    """
    prediction = reconstruction.prediction
    confident = _most_confident(prediction.conf, keep)
    chosen = confident & ~depth_edges(prediction.depth, rtol=edge_rtol)
    if int(chosen.sum()) < min(_FEWEST, chosen.numel()):
        chosen = _most_confident(prediction.conf, max(keep, _FEWEST / chosen.numel()))
        _log.warning("almost every pixel lies at a depth edge: points are exported without the edge filter")
    index = chosen.flatten().nonzero()[:, 0]
    if len(index) > max_points:
        generator = torch.Generator().manual_seed(0)
        index = index[torch.randperm(len(index), generator=generator)[:max_points].sort().values]
    return prediction.points_world.reshape(-1, 3)[index], reconstruction.image.reshape(-1, 3)[index]


def _most_confident(conf: Tensor, keep: float) -> Bool[Tensor, "v h w"]:
    """Pixels at or above the confidence of the last of the best ``keep``; a constant map is kept whole."""
    count = min(conf.numel(), max(1, round(keep * conf.numel())))
    return conf >= conf.flatten().kthvalue(conf.numel() - count + 1).values
