"""Monocular depth against the depths that the tracks triangulate: how far to trust it, and where to bend it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.geometry.camera import pixel_grid
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_median
from reliev3r.types import DepthLabels


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """How the sparse depths correct the dense ones."""

    reach: float = 0.12
    """Standard deviation, in image widths, of a track's influence."""
    similarity: float = 0.25
    """Standard deviation, in log depth, of a track's influence: foreground tracks leave the background alone."""
    prior: float = 1.0
    """Weight of the view's own median ratio, in tracks: far from all tracks the label keeps its shape."""
    tolerated: float = 0.1
    """Relative disagreement up to which an expert is fully trusted."""
    min_tracks: int = 12
    """Views with fewer solved tracks keep their label, with half trust."""


def register_depth(
    labels: DepthLabels,
    uv: Float[Tensor, "v m 2"],
    track_depth: Float[Tensor, "v m"],
    valid: Bool[Tensor, "v m"],
    config: RegisterConfig | None = None,
) -> DepthLabels:
    """Bend each view's label smoothly so that it agrees with the triangulated ``track_depth`` at ``uv`` (label pixels).

    The correction is a kernel regression of the log ratio over image position and label depth, shrunk to the view's
    median ratio; so all views come to share one scale. ``trust`` falls where the ratio scatters after registration.
    Pseudo-labels only: tracks and the expert, no ground truth.
    """
    config = config or RegisterConfig()
    depth, trust = labels.depth.clone(), torch.ones(labels.depth.shape[0])
    scales = torch.zeros(labels.depth.shape[0])
    for view in range(len(depth)):
        usable = valid[view] & (sample_bilinear(labels.valid[view].float(), uv[view]) > 0.5)
        if int(usable.sum()) < config.min_tracks:
            trust[view] = 0.5
            continue
        scales[view], correction, scatter = _correction(
            labels.depth[view].clamp_min(1e-6).log(), uv[view, usable], track_depth[view, usable].log(), config
        )
        depth[view] = labels.depth[view] * correction.exp()
        trust[view] = (config.tolerated / scatter).clamp(max=1)
    return dataclasses.replace(labels, depth=depth, trust=trust)


def _correction(
    log_depth: Tensor, uv: Tensor, log_target: Tensor, config: RegisterConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """(median log ratio, log correction map, scatter left) of one view."""
    height, width = log_depth.shape
    at_tracks = sample_bilinear(log_depth, uv)
    ratio = log_target - at_tracks
    ones = torch.ones_like(ratio)
    median = weighted_median(ratio, ones)
    spread = weighted_median((ratio - median).abs(), ones).clamp_min(1e-3)
    gap = (ratio - median).clamp(-4 * spread, 4 * spread)  # a wrong track bends little

    def regress(query_uv: Tensor, query_depth: Tensor, leave_out: bool) -> Tensor:
        distance = torch.cdist(query_uv, uv) / (config.reach * width)
        similarity = (query_depth[:, None] - at_tracks[None]) / config.similarity
        kernel = torch.exp(-0.5 * (distance.square() + similarity.square()))
        if leave_out:
            kernel = kernel - torch.diag_embed(kernel.diagonal())
        return (kernel @ gap) / (kernel.sum(-1) + config.prior)

    correction = median + regress(pixel_grid(height, width).reshape(-1, 2), log_depth.reshape(-1), False)
    scatter = weighted_median((ratio - median - regress(uv, at_tracks, True)).abs(), ones).clamp_min(1e-3)
    return median, correction.reshape(height, width), scatter
