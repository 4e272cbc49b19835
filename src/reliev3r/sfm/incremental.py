"""Label-side camera solve: pseudo cameras from tracks alone, an early teacher for the pose head.

Seed pairs from the essential matrix, views added one by one where the most solved tracks tie them (PnP), and after
each a few steps of angular bundle adjustment - the residual of the paper's reprojection loss, with free cameras and
points. It reads tracks and intrinsics, never ground truth; several seeds compete and the one that explains most
observations wins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import CameraLabels, Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import rigid_from
from reliev3r.geometry.triangulate import parallax, triangulate, triangulation_angles
from reliev3r.sfm.bundle_torch import BundleConfig, bundle_adjust
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
    """Tracks that the views are grown on (the best balanced ones); all take part in the end."""


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
        rotation, centre = self.world_from_cam[:, :3, :3], self.world_from_cam[:, :3, 3]
        z = ((self.points[None] - centre[:, None]) * rotation[:, None, :, 2]).sum(-1)
        valid = self.inlier & self.solid & (z > 1e-6)
        certainty = torch.where(self.inlier.sum(0) > 2, 1.0, _PAIR_CERTAINTY) * valid
        return torch.where(valid, z, torch.ones_like(z)).float(), certainty


def solve_cameras(tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig | None = None) -> CameraSolve | None:
    """Solve cameras and points of one capture from its tracks; ``None`` when no pair of views can start it.

    ``tracks`` [v, m] and ``K`` share their pixels. Views that cannot be tied have ``reached`` False. Deterministic. The
    unit is the geometric mean distance of the points from the cameras that see them.
    """
    config = config or SolveConfig()
    with _one_thread():
        return _solve(tracks, K, config)


def _solve(tracks: Tracks, K: Tensor, config: SolveConfig) -> CameraSolve | None:
    chosen = balanced_tracks(tracks, config.max_tracks)
    state = _Solver(tracks.select_tracks(chosen), K, config)
    best: CameraSolve | None = None
    for i, j, rotation, direction in state.seed_pairs():
        solved = state.grow(i, j, rotation, direction)
        if best is None or solved.score > best.score:
            best = solved
        if best.reached.all() and best.inlier.sum() > 0.9 * state.seen.sum():
            break
    if best is None:
        return None
    return _Solver(tracks, K, config).with_all_tracks(best)


def explained_by(
    world_from_cam: Float[Tensor, "v 4 4"],
    reached: Bool[Tensor, " v"],
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    config: SolveConfig,
) -> Bool[Tensor, "v m"]:
    """Observations of any tracks [v, m] that agree with given cameras: within ``config.inlier_angle`` of a point that
    two views or more have in common. Cameras that are not ``reached`` take no part."""
    with _one_thread():
        _, inlier = _Solver(tracks, K, config)._points(world_from_cam.double(), reached)
    return inlier


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
def _one_thread() -> Iterator[None]:
    """Thousands of small operations are several times slower when threads are woken for each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Solver:
    """The incremental solve of one capture, float64."""

    def __init__(self, tracks: Tracks, K: Tensor, config: SolveConfig) -> None:
        self.config = config
        rays = rays_from_uv(tracks.uv.double(), K.double())
        self.normalised = rays[..., :2].numpy()
        self.bearings = torch.nn.functional.normalize(rays, dim=-1)
        self.weight = tracks.weight.double()
        self.seen = tracks.weight > 0
        self.views, self.tracks = self.seen.shape

    def seed_pairs(self) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
        """(i, j, j_from_i rotation, translation direction) of the pairs that are best tied at a useful angle."""
        seen = self.seen.double()
        shared = seen @ seen.T
        candidates = []
        order = [(i, j) for i in range(self.views) for j in range(i + 1, self.views)]
        order.sort(key=lambda pair: -float(shared[pair]))
        for i, j in order[: 6 * self.views]:
            if shared[i, j] < self.config.min_seed_matches:
                break
            both = (self.seen[i] & self.seen[j]).numpy()
            a, b = self.normalised[i, both], self.normalised[j, both]
            found = _essential(a, b, self.config.inlier_angle)
            if found is None:
                continue
            rotation, translation, inliers = found
            turned = np.c_[a, np.ones(len(a))] @ rotation.T
            cosine = (turned * np.c_[b, np.ones(len(b))]).sum(-1)
            cosine /= np.linalg.norm(turned, axis=-1) * np.linalg.norm(np.c_[b, np.ones(len(b))], axis=-1)
            angle = np.degrees(np.median(np.arccos(np.clip(cosine[inliers], -1, 1))))
            candidates.append((inliers.sum() * min(angle, 12.0), i, j, rotation, translation))
        candidates.sort(key=lambda candidate: -candidate[0])
        picked: list[tuple[int, int, np.ndarray, np.ndarray]] = []
        for _, i, j, rotation, translation in candidates:
            if all({i, j} != {p[0], p[1]} for p in picked):
                picked.append((i, j, rotation, translation))
        return picked[: self.config.seeds]

    def grow(self, i: int, j: int, rotation: np.ndarray, direction: np.ndarray) -> CameraSolve:
        """Start at views i and j, add the others while any can be tied, adjust, and judge."""
        cameras = torch.eye(4, dtype=torch.float64).repeat(self.views, 1, 1)
        rotation_t = torch.from_numpy(rotation)
        cameras[j] = rigid_from(rotation_t.T, -rotation_t.T @ torch.from_numpy(direction))
        reached = torch.zeros(self.views, dtype=torch.bool)
        reached[[i, j]] = True
        points, inlier = self._points(cameras, reached)
        cameras, points, inlier = self._adjust(cameras, reached, points, inlier, rounds=2)
        refused: set[int] = set()
        while True:
            solid = self._solid(cameras, inlier)
            counts = (self.seen & solid).sum(-1).masked_fill(reached, 0)
            counts[list(refused)] = 0
            view = int(counts.argmax())
            if counts[view] < self.config.min_resection:
                break
            pose = self._resect(view, points, solid)
            if pose is None:
                refused.add(view)
                continue
            cameras[view], reached[view] = pose, True
            refused.clear()
            points, inlier = self._points(cameras, reached)
            cameras, points, inlier = self._adjust(cameras, reached, points, inlier, rounds=1)
        cameras, points, inlier = self._adjust(cameras, reached, points, inlier, rounds=4)
        return self._result(cameras, reached, points, inlier)

    def with_all_tracks(self, solve: CameraSolve) -> CameraSolve:
        """``solve`` with all tracks of this solver under its cameras, adjusted once more."""
        points, inlier = self._points(solve.world_from_cam, solve.reached)
        cameras, points, inlier = self._adjust(solve.world_from_cam, solve.reached, points, inlier, rounds=2)
        return self._result(cameras, solve.reached, points, inlier)

    def _points(self, cameras: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
        """Triangulate every track from the reached views; false observations lose their say as the scale tightens."""
        rays = self.bearings @ cameras[:, :3, :3].mT
        centres = cameras[:, :3, 3]
        seen = self.seen & reached[:, None]
        weight = self.weight * reached[:, None]
        points = triangulate(rays, centres, weight)
        for factor in (16.0, 4.0, 1.0, 0.5):
            angles = triangulation_angles(points, rays, centres) / (factor * self.config.inlier_angle)
            points = triangulate(rays, centres, weight / (1 + angles.square()).square(), iterations=2)
        inlier = seen & (triangulation_angles(points, rays, centres) < self.config.inlier_angle)
        return points, inlier & (inlier.sum(0) >= 2)

    def _adjust(
        self, cameras: Tensor, reached: Tensor, points: Tensor, inlier: Tensor, *, rounds: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bundle adjustment of the inliers, then a new look at which observations agree."""
        bundle = BundleConfig(iterations=8, loss_scale=self.config.inlier_angle / 2)
        for _ in range(rounds):
            if not inlier.any():
                break
            cameras, points = bundle_adjust(cameras, points, self.bearings, self.weight * inlier, bundle)
            points, inlier = self._points(cameras, reached)
        return cameras, points, inlier

    def _solid(self, cameras: Tensor, inlier: Tensor) -> Tensor:
        """Tracks with enough parallax to resect another view from."""
        rays = self.bearings @ cameras[:, :3, :3].mT
        return (inlier.sum(0) >= 2) & (parallax(rays, inlier.double()) > self.config.min_parallax)

    def _resect(self, view: int, points: Tensor, solid: Tensor) -> Tensor | None:
        """world_from_cam of a view from solved tracks by PnP, or None without consensus."""
        use = (self.seen[view] & solid).numpy()
        world, image = points[use].numpy(), self.normalised[view, use]
        ok, rotation, translation, inliers = cv2.solvePnPRansac(
            world, image, np.eye(3), None, iterationsCount=2000, confidence=0.9999,
            reprojectionError=2 * self.config.inlier_angle, flags=cv2.SOLVEPNP_SQPNP,
        )  # fmt: skip
        if not ok or inliers is None or len(inliers) < self.config.min_resection:
            return None
        chosen = inliers[:, 0]
        rotation, translation = cv2.solvePnPRefineLM(
            world[chosen], image[chosen], np.eye(3), None, rotation, translation
        )
        cam_from_world = torch.from_numpy(cv2.Rodrigues(rotation)[0])
        return rigid_from(cam_from_world.T, -cam_from_world.T @ torch.from_numpy(translation[:, 0]))

    def _result(self, cameras: Tensor, reached: Tensor, points: Tensor, inlier: Tensor) -> CameraSolve:
        middle = cameras[reached, :3, 3].mean(0)
        distance = (points[None] - cameras[:, None, :3, 3]).norm(dim=-1)
        unit = distance[inlier].clamp_min(1e-9).log().mean().exp() if inlier.any() else distance.new_ones(())
        cameras = cameras.clone()
        cameras[:, :3, 3] = torch.where(reached[:, None], (cameras[:, :3, 3] - middle) / unit, 0.0)
        points = (points - middle) / unit
        rays = self.bearings @ cameras[:, :3, :3].mT
        angles = triangulation_angles(points, rays, cameras[:, :3, 3])
        residual = float(angles[inlier].median()) if inlier.any() else math.inf
        return CameraSolve(
            world_from_cam=cameras, reached=reached, points=points, inlier=inlier, solid=self._solid(cameras, inlier),
            residual=residual,
        )  # fmt: skip


def _essential(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(b_from_a rotation, translation direction, inlier mask) between normalised image points, or None."""
    cv2.setRNGSeed(0)
    matrix, mask = cv2.findEssentialMat(a, b, np.eye(3), cv2.USAC_MAGSAC, 0.9999, threshold / 2, 2000)
    if matrix is None or matrix.shape != (3, 3):
        return None
    count, rotation, translation, mask = cv2.recoverPose(matrix, a, b, np.eye(3), mask=mask)
    if count < 12:
        return None
    return rotation, translation[:, 0], mask[:, 0] > 0
