"""Bundle adjustment of cameras and track points in angles: Levenberg-Marquardt with Schur complement, in float64.

For one capture of few views whose cameras are just being solved from tracks alone (``sfm.incremental``). Many small
samples at once, with label depths and on any device: ``sfm.bundle_batched``. Finished cameras that shall become
sub-pixel, the focal length included: ``sfm.bundle_pycolmap``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.rigid import rigid_from, skew, so3_exp


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """Settings of :func:`bundle_adjust`."""

    iterations: int = 10
    loss_scale: float = 0.003
    """Angle in radians beyond which the Cauchy loss stops trusting an observation."""
    tolerance: float = 1e-5
    """Stop when the cost falls by less than this share."""


def bundle_adjust(
    world_from_cam: Float[Tensor, "v 4 4"],
    points: Float[Tensor, "m 3"],
    bearings: Float[Tensor, "v m 3"],
    weight: Float[Tensor, "v m"],
    config: BundleConfig,
) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "m 3"]]:
    """Minimise the sum of weight * Cauchy(angle between observed bearing and predicted direction) over everything.

    ``bearings`` are unit vectors in camera frames; an observation counts where ``weight`` > 0. The first camera with
    any observation stays fixed; the global scale is left to the damping. What nothing observes does not move.
    """
    cameras, points = world_from_cam.double(), points.double()
    observations = _Observations(bearings.double(), weight.double())
    damping = 1e-4
    cost = observations.cost(cameras, points, config.loss_scale)
    for _ in range(config.iterations):
        system = observations.linearise(cameras, points, config.loss_scale)
        for _ in range(6):
            step_cameras, step_points = _solve(system, damping)
            candidate = _moved(cameras, step_cameras), points + step_points
            candidate_cost = observations.cost(*candidate, config.loss_scale)
            if candidate_cost < cost:
                break
            damping *= 8
        else:
            break
        (cameras, points), previous, cost = candidate, cost, candidate_cost
        damping = max(damping / 5, 1e-9)
        if previous - cost < config.tolerance * previous:
            break
    return cameras, points


@dataclass(frozen=True)
class _System:
    """Normal equations in blocks; the cross block is dense over views and points."""

    camera: Tensor  # [v, 6, 6]
    point: Tensor  # [m, 3, 3]
    cross: Tensor  # [v, 6, m, 3]
    camera_right: Tensor  # [v, 6]
    point_right: Tensor  # [m, 3]
    fixed: int


class _Observations:
    """The seen (view, track) pairs as a flat list."""

    def __init__(self, bearings: Tensor, weight: Tensor) -> None:
        self.view, self.track = torch.nonzero(weight > 0, as_tuple=True)
        self.weight = weight[self.view, self.track]
        self.bearing = bearings[self.view, self.track]
        # Two unit vectors that complete each bearing to a frame: the plane in which the residual lives.
        helper = torch.zeros_like(self.bearing)
        helper[torch.arange(len(helper)), self.bearing.abs().argmin(-1)] = 1
        first = torch.nn.functional.normalize(torch.linalg.cross(self.bearing, helper), dim=-1)
        self.plane = torch.stack([first, torch.linalg.cross(self.bearing, first)], dim=-2)
        self.shape = weight.shape

    def _directions(self, cameras: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rotation = cameras[self.view, :3, :3].mT
        p = (rotation @ (points[self.track] - cameras[self.view, :3, 3])[..., None])[..., 0]
        length = p.norm(dim=-1).clamp_min(1e-12)
        direction = p / length[..., None]
        residual = (self.plane @ direction[..., None])[..., 0]
        # sin(angle) would forgive points behind the camera; there the residual keeps the length of 2.
        behind = (direction * self.bearing).sum(-1) < 0
        return rotation, p, residual, behind

    def cost(self, cameras: Tensor, points: Tensor, scale: float) -> float:
        _, _, residual, behind = self._directions(cameras, points)
        squared = torch.where(behind, torch.full_like(residual[:, 0], 4.0), residual.square().sum(-1))
        return float((self.weight * torch.log1p(squared / scale**2)).sum())

    def linearise(self, cameras: Tensor, points: Tensor, scale: float) -> _System:
        rotation, p, residual, behind = self._directions(cameras, points)
        length = p.norm(dim=-1).clamp_min(1e-12)
        direction = p / length[..., None]
        eye = torch.eye(3, dtype=p.dtype)
        d_direction = (eye - direction[..., :, None] * direction[..., None, :]) / length[..., None, None]
        by_p = self.plane @ d_direction
        by_point = by_p @ rotation
        by_camera = torch.cat([by_p @ skew(p), -by_point], dim=-1)
        robust = self.weight / (1 + residual.square().sum(-1) / scale**2) * ~behind
        weighted_camera = by_camera.mT * robust[:, None, None]
        weighted_point = by_point.mT * robust[:, None, None]
        v, m = self.shape
        new = p.new_zeros
        cross = new(v * m, 6, 3).index_add_(0, self.view * m + self.track, weighted_camera @ by_point)
        return _System(
            camera=new(v, 6, 6).index_add_(0, self.view, weighted_camera @ by_camera),
            point=new(m, 3, 3).index_add_(0, self.track, weighted_point @ by_point),
            cross=cross.unflatten(0, (v, m)).transpose(1, 2),
            camera_right=-new(v, 6).index_add_(0, self.view, (weighted_camera @ residual[..., None])[..., 0]),
            point_right=-new(m, 3).index_add_(0, self.track, (weighted_point @ residual[..., None])[..., 0]),
            fixed=int(self.view.min()) if len(self.view) else 0,
        )


def _solve(system: _System, damping: float) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt step (cameras [v, 6], points [m, 3]) by eliminating the points."""
    v, m = len(system.camera), len(system.point)
    eye3, eye6 = torch.eye(3, dtype=system.point.dtype), torch.eye(6, dtype=system.point.dtype)
    trace = system.point.diagonal(dim1=-2, dim2=-1)
    point = system.point + torch.diag_embed(damping * trace) + (1e-12 + 1e-9 * trace.mean(-1))[:, None, None] * eye3
    inverse = torch.linalg.inv(point)
    cross = system.cross.reshape(6 * v, m, 3)
    reduced = (cross[:, :, None, :] @ inverse)[:, :, 0]
    schur = torch.block_diag(*system.camera) - reduced.reshape(6 * v, -1) @ cross.reshape(6 * v, -1).T
    right = system.camera_right.reshape(-1) - (reduced * system.point_right).sum((-2, -1))
    diagonal = system.camera.diagonal(dim1=-2, dim2=-1).reshape(-1)
    schur = schur + torch.diag(damping * diagonal + 1e-9 * diagonal.mean() + 1e-12)
    block = slice(6 * system.fixed, 6 * system.fixed + 6)
    schur[block, :] = 0
    schur[:, block] = 0
    schur[block, block] = eye6
    right[block] = 0
    step_cameras = torch.linalg.solve(schur, right)
    gap = system.point_right - torch.einsum("cmd,c->md", cross, step_cameras)
    return step_cameras.reshape(v, 6), (inverse @ gap[..., None])[..., 0]


def _moved(cameras: Tensor, step: Tensor) -> Tensor:
    """Right-multiply rotations by exp(omega), add to centres."""
    return rigid_from(cameras[:, :3, :3] @ so3_exp(step[:, :3]), cameras[:, :3, 3] + step[:, 3:])
