"""Two-view geometry of the finished tracks: do they obey one, and does the camera move or only turn?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.intrinsics import centred_K
from reliev3r.geometry.camera import focal_from_fov, fov_from_focal, rays_from_uv
from reliev3r.geometry.rigid import angle_between, rotation_from_9d
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.geometry.triangulate import parallax, world_rays
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig
from reliev3r.sfm.focal import FOVS_DEG, contradicting_focal, focal_advice, solve_focal
from reliev3r.sfm.solve_cameras import solve_cameras
from reliev3r.sfm.track_graph import balanced_tracks, sample_views
from reliev3r.sfm.two_view import epipolar_distance, estimate_fundamental

MIN_MATCHES = 16
"""Pairs of views that share fewer tracks are not judged."""
MOST_PAIRS = 64


@dataclass(frozen=True, kw_only=True)
class TrackPairFigures:
    """Over the judged pairs of views."""

    pairs: int
    epipolar_inliers: float
    """Share of the matches that obey the two-view geometry of their pair."""
    turned_only: float
    """Share of the tracks that a turning camera explains in all their pairs: no depth can be learnt from them."""
    parallax_deg: float
    """Median over the tracks of the largest angle that a turning camera leaves unexplained (a lower bound)."""


def precision(capture: Capture) -> float:
    """How far a good match may be off, in original pixels: as the matchers have it."""
    longest = max(max(frame.width, frame.height) for frame in capture.frames)
    return max(1.5, 0.0015 * longest)


def judge_pairs(tracks: Tracks, capture: Capture) -> TrackPairFigures | None:
    """Judge up to 64 pairs of views, from the best tied to the least; None where no two views share 16 tracks.

    A rotation is fitted to the rays of each pair; where the intrinsics are unknown, under the field of view (one for
    all pairs) under which rotations explain most.
    """
    uv, seen = tracks.uv.double().numpy(), tracks.visible.numpy()
    pairs = _chosen_pairs(seen)
    if not pairs:
        return None
    threshold = precision(capture)
    matches = [np.nonzero(seen[a] & seen[b])[0] for a, b in pairs]
    kept = [
        _epipolar_inliers(uv[a, both], uv[b, both], capture, a, b, threshold)
        for (a, b), both in zip(pairs, matches, strict=True)
    ]
    total, inliers = sum(map(len, matches)), sum(int(k.sum()) for k in kept)
    fovs: tuple[float | None, ...] = (None,) if capture.has_K else FOVS_DEG
    best: tuple[float, float] | None = None
    for fov in fovs:
        figures = _turned(uv, pairs, matches, kept, capture, fov, threshold)
        if best is None or figures[0] > best[0]:
            best = figures
    assert best is not None
    return TrackPairFigures(
        pairs=len(pairs), epipolar_inliers=inliers / total, turned_only=best[0], parallax_deg=math.degrees(best[1])
    )


def focal_pixels(capture: Capture, view: int, fov: float | None) -> Float[np.ndarray, "3 3"]:
    """K of a view: its own, or with the horizontal field of view ``fov`` in degrees."""
    frame = capture.frames[view]
    if fov is None:
        assert frame.K is not None
        return frame.K
    return centred_K(frame, focal_from_fov(math.radians(fov), frame.width))


def _chosen_pairs(seen: Bool[np.ndarray, "v m"]) -> list[tuple[int, int]]:
    shared = seen.astype(np.float32) @ seen.T.astype(np.float32)
    pairs = [pair for pair in combinations(range(len(seen)), 2) if shared[pair] >= MIN_MATCHES]
    pairs.sort(key=lambda pair: (-shared[pair], pair))
    return evenly_spaced(pairs, MOST_PAIRS)


def _epipolar_inliers(
    uv_a: np.ndarray, uv_b: np.ndarray, capture: Capture, a: int, b: int, threshold: float
) -> Bool[np.ndarray, " n"]:
    F = estimate_fundamental(uv_a, uv_b, capture.frames[a].K, capture.frames[b].K, threshold=threshold)
    return np.zeros(len(uv_a), bool) if F is None else epipolar_distance(F, uv_a, uv_b) < threshold


def _turned(
    uv: np.ndarray, pairs: list[tuple[int, int]], matches: list[np.ndarray], kept: list[np.ndarray],
    capture: Capture, fov: float | None, threshold: float,
) -> tuple[float, float]:  # fmt: skip
    """(share of the tracks that rotations explain everywhere, median of the tracks' largest unexplained angle)."""
    largest = np.full(uv.shape[1], -1.0)
    excess = np.zeros(uv.shape[1])
    for (a, b), both, keep in zip(pairs, matches, kept, strict=True):
        used = both[keep]
        if len(used) < 3:
            continue
        K_a, K_b = focal_pixels(capture, a, fov), focal_pixels(capture, b, fov)
        angle = unexplained_angle(_rays(uv[a, used], K_a), _rays(uv[b, used], K_b), threshold / K_b[0, 0]).numpy()
        largest[used] = np.maximum(largest[used], angle)
        excess[used] = np.maximum(excess[used], angle * K_b[0, 0] / threshold)
    judged = largest >= 0
    if not judged.any():
        return 0.0, 0.0
    return float((excess[judged] < 1).mean()), float(np.median(largest[judged]))


def unexplained_angle(a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"], scale: float) -> Float[Tensor, " n"]:
    """Angle in radians between rays b and the best rotation of rays a (unit length, float64, n >= 3).

    Robustly fitted (Cauchy, down to ``scale`` radians), so that rays without parallax decide where there are any.
    """
    angle = torch.zeros_like(a[:, 0])
    for factor in (math.inf, 16, 8, 4, 2, 1, 1):
        weight = 1 / (1 + (angle / (factor * scale)).square())
        rotation = rotation_from_9d((weight[:, None] * b).mT @ a)
        angle = angle_between(a @ rotation.mT, b)
    return angle


def _rays(uv: np.ndarray, K: np.ndarray) -> Float[Tensor, "n 3"]:
    return torch.nn.functional.normalize(rays_from_uv(torch.from_numpy(uv), torch.from_numpy(K)), dim=-1)


MOST_VIEWS = 12
"""Views that cameras are solved for; of more, a sample."""
_TRACKS = 400
_FOCAL_VIEWS, _FOCAL_TRACKS = 3, 100


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


def solve_sample(tracks: Tracks, capture: Capture) -> SampleSolve | None:
    """Solve a sample of at most 12 views on at most 400 tracks; None where no pair of views can start a solve."""
    views = sample_views(tracks, MOST_VIEWS)
    thinned = _thinned(tracks, views, _TRACKS)
    fov = None if capture.has_K else _search_fov(tracks, views, capture)
    if fov is None and not capture.has_K:
        return None
    K = sample_intrinsics(capture, views, fov)
    solve = solve_cameras(thinned, K, _settings(capture, float(K[:, 0, 0].mean()), seeds=2))
    if solve is None:
        return None
    figures = CameraFigures(
        views=len(views),
        reached=float(solve.reached.float().mean()),
        explained=_explained(thinned, solve),
        parallax_deg=_parallax(thinned, K, solve),
    )
    return SampleSolve(views=views, tracks=thinned, solve=solve, figures=figures, fov_deg=fov)


def advised_fov(tracks: Tracks, views: list[int], capture: Capture, fov_deg: float) -> float | None:
    """What a few views would have instead of the known horizontal field of view (degrees), near it or far from it.

    None where they cannot be solved or do not care.
    """
    sample, chosen = _focal_sample(tracks, views)
    K = sample_intrinsics(capture, chosen, None)
    settings = _settings(capture, float(K[:, 0, 0].mean()), seeds=1)
    far = contradicting_focal(sample, K, _sizes(capture, chosen), settings)
    if far is not None:
        return math.degrees(fov_from_focal(far))
    factor = focal_advice(sample, K, settings)
    if factor is None:
        return None
    return math.degrees(fov_from_focal(factor * focal_from_fov(math.radians(fov_deg))))


def _sizes(capture: Capture, views: list[int]) -> list[tuple[int, int]]:
    return [(capture.frames[view].height, capture.frames[view].width) for view in views]


def _search_fov(tracks: Tracks, views: list[int], capture: Capture) -> float | None:
    """Horizontal field of view in degrees under which a few views are explained best."""
    sample, chosen = _focal_sample(tracks, views)
    sizes = _sizes(capture, chosen)
    width = sum(width for _, width in sizes) / len(sizes)
    found = solve_focal(sample, sizes, config=_settings(capture, width, seeds=1))
    return None if found is None else math.degrees(fov_from_focal(found[0]))


def _focal_sample(tracks: Tracks, views: list[int]) -> tuple[Tracks, list[int]]:
    """A few views and tracks: enough to compare focal lengths on."""
    few = sample_views(tracks.select_views(views), _FOCAL_VIEWS)
    chosen = [views[k] for k in few]
    return _thinned(tracks, chosen, _FOCAL_TRACKS), chosen


def _thinned(tracks: Tracks, views: list[int], count: int) -> Tracks:
    few = tracks.select_views(views)
    few = few.select_tracks(torch.nonzero(few.visible.sum(0) >= 2)[:, 0])
    return few.select_tracks(balanced_tracks(few, count))


def sample_intrinsics(capture: Capture, views: list[int], fov: float | None) -> Float[Tensor, "s 3 3"]:
    """K of some views: their own, or with the horizontal field of view ``fov`` in degrees."""
    return torch.from_numpy(np.stack([focal_pixels(capture, view, fov) for view in views]))


def _settings(capture: Capture, focal: float, *, seeds: int) -> SolveConfig:
    """The solver's own threshold suits 640 pixels; smaller pictures are less precise in angle (``focal`` in pixels)."""
    return SolveConfig(inlier_angle=1.6 * precision(capture) / focal, seeds=seeds, max_tracks=300)


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
