"""Experts against tracks and against each other: monocular depth, field of view, what is left out as sky."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from reliev3r.data.capture import Capture
from reliev3r.labels.expert import DepthMap

MIN_TRACKS = 12
"""Views with fewer triangulated tracks are not compared."""


@dataclass(frozen=True, kw_only=True)
class DepthAgreement:
    """Monocular depth of one view against the depths that tracks triangulate."""

    tracks: int
    rank_correlation: float
    """Spearman's, in [-1, 1]."""
    scale_error: float
    """Median relative error after one factor for the view."""
    flat_error: float
    """The same for a constant depth: what an expert must beat."""


def compare_depth(
    depth: DepthMap,
    uv: Float[np.ndarray, "n 2"],
    track_depth: Float[np.ndarray, " n"],
    size: tuple[int, int],
) -> DepthAgreement | None:
    """Compare a map with track depths (any unit) at ``uv``, pixels of an image of ``size`` (width, height).

    None where fewer than 12 tracks lie on valid pixels.
    """
    height, width = depth.valid.shape
    x = np.clip((uv[:, 0] * width / size[0]).astype(int), 0, width - 1)
    y = np.clip((uv[:, 1] * height / size[1]).astype(int), 0, height - 1)
    usable = depth.valid[y, x]
    if usable.sum() < MIN_TRACKS:
        return None
    expert, target = np.log(depth.depth[y, x][usable].astype(np.float64)), np.log(track_depth[usable])
    return DepthAgreement(
        tracks=int(usable.sum()),
        rank_correlation=spearman(expert, target),
        scale_error=_spread(target - expert),
        flat_error=_spread(target),
    )


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation; ties share their mean rank; 0 where either is constant."""
    x, y = (_ranks(values) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    end = np.cumsum(counts)
    return ((end - counts) + (end - 1))[inverse] / 2.0


def _spread(log_ratio: Float[np.ndarray, " n"]) -> float:
    return float(np.expm1(np.median(np.abs(log_ratio - np.median(log_ratio)))))


def given_fov(capture: Capture, view: int) -> float | None:
    """Horizontal field of view in degrees that the capture's intrinsics give for a view."""
    frame = capture.frames[view]
    return None if frame.K is None else math.degrees(2 * math.atan(0.5 * frame.width / frame.K[0, 0]))


def focal_ratio(fov_a: float, fov_b: float) -> float:
    """Focal length of a over that of b, from fields of view in degrees."""
    return math.tan(math.radians(fov_b) / 2) / math.tan(math.radians(fov_a) / 2)
