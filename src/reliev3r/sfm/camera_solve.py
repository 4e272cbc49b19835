"""What a solve of cameras from tracks comes to, whichever engine made it, and what judges it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import CameraLabels, Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import angle_between
from reliev3r.geometry.triangulate import agreeing_points
from reliev3r.sfm.track_graph import balanced_tracks

_PAIR_CERTAINTY = 0.25
"""Of a point that two views alone see: a wrong match along the epipolar line fits two views, hardly ever three."""
_LEAST = 20
"""Inlier observations without which a view's camera is not believed."""


@dataclass(frozen=True, kw_only=True)
class SolveConfig:
    """Thresholds in radians; one pixel of a 640-pixel photograph of 60 degrees is about 0.0018."""

    inlier_angle: float = 0.004
    """Largest residual of an observation that counts."""
    min_parallax: float = math.radians(1.5)
    """Tracks below this angle give no depth and no point to resect a view from."""
    min_seed_matches: int = 16
    min_resection: int = 8
    """Solved tracks that a view must see to be added."""
    seeds: int = 4
    """Seed pairs that compete."""
    max_tracks: int = 1000
    """Tracks that up to 25 views are grown on (the best balanced ones), in proportion of more; all count in the end."""


@dataclass(frozen=True, kw_only=True)
class CameraSolve:
    """Cameras and points that explain the tracks."""

    world_from_cam: Float[Tensor, "v 4 4"]
    """Any world frame; the unit is that of ``CameraLabels``."""
    reached: Bool[Tensor, " v"]
    points: Float[Tensor, "m 3"]
    inlier: Bool[Tensor, "v m"]
    """Observations that agree with cameras and points."""
    solid: Bool[Tensor, " m"]
    """Tracks with enough parallax to have a depth."""
    residual: float
    """Median angle in radians over the inliers."""

    @property
    def score(self) -> float:
        """Explained observations, the judge between seeds and focal lengths."""
        return float(self.inlier.sum())

    @property
    def labels(self) -> CameraLabels:
        """As the objective takes them."""
        return CameraLabels(world_from_cam=self.world_from_cam.float(), weight=self.reached.float())

    @property
    def track_depth(self) -> tuple[Float[Tensor, "v m"], Float[Tensor, "v m"]]:
        """z-depth of each track's point in each view, and its certainty: 0 where the view disagrees or the parallax is
        too small, 0.25 where two views alone see the point, else 1."""
        axis, centre = self.world_from_cam[:, :3, 2], self.world_from_cam[:, :3, 3]
        z = axis @ self.points.T - (axis * centre).sum(-1, keepdim=True)
        valid = self.inlier & self.solid & (z > 1e-6)
        certainty = torch.where(self.inlier.sum(0) > 2, 1.0, _PAIR_CERTAINTY) * valid
        return torch.where(valid, z, torch.ones_like(z)).float(), certainty


def growing_tracks(tracks: Tracks, config: SolveConfig) -> Tracks:
    """Those that cameras are grown on: enough to tie each view."""
    views = len(tracks.weight)
    return tracks.select_tracks(balanced_tracks(tracks, round(config.max_tracks * max(1.0, views / 25))))


def solve_under(
    world_from_cam: Float[Tensor, "v 4 4"],
    reached: Bool[Tensor, " v"],
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    config: SolveConfig,
) -> CameraSolve:
    """What given cameras explain of the tracks [v, m], all in the unit of ``CameraLabels``; views that are not
    ``reached`` take no part and lie at the origin."""
    with one_thread():
        cameras = world_from_cam.double().clone()
        found = agreeing_points(_seen_by(tracks, reached), K, cameras, max_angle=config.inlier_angle)
        view, track = found.inlier.nonzero(as_tuple=True)
        middle = cameras[reached, :3, 3].mean(0)
        distance = (found.points[track] - cameras[view, :3, 3]).norm(dim=-1)
        unit = distance.clamp_min(1e-9).log().mean().exp() if len(view) else distance.new_ones(())
        cameras[:, :3, 3] = torch.where(reached[:, None], (cameras[:, :3, 3] - middle) / unit, 0.0)
        points = (found.points - middle) / unit
        rays = rays_from_uv(tracks.uv[view, track][:, None].double(), K[view].double())[:, 0]
        towards = (cameras[view, :3, :3].mT @ (points[track] - cameras[view, :3, 3])[..., None])[..., 0]
        residual = float(angle_between(rays, towards).median()) if len(view) else math.inf
        solid = found.inlier.any(0) & (found.parallax > config.min_parallax)
    return CameraSolve(
        world_from_cam=cameras, reached=reached, points=points, inlier=found.inlier, solid=solid, residual=residual
    )


def explained_by(
    world_from_cam: Float[Tensor, "v 4 4"],
    reached: Bool[Tensor, " v"],
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    config: SolveConfig,
) -> Bool[Tensor, "v m"]:
    """Observations of any tracks [v, m] that agree with given cameras: within ``config.inlier_angle`` of a point that
    two views or more have in common. Cameras that are not ``reached`` take no part."""
    with one_thread():
        return agreeing_points(_seen_by(tracks, reached), K, world_from_cam, max_angle=config.inlier_angle).inlier


def believed(solve: CameraSolve, tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig) -> CameraSolve:
    """``solve`` without the views that too few of their observations support: they are nobody's guess."""
    reached = solve.reached
    while int(reached.sum()) > 1:
        inlier = explained_by(solve.world_from_cam, reached, tracks, K, config)
        weak = reached & (inlier.sum(-1) < _LEAST)
        if not weak.any():
            break
        reached = reached & ~weak
    if torch.equal(reached, solve.reached):
        return solve
    inlier = explained_by(solve.world_from_cam, reached, tracks, K, config)
    return dataclasses.replace(solve, reached=reached, inlier=inlier)


@contextmanager
def one_thread() -> Iterator[None]:
    """Thousands of small operations are several times slower when threads are woken for each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seen_by(tracks: Tracks, reached: Bool[Tensor, " v"]) -> Tracks:
    return dataclasses.replace(tracks, weight=tracks.weight * reached[:, None])
