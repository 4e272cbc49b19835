"""Cameras of few views from tracks alone, without any other program: grown from seed pairs, view by view.

Seed pairs from the essential matrix, views added one by one where the most solved tracks tie them (PnP), and after
each a few steps of angular bundle adjustment - the residual of the paper's reprojection loss, with free cameras and
points. It reads tracks and intrinsics, never ground truth; several seeds compete and the one that explains most
observations wins. Its cost grows with more than the square of the views.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import rigid_from
from reliev3r.geometry.triangulate import AgreeingPoints, agreeing_points
from reliev3r.sfm.bundle_torch import BundleConfig, bundle_adjust
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig, growing_tracks, one_thread, solve_under
from reliev3r.sfm.seed_pairs import SeedPair, best_seeds


def solve_incrementally(tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig) -> CameraSolve | None:
    """As :func:`~reliev3r.sfm.solve_cameras.solve_cameras`."""
    with one_thread():
        state = _Solver(growing_tracks(tracks, config), K, config)
        best: CameraSolve | None = None
        for seed in best_seeds(state.tracks, K, config):
            solved = state.grow(seed)
            if best is None or solved.score > best.score:
                best = solved
            if best.reached.all() and best.inlier.sum() > 0.9 * state.seen.sum():
                break
        return None if best is None else _Solver(tracks, K, config).with_all_tracks(best)


class _Solver:
    """The incremental solve of one capture, float64."""

    def __init__(self, tracks: Tracks, K: Tensor, config: SolveConfig) -> None:
        self.tracks, self.K, self.config = tracks, K.double(), config
        rays = rays_from_uv(tracks.uv.double(), K.double())
        self.normalised = rays[..., :2].numpy()
        self.bearings = torch.nn.functional.normalize(rays, dim=-1)
        self.weight = tracks.weight.double()
        self.seen = tracks.weight > 0
        self.views = len(self.seen)

    def grow(self, seed: SeedPair) -> CameraSolve:
        """Start at two views, add the others while any can be tied, adjust, and judge."""
        cameras = torch.eye(4, dtype=torch.float64).repeat(self.views, 1, 1)
        rotation = torch.from_numpy(seed.rotation)
        cameras[seed.second] = rigid_from(rotation.T, -rotation.T @ torch.from_numpy(seed.direction))
        reached = torch.zeros(self.views, dtype=torch.bool)
        reached[[seed.first, seed.second]] = True
        cameras, found = self._adjust(cameras, reached, rounds=2)
        refused: set[int] = set()
        while True:
            solid = found.parallax > self.config.min_parallax
            counts = (self.seen & solid).sum(-1).masked_fill(reached, 0)
            counts[list(refused)] = 0
            view = int(counts.argmax())
            if counts[view] < self.config.min_resection:
                break
            pose = self._resect(view, found.points, solid)
            if pose is None:
                refused.add(view)
                continue
            cameras[view], reached[view] = pose, True
            refused.clear()
            cameras, found = self._adjust(cameras, reached, rounds=1)
        cameras, _ = self._adjust(cameras, reached, rounds=4)
        return solve_under(cameras, reached, self.tracks, self.K, self.config)

    def with_all_tracks(self, solve: CameraSolve) -> CameraSolve:
        """``solve`` with all tracks of this solver under its cameras, adjusted once more."""
        cameras, _ = self._adjust(solve.world_from_cam, solve.reached, rounds=2)
        return solve_under(cameras, solve.reached, self.tracks, self.K, self.config)

    def _points(self, cameras: Tensor, reached: Tensor) -> AgreeingPoints:
        seen = Tracks(uv=self.tracks.uv, weight=self.tracks.weight * reached[:, None])
        return agreeing_points(seen, self.K, cameras, max_angle=self.config.inlier_angle)

    def _adjust(self, cameras: Tensor, reached: Tensor, *, rounds: int) -> tuple[Tensor, AgreeingPoints]:
        """Bundle adjustment of the observations that agree, and a new look at which do, again and again."""
        bundle = BundleConfig(iterations=8, loss_scale=self.config.inlier_angle / 2)
        found = self._points(cameras, reached)
        for _ in range(rounds):
            if not found.inlier.any():
                break
            cameras, _ = bundle_adjust(cameras, found.points, self.bearings, self.weight * found.inlier, bundle)
            found = self._points(cameras, reached)
        return cameras, found

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
