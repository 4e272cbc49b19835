"""Monocular depth against the depths that the tracks triangulate: how far to trust it, and where to bend it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import DepthLabels
from reliev3r.geometry.camera import pixel_grid
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_median

_CLIP = 4.0
"""A track farther than this many median deviations from what its neighbours say counts as wrong."""
_CHUNK = 4096
"""Pixels at a time: bounds the memory of [pixels, tracks]."""


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """How the sparse depths correct the dense ones."""

    reaches: tuple[float, ...] = (0.12, 0.06, 0.03)
    """Standard deviations, in image widths, of a track's influence: bent coarsely first, then what is left finely."""
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
    certainty: Float[Tensor, "v m"],
    config: RegisterConfig | None = None,
) -> DepthLabels:
    """Bend each view's label smoothly so that it agrees with the triangulated ``track_depth`` at ``uv`` (label pixels).

    The correction is a robust kernel regression of the log ratio over image position and label depth, shrunk to the
    view's median ratio; so all views come to share one scale. A lone wrong track bends nothing, whereas several that
    agree move even a label that is grossly wrong around them (glass, reflections). ``trust`` falls where the ratio
    scatters after registration.
    Pseudo-labels only: tracks and the expert, no ground truth.
    """
    config = config or RegisterConfig()
    depth, trust = labels.depth.clone(), torch.ones(labels.depth.shape[0])
    for view in range(len(depth)):
        usable = (certainty[view] > 0) & (sample_bilinear(labels.valid[view].float(), uv[view]) > 0.5)
        if int(usable.sum()) < config.min_tracks:
            trust[view] = 0.5
            continue
        log_depth = labels.depth[view].clamp_min(1e-6).log()
        sparse = (uv[view, usable], track_depth[view, usable].log(), certainty[view, usable])
        correction, scatter = _correction(log_depth, *sparse, config)
        depth[view] = labels.depth[view] * correction.exp()
        trust[view] = (config.tolerated / scatter).clamp(max=1)
    return dataclasses.replace(labels, depth=depth, trust=trust)


def _correction(
    log_depth: Tensor, uv: Tensor, log_target: Tensor, certainty: Tensor, config: RegisterConfig
) -> tuple[Tensor, Tensor]:
    """(log correction map, scatter left) of one view."""
    height, width = log_depth.shape
    at_tracks = sample_bilinear(log_depth, uv)
    ratio = log_target - at_tracks
    median = weighted_median(ratio, certainty)
    pixels = (pixel_grid(height, width).reshape(-1, 2), log_depth.reshape(-1))
    bend, left = torch.zeros_like(pixels[1]), ratio - median
    clip = _CLIP * weighted_median(left.abs(), certainty).clamp_min(1e-3)
    for reach in config.reaches:
        gap, order = left.sort()
        bent = _Regression(gap, uv[order], at_tracks[order], certainty[order], reach * width, clip, config)
        scatter = weighted_median((gap - bent.without_itself()).abs(), certainty[order])
        bend = bend + bent.at(*pixels)
        left = left - bent.at(uv, at_tracks)
    return (median + bend).reshape(height, width), scatter.clamp_min(1e-3)


@dataclass(frozen=True, eq=False)
class _Regression:
    """What tracks near a query in the image and in label depth say that its log depth lacks; ``gap`` ascends."""

    gap: Float[Tensor, " n"]
    uv: Float[Tensor, "n 2"]
    log_depth: Float[Tensor, " n"]
    certainty: Float[Tensor, " n"]
    reach: float
    clip: Float[Tensor, ""]
    config: RegisterConfig

    def at(self, uv: Float[Tensor, "q 2"], log_depth: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
        """At any pixels."""
        chunks = zip(uv.split(_CHUNK), log_depth.split(_CHUNK), strict=True)
        return torch.cat([self._location(self._kernel(*chunk)) for chunk in chunks])

    def without_itself(self) -> Float[Tensor, " n"]:
        """What the other tracks say at each track."""
        kernel = self._kernel(self.uv, self.log_depth)
        return self._location(kernel - torch.diag_embed(kernel.diagonal()))

    def _kernel(self, uv: Tensor, log_depth: Tensor) -> Float[Tensor, "q n"]:
        distance = torch.cdist(uv, self.uv) / self.reach
        similarity = (log_depth[:, None] - self.log_depth[None]) / self.config.similarity
        return self.certainty * torch.exp(-0.5 * (distance.square() + similarity.square()))

    def _location(self, kernel: Float[Tensor, "q n"]) -> Float[Tensor, " q"]:
        """Where the neighbours agree: the mean of their gaps, clipped around the weighted median; with them stands a
        gap of 0 with the weight of the prior."""
        zero = int((self.gap < 0).sum())
        gap = torch.cat([self.gap[:zero], self.gap.new_zeros(1), self.gap[zero:]])
        prior = kernel.new_full((len(kernel), 1), self.config.prior)
        kernel = torch.cat([kernel[:, :zero], prior, kernel[:, zero:]], dim=1)
        cumulative = kernel.cumsum(1)
        middle = gap[torch.searchsorted(cumulative, 0.5 * cumulative[:, -1:])[:, 0].clamp_max(len(gap) - 1)]
        around = (gap - middle[:, None]).clamp(-self.clip, self.clip)
        return middle + (kernel * around).sum(1) / cumulative[:, -1]
