"""Experts against tracks and against each other: monocular depth, field of view, what is left out as sky."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from reliev3r.data.capture import Capture
from reliev3r.geometry.camera import focal_from_fov, fov_from_focal
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.quality.cameras import CameraFigures, TrackPairFigures

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
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def _spread(log_ratio: Float[np.ndarray, " n"]) -> float:
    return float(np.expm1(np.median(np.abs(log_ratio - np.median(log_ratio)))))


def given_fov(capture: Capture, view: int) -> float | None:
    """Horizontal field of view in degrees that the capture's intrinsics give for a view."""
    frame = capture.frames[view]
    return None if frame.K is None else math.degrees(fov_from_focal(float(frame.K[0, 0]), frame.width))


def focal_ratio(fov_a: float, fov_b: float) -> float:
    """Focal length of a over that of b, from fields of view in degrees."""
    return focal_from_fov(math.radians(fov_a)) / focal_from_fov(math.radians(fov_b))


@dataclass(frozen=True, kw_only=True)
class TrackFigures:
    """How the tracks tie the views."""

    count: int
    per_view: tuple[int, ...]
    """Tracks that each view sees together with another one."""
    survival: dict[str, float]
    """Share of the tracks alive over 2, 3, 4, 6, 8, ... views."""
    lifetimes: dict[str, float] | None
    """Of a video: share of the tracks seen again 1, 2, 4, 8, ... frames or more after their first."""
    parts: tuple[tuple[str, ...], ...]
    """Frames in parts between which no two share 8 tracks, the largest first."""


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """What a sample of the pictures shows, one entry each."""

    frames: tuple[str, ...]
    sharpness: tuple[float, ...]
    """Variance of the Laplacian over that of the picture, relative to the capture's median."""
    blur: tuple[float, ...]
    streak: tuple[float, ...]
    texture: tuple[float, ...]
    copies: float
    """Share of the keypoints with a confirmed look-alike in the same picture, median."""
    mirrored: float
    """The same in the mirrored picture."""


@dataclass(frozen=True, kw_only=True)
class DepthFigures:
    """Monocular depth in a sample of the views."""

    views: int
    invalid: float
    """Share of the pixels that the expert leaves out: sky, and what it does not trust."""
    compared: int
    """Views with enough triangulated tracks; the medians below are over these."""
    rank_correlation: float | None
    scale_error: float | None
    """Median relative error after one factor a view."""
    flat_error: float | None
    """The same for a constant depth."""


@dataclass(frozen=True, kw_only=True)
class FovFigures:
    """Horizontal field of view of a frame in degrees, by whoever has an opinion."""

    given: float | None
    source: str | None
    exif: float | None
    expert: float | None
    tracks: float | None
    """What explains the tracks best; near what is given, unless that cannot be right."""


@dataclass(frozen=True, kw_only=True)
class LabelFigures:
    """Everything."""

    views: int
    tracks: TrackFigures
    pairs: TrackPairFigures | None
    cameras: CameraFigures | None
    images: ImageFigures
    depth: DepthFigures | None
    fov: FovFigures
