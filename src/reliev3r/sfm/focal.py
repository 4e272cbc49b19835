"""The focal length by the tracks: the one under which cameras explain them best, each tried with a solve of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import K_from_focal, focal_from_fov, fov_from_focal, rays_from_uv
from reliev3r.geometry.triangulate import triangulation_angles
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig
from reliev3r.sfm.solve_cameras import FEW_VIEWS, solve_cameras
from reliev3r.sfm.track_graph import sample_views

FOVS_DEG = (110, 90, 75, 62, 52, 43, 35)
"""Horizontal fields of view, in degrees, that are tried where none is known."""
_STEPS = (0.12, 0.06, 0.03, 0.015)
"""Then this far to both sides of the best one, in the logarithm of the focal length."""
_ADVISED = 1.25
"""Known focal lengths are compared with those this factor shorter and longer."""

_CLEARLY = 1.5
"""Known intrinsics are in doubt where others leave this much less unexplained."""


def solve_focal(
    tracks: Tracks,
    sizes: Sequence[tuple[int, int]],
    *,
    config: SolveConfig | None = None,
    progress: Progress | None = None,
) -> tuple[float, CameraSolve] | None:
    """Shared focal length in image widths, with the cameras solved under it, by search over 35 to 110 degrees.

    ``sizes`` are each view's (height, width) of the pixels that ``tracks`` [v, m] are in; square pixels and a centred
    principal point are assumed. Of many views a sample that is tied well is searched, then all are solved.
    ``config.inlier_angle`` is for a focal length of one image width: a longer lens shrinks every angle. None where no
    pair of views can start a solve.
    """
    config = config or SolveConfig()
    if len(sizes) <= FEW_VIEWS:
        return _search(tracks, sizes, config, progress)
    sample = sample_views(tracks, FEW_VIEWS)
    few = tracks.select_views(sample)
    few = few.select_tracks((few.visible.sum(0) >= 2).nonzero()[:, 0])
    found = _search(few, [sizes[view] for view in sample], config, progress)
    if found is None:
        return None
    focal, _ = found
    config = replace(config, inlier_angle=config.inlier_angle / focal)
    solve = solve_cameras(tracks, _shared_K(focal, sizes), config, progress)
    return None if solve is None else (focal, solve)


def _shared_K(focal: float, sizes: Sequence[tuple[int, int]]) -> Float[Tensor, "v 3 3"]:
    """Centred intrinsics of one focal length in image widths."""
    return torch.stack([K_from_focal(torch.tensor(focal * width), height, width) for height, width in sizes])


def _search(
    tracks: Tracks, sizes: Sequence[tuple[int, int]], config: SolveConfig, progress: Progress | None
) -> tuple[float, CameraSolve] | None:
    """As :func:`solve_focal`, each focal length tried on all views."""
    config = replace(config, seeds=1, max_tracks=300)
    costs: dict[float, float] = {}
    solves: dict[float, CameraSolve | None] = {}

    def cost(log_focal: float) -> float:
        if log_focal not in costs:
            focal = math.exp(log_focal)
            if progress:
                fov = math.degrees(fov_from_focal(focal))
                progress(len(costs), most, f"trying a field of view of {fov:.0f} degrees")
            scaled = replace(config, inlier_angle=config.inlier_angle / focal)
            costs[log_focal], solves[log_focal] = _explained(tracks, _shared_K(focal, sizes), scaled)
        return costs[log_focal]

    grid = [math.log(focal_from_fov(math.radians(fov))) for fov in FOVS_DEG]
    most = len(grid) + 2 * len(_STEPS)
    best = min(grid, key=cost)
    for step in _STEPS if solves[best] is not None else ():
        best = min((best - step, best, best + step), key=cost)
    solve = solves[best]
    if progress:
        progress(most, most, "")
    return None if solve is None else (math.exp(best), solve)


def focal_advice(tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig) -> float | None:
    """The factor by which the tracks [v, m] would have known focal lengths multiplied, in [0.8, 1.25].

    By three solves; None where the views cannot be solved or do not care (the costs differ by under 20 %).
    ``config.inlier_angle`` is for ``K``.
    """
    costs = []
    for factor in (1 / _ADVISED, 1.0, _ADVISED):
        scaled = replace(config, inlier_angle=config.inlier_angle / factor)
        costs.append(_explained(tracks, K * K.new_tensor([factor, factor, 1.0]), scaled)[0])
    if not np.isfinite(costs).all() or max(costs) < 1.2 * min(costs):
        return None
    return _ADVISED ** _vertex(*costs)


def contradicting_focal(
    tracks: Tracks, K: Float[Tensor, "v 3 3"], sizes: Sequence[tuple[int, int]], config: SolveConfig
) -> float | None:
    """The focal length in image widths that the tracks [v, m] have, where known intrinsics cannot be right.

    Found as in :func:`solve_focal`, centred, however far from ``K`` it is: K of another size of the images is off by
    a factor, its centre too. None where it does not explain the tracks clearly better. ``sizes`` are (height, width),
    ``config.inlier_angle`` is for ``K``.
    """
    known, _ = _explained(tracks, K, config)
    width = sum(width for _, width in sizes) / len(sizes)
    found = solve_focal(
        tracks, sizes, config=replace(config, inlier_angle=config.inlier_angle * float(K[:, 0, 0].mean()) / width)
    )
    if found is None:
        return None
    own = _shared_K(found[0], sizes).to(K)
    scale = float(K[:, 0, 0].mean() / own[:, 0, 0].mean())
    cost, _ = _explained(tracks, own, replace(config, inlier_angle=config.inlier_angle * scale))
    return found[0] if known > _CLEARLY * cost else None


def _explained(tracks: Tracks, K: Tensor, config: SolveConfig) -> tuple[float, CameraSolve | None]:
    """Mean over all observations of min(angle / threshold, 1), and the solve; infinite where nothing can be solved.

    Views that were not reached count as 1.
    """
    solve = solve_cameras(tracks, K, config)
    if solve is None:
        return math.inf, None
    rays = torch.nn.functional.normalize(rays_from_uv(tracks.uv.double(), K.double()), dim=-1)
    rays = rays @ solve.world_from_cam[:, :3, :3].double().mT
    angles = triangulation_angles(solve.points.double(), rays, solve.world_from_cam[:, :3, 3].double())
    seen = tracks.weight > 0
    angles = torch.where(solve.reached[:, None] & torch.isfinite(angles), angles, torch.full_like(angles, math.pi))
    return float((angles[seen] / config.inlier_angle).clamp_max(1).mean()), solve


def _vertex(left: float, middle: float, right: float) -> float:
    """Place in [-1, 1] of the minimum of the parabola through the values at -1, 0 and 1 (the lowest end if concave)."""
    curvature = left - 2 * middle + right
    if curvature <= 0:
        return float(np.argmin([left, middle, right]) - 1)
    return float(np.clip(0.5 * (left - right) / curvature, -1, 1))
