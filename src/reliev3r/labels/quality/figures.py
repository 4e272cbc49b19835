"""What is measured on the labels of one capture. Shares lie in [0, 1]; None is what could not be measured."""

from __future__ import annotations

from dataclasses import dataclass

from reliev3r.labels.quality.cameras import CameraFigures
from reliev3r.labels.quality.pairs import PairFigures


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
    """What explains the tracks best; within 25 % in focal length of what is given, where something is."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything."""

    views: int
    tracks: TrackFigures
    pairs: PairFigures | None
    cameras: CameraFigures | None
    images: ImageFigures
    depth: DepthFigures | None
    fov: FovFigures
