"""Monocular depth against the depths that the tracks triangulate: how far to trust it, and where to bend it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reliev3r.core.types import DepthLabels
from reliev3r.geometry.camera import pixel_grid
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_median

_CLIP = 4.0
"""A track farther than this many median deviations from what its neighbours say counts as wrong."""
_CHUNK = 256
"""Pixels at a time: bounds the memory of [pixels, tracks], and keeps it in the caches of a CPU."""
_TILE = 5.0
"""Side, in reaches, of the tiles of the image whose pixels look for near tracks together."""
_NEGLIGIBLE = 1e-3
"""Share of the prior's weight that the tracks that are left out as too far have at most, all of them together."""


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
        at, solved, sure = (value[view, usable].to(log_depth.dtype) for value in (uv, track_depth, certainty))
        correction, scatter = _correction(log_depth, at, solved.log(), sure, config)
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
    pixels = torch.cat([pixel_grid(height, width), log_depth[..., None]], dim=-1).reshape(-1, 3)
    tracks = torch.cat([uv, at_tracks[:, None]], dim=-1)
    bend, left = torch.zeros_like(pixels[:, 0]), ratio - median
    clip = _CLIP * weighted_median(left.abs(), certainty).clamp_min(1e-3)
    for reach in config.reaches:
        left, order = left.sort()
        tracks, certainty = tracks[order], certainty[order]
        deviation = torch.tensor([reach * width, reach * width, config.similarity])
        bent = _Regression(left, tracks / deviation, certainty, clip, config.prior)
        fitted, foretold = bent.at_tracks()
        scatter = weighted_median((left - foretold).abs(), certainty)
        bend = bend + bent.at(pixels / deviation)
        left = left - fitted
    return (median + bend).reshape(height, width), scatter.clamp_min(1e-3)


@dataclass(frozen=True, eq=False)
class _Regression:
    """What tracks near a query in the image and in label depth say that its log depth lacks; ``gap`` ascends.

    A place is a pixel position and a log depth, in standard deviations of a track's influence.
    """

    gap: Float[Tensor, " n"]
    place: Float[Tensor, "n 3"]
    certainty: Float[Tensor, " n"]
    clip: Float[Tensor, ""]
    prior: float

    def at(self, place: Float[Tensor, "q 3"]) -> Float[Tensor, " q"]:
        """At any places; 0, what the prior says, where no track is near."""
        said = torch.zeros_like(place[:, 0])
        for rows, near, kernel in self._tiles(place):
            said[rows] = self._location(kernel, self.gap[near])
        return said

    def at_tracks(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """At each track, and what the other tracks say there."""
        fitted, foretold = torch.zeros_like(self.gap), torch.zeros_like(self.gap)
        for rows, near, kernel in self._tiles(self.place):
            fitted[rows] = self._location(kernel, self.gap[near])
            others = kernel.masked_fill(rows[:, None] == near, 0)
            foretold[rows] = self._location(others, self.gap[near])
        return fitted, foretold

    def _tiles(
        self, place: Float[Tensor, "q 3"]
    ) -> Iterator[tuple[Int[Tensor, " k"], Int[Tensor, " m"], Float[Tensor, "k m"]]]:
        """(queries, tracks near any of them, kernel) by tiles of the image; none where no track is near."""
        farthest = 2 * (self.certainty.sum() / (_NEGLIGIBLE * self.prior)).log()  # squared; without a prior all count
        column, row = (place[:, :2] / _TILE).floor().long().unbind(1)
        tile, order = (row * 2**20 + column).sort(stable=True)  # two tiles of one number would only cost time
        _, counts = tile.unique_consecutive(return_counts=True)
        for members in order.split(counts.tolist()):
            for rows in members.split(_CHUNK):
                low, high = place[rows].aminmax(dim=0)
                distance = (self.place - self.place.clamp(low, high)).square().sum(1)
                near = (distance < farthest).nonzero()[:, 0]
                if len(near):
                    yield rows, near, self._kernel(place[rows], near, (low + high) / 2)

    def _kernel(
        self, place: Float[Tensor, "k 3"], near: Int[Tensor, " m"], centre: Float[Tensor, " 3"]
    ) -> Float[Tensor, "k m"]:
        """Weight of each near track at each place: squared distances by one matrix product.

        Their sum of large terms of both signs is exact enough only because all is near ``centre``.
        """
        query, track = place - centre, self.place[near] - centre
        weight = self.certainty[near].log() - 0.5 * track.square().sum(1)
        exponent = torch.addmm(weight, query, track.T)
        return exponent.sub_(0.5 * query.square().sum(1, keepdim=True)).exp_()

    def _location(self, kernel: Float[Tensor, "k m"], gap: Float[Tensor, " m"]) -> Float[Tensor, " k"]:
        """Where the neighbours agree: the mean of their gaps, clipped around the weighted median; with them stands a
        gap of 0 with the weight of the prior."""
        zero = int((gap < 0).sum())
        gap = torch.cat([gap[:zero], gap.new_zeros(1), gap[zero:]])
        prior = kernel.new_full((len(kernel), 1), self.prior)
        kernel = torch.cat([kernel[:, :zero], prior, kernel[:, zero:]], dim=1)
        cumulative = kernel.cumsum(1)
        middle = gap[torch.searchsorted(cumulative, 0.5 * cumulative[:, -1:]).clamp_max(len(gap) - 1)]
        clipped = gap.clamp(middle - self.clip, middle + self.clip)
        return torch.linalg.vecdot(kernel, clipped) / cumulative[:, -1]
