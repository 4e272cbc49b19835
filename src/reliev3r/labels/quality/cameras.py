"""One set of cameras for all tracks: how much of them it explains, at which angles, and under which field of view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.geometry.triangulate import parallax, world_rays
from reliev3r.labels.quality.pairs import focal_pixels, precision
from reliev3r.sfm.graph import MIN_SHARED, balanced_tracks, connected_parts, shared_tracks
from reliev3r.sfm.incremental import CameraSolve, SolveConfig, solve_cameras

MOST_VIEWS = 12
"""Views that cameras are solved for; of more, a sample."""
_TRACKS = 400
_FOCAL_VIEWS, _FOCAL_TRACKS = 3, 100
_FOV_STEPS = 8  # of 20 % in focal length, between the fields of view of 35 and 100 degrees


@dataclass(frozen=True, kw_only=True)
class CameraFigures:
    """What the solve of a sample of views says."""

    views: int
    reached: float
    """Share of the sample's views (of the largest part) that could be placed."""
    explained: float
    """Share of the placed views' observations that agree with one set of cameras and points."""
    parallax_deg: dict[str, float]
    """10th, 50th and 90th percentile of the largest angle between two rays of a track."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSolve:
    """Cameras of a sample of views."""

    views: list[int]
    tracks: Tracks
    """[s, m] of the sample, thinned."""
    solve: CameraSolve
    figures: CameraFigures
    fov_deg: float | None
    """Horizontal field of view of the first view that was found, where none was known."""


def sample_views(tracks: Tracks, count: int) -> list[int]:
    """At most ``count`` views of the largest part: evenly spaced ones where tracks tie those, else a cluster.

    The cluster starts at the best tied view and adds the view that shares most tracks with it, again and again.
    """
    part = connected_parts(tracks.visible)[0]
    if len(part) <= count:
        return part
    spread = [part[k] for k in np.rint(np.linspace(0, len(part) - 1, count)).astype(int)]
    if len(connected_parts(tracks.select_views(spread).visible, min_shared=2 * MIN_SHARED)) == 1:
        return spread
    shared = shared_tracks(tracks.visible)[part][:, part].float()
    chosen = [int((shared.sum(1) - shared.diagonal()).argmax())]
    while len(chosen) < count:
        tied = shared[chosen].sum(0)
        tied[chosen] = -1
        chosen.append(int(tied.argmax()))
    return sorted(part[k] for k in chosen)


def solve_sample(tracks: Tracks, capture: Capture) -> SampleSolve | None:
    """Solve a sample of at most 12 views on at most 400 tracks; None where no pair of views can start a solve."""
    views = sample_views(tracks, MOST_VIEWS)
    thinned = _thinned(tracks, views, _TRACKS)
    fov = None if capture.has_K else _search_fov(tracks, views, capture)
    if fov is None and not capture.has_K:
        return None
    K = sample_intrinsics(capture, views, fov)
    solve = solve_cameras(thinned, K, _settings(capture, K, seeds=2))
    if solve is None:
        return None
    figures = CameraFigures(
        views=len(views),
        reached=float(solve.reached.float().mean()),
        explained=_explained(thinned, solve),
        parallax_deg=_parallax(thinned, K, solve),
    )
    return SampleSolve(views=views, tracks=thinned, solve=solve, figures=figures, fov_deg=fov)


def focal_advice(tracks: Tracks, views: list[int], capture: Capture) -> float | None:
    """The factor by which the tracks would have the known focal lengths multiplied, in [0.8, 1.25].

    By three solves of a few views; None where they cannot be solved or do not care (the costs differ by under 20 %).
    """
    sample, chosen = _focal_sample(tracks, views)
    costs = [_focal_cost(sample, chosen, capture, None, factor) for factor in (0.8, 1.0, 1.25)]
    if not np.isfinite(costs).all() or max(costs) < 1.2 * min(costs):
        return None
    return math.exp(_vertex(*costs) * math.log(1.25))


def _focal_cost(tracks: Tracks, views: list[int], capture: Capture, fov: float | None, factor: float = 1.0) -> float:
    """Unexplained share of the observations, plus how far the explained ones are off in units of the threshold.

    Under the known intrinsics, or ``fov`` degrees, with the focal length multiplied by ``factor``; infinite where
    nothing can be solved. The threshold is a number of pixels: a longer lens shrinks every angle.
    """
    K = sample_intrinsics(capture, views, fov)
    K[:, 0, 0] *= factor
    K[:, 1, 1] *= factor
    config = _settings(capture, K, seeds=1)
    solve = solve_cameras(tracks, K, config)
    if solve is None:
        return math.inf
    share = float(solve.inlier.sum() / tracks.visible.sum())
    return (1 - share) + share * solve.residual / config.inlier_angle


def _focal_sample(tracks: Tracks, views: list[int]) -> tuple[Tracks, list[int]]:
    """A few views and tracks: enough to compare focal lengths on."""
    few = sample_views(tracks.select_views(views), _FOCAL_VIEWS)
    chosen = [views[k] for k in few]
    return _thinned(tracks, chosen, _FOCAL_TRACKS), chosen


def _search_fov(tracks: Tracks, views: list[int], capture: Capture) -> float | None:
    """Horizontal field of view in degrees under which a few views are explained best, by a parabola around it."""
    sample, chosen = _focal_sample(tracks, views)
    wide, narrow = (math.log(0.5 / math.tan(math.radians(fov) / 2)) for fov in (100, 35))
    logs = np.linspace(wide, narrow, _FOV_STEPS)
    costs = np.array([_focal_cost(sample, chosen, capture, _fov(log)) for log in logs])
    best = int(costs.argmin())
    if not math.isfinite(costs[best]):
        return None
    if not 0 < best < len(logs) - 1 or not np.isfinite(costs[best - 1 : best + 2]).all():
        return _fov(logs[best])
    return _fov(logs[best] + _vertex(*costs[best - 1 : best + 2]) * (logs[1] - logs[0]))


def _vertex(left: float, middle: float, right: float) -> float:
    """Place in [-1, 1] of the minimum of the parabola through the values at -1, 0 and 1 (the lowest end if concave)."""
    curvature = left - 2 * middle + right
    if curvature <= 0:
        return float(np.argmin([left, middle, right]) - 1)
    return float(np.clip(0.5 * (left - right) / curvature, -1, 1))


def fov_after(fov: float, factor: float) -> float:
    """Field of view in degrees after the focal length was multiplied by ``factor``."""
    return math.degrees(2 * math.atan(math.tan(math.radians(fov) / 2) / factor))


def _fov(log_focal: float) -> float:
    return math.degrees(2 * math.atan(0.5 / math.exp(log_focal)))


def _thinned(tracks: Tracks, views: list[int], count: int) -> Tracks:
    few = tracks.select_views(views)
    few = few.select_tracks(torch.nonzero(few.visible.sum(0) >= 2)[:, 0])
    return few.select_tracks(balanced_tracks(few, count))


def sample_intrinsics(capture: Capture, views: list[int], fov: float | None) -> Float[Tensor, "s 3 3"]:
    """K of some views: their own, or with the horizontal field of view ``fov`` in degrees."""
    return torch.from_numpy(np.stack([focal_pixels(capture, view, fov) for view in views]))


def _settings(capture: Capture, K: Tensor, *, seeds: int) -> SolveConfig:
    """The solver's own threshold suits 640 pixels; smaller pictures are less precise in angle."""
    return SolveConfig(inlier_angle=1.6 * precision(capture) / float(K[:, 0, 0].mean()), seeds=seeds, max_tracks=300)


def _explained(tracks: Tracks, solve: CameraSolve) -> float:
    seen = tracks.visible & solve.reached[:, None]
    seen = seen & (seen.sum(0) >= 2)
    total = (tracks.weight * seen).sum()  # moving things, which the labels weigh less, count less here too
    return float((tracks.weight * (solve.inlier & seen)).sum() / total) if total > 0 else 0.0


def _parallax(tracks: Tracks, K: Tensor, solve: CameraSolve) -> dict[str, float]:
    angles = track_parallax(tracks, K, solve)
    angles = angles[solve.inlier.any(0)]
    if not len(angles):
        return {}
    values = angles.rad2deg().quantile(torch.tensor([0.1, 0.5, 0.9], dtype=angles.dtype)).tolist()
    return dict(zip(("p10", "median", "p90"), values, strict=True))


def track_parallax(tracks: Tracks, K: Tensor, solve: CameraSolve) -> Float[Tensor, " m"]:
    """Largest angle in radians between two rays of each track that agree with the solve."""
    rays = world_rays(tracks.to(torch.float64), K, solve.world_from_cam)
    return parallax(rays, solve.inlier.double())
