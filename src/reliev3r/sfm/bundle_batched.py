"""Bundle adjustment of whole batches of small samples at once, in angles, with depths as loose measurements.

A few steps, no loop over samples, views or tracks: for samples that are seen once, in training or in a forward pass.
One capture without depths, until nothing moves: ``sfm.bundle_torch``. Finished cameras in pixels:
``sfm.bundle_pycolmap``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from reliev3r.geometry.rigid import angle_between, rigid_from, skew, so3_exp

_WIDE = 4.0
"""Multiplier on the angular scale at step 0, halved each step down to 1, so that far outliers still count early
(graduated robustness)."""


@dataclass(frozen=True, kw_only=True)
class PolishConfig:
    """Levenberg-Marquardt over poses, one depth factor a view and the tracks' points."""

    steps: int = 5
    """Trial steps, the same for all samples (one that would not help is not taken); 0: no polish."""
    pixel: float = 0.5
    """Reprojection error, as an angle, beyond which the Cauchy loss stops trusting an observation."""
    depth: float = 0.2
    """The same for the logarithm of label depth times its view's factor."""

    def __post_init__(self) -> None:
        """Scales divide."""
        if self.steps < 0 or self.pixel <= 0 or self.depth <= 0:
            raise ValueError("polish: steps must not be negative, pixel and depth must be positive")


@dataclass(frozen=True, kw_only=True)
class Sightings:
    """What is measured: each view's tracks as camera-frame points, whose lengths are known up to a factor a view."""

    points: Float[Tensor, "b v m 3"]
    seen: Bool[Tensor, "b v m"]
    """Observations that take part."""
    angle: Float[Tensor, "b v"]
    """Scale of the angular residuals in radians."""
    depth: float
    """Scale of the residuals of log depth."""


@dataclass(frozen=True, kw_only=True)
class _State:
    cameras: Float[Tensor, "b v 4 4"]
    log_factor: Float[Tensor, "b v"]
    points: Float[Tensor, "b m 3"]


def polish(
    cameras: Float[Tensor, "b v 4 4"], factor: Float[Tensor, "b v"], sightings: Sightings, steps: int
) -> tuple[Float[Tensor, "b v 4 4"], Float[Tensor, "b v"], Float[Tensor, "b m 3"]]:
    """(world_from_cam, depth factors, world points of the tracks) after ``steps`` steps from the given ones.

    Minimises the Cauchy loss of two residuals at every sighting: the angle (its chord) between the observed ray and its
    track's point - the residual of ``losses.tracks``, with free points - and the log of the point's distance over
    the label's distance times the view's factor. The first view with sightings keeps its pose and factor, which fixes
    the gauge; views without any do not move. The points are eliminated (Schur complement); no loop over samples, views
    or tracks.
    """
    state = _State(cameras=cameras, log_factor=factor.log(), points=_first_points(cameras, factor, sightings))
    damping = torch.full_like(factor[:, 0], 1e-3)
    for step in range(steps):
        measured = dataclasses.replace(sightings, angle=sightings.angle * max(1.0, _WIDE * 0.5**step))
        candidate = _moved(state, *_step(measured, state, damping))
        better = _cost(measured, candidate) < _cost(measured, state)  # not where it is NaN
        state = _State(
            cameras=torch.where(better[:, None, None, None], candidate.cameras, state.cameras),
            log_factor=torch.where(better[:, None], candidate.log_factor, state.log_factor),
            points=torch.where(better[:, None, None], candidate.points, state.points),
        )
        damping = torch.where(better, damping / 5, damping * 8).clamp(1e-6, 1e6)
    return state.cameras, state.log_factor.exp(), state.points


def polish_cost(
    cameras: Float[Tensor, "b v 4 4"],
    factor: Float[Tensor, "b v"],
    points: Float[Tensor, "b m 3"],
    sightings: Sightings,
) -> Float[Tensor, " b"]:
    """What :func:`polish` lowers, the sum of the Cauchy losses of each sample: of two ends the cheaper is better."""
    return _cost(sightings, _State(cameras=cameras, log_factor=factor.log(), points=points))


def seen_depth(
    cameras: Float[Tensor, "b v 4 4"], points: Float[Tensor, "b m 3"], sightings: Sightings
) -> tuple[Float[Tensor, "b v m"], Bool[Tensor, "b v m"]]:
    """z-depth of each track's point in each view, and whether the view saw it there (within 3 scales of angle)."""
    p = (points[:, None] - cameras[..., None, :3, 3]) @ cameras[..., :3, :3]
    apart = angle_between(p, sightings.points)
    return p[..., 2], sightings.seen & (apart < 3 * sightings.angle[..., None]) & (p[..., 2] > 1e-6)


@dataclass(frozen=True, kw_only=True)
class _Gaps:
    """How a state disagrees with what was measured; all vectors in the world frame."""

    direction: Float[Tensor, "b v m 3"]
    """From the camera to the point, of length 1."""
    distance: Float[Tensor, "b v m"]
    across: Float[Tensor, "b v m 3"]
    """Direction less bearing, over the scale: the residual is its length."""
    along: Float[Tensor, "b v m"]
    """Log of the distance over the one that the label and the view's factor give, over the scale."""


def _gaps(sightings: Sightings, state: _State) -> _Gaps:
    measured = sightings.points.norm(dim=-1).clamp_min(1e-12)
    bearing = sightings.points / measured[..., None] @ state.cameras[..., :3, :3].mT
    towards = state.points[:, None] - state.cameras[..., None, :3, 3]
    distance = towards.norm(dim=-1).clamp_min(1e-9)
    direction = towards / distance[..., None]
    return _Gaps(
        direction=direction, distance=distance, across=(direction - bearing) / sightings.angle[..., None, None],
        along=((distance / measured).log() - state.log_factor[..., None]) / sightings.depth,
    )  # fmt: skip


def _cost(sightings: Sightings, state: _State) -> Float[Tensor, " b"]:
    """Sum of the Cauchy losses of each sample."""
    gaps = _gaps(sightings, state)
    loss = torch.log1p(gaps.across.square().sum(-1)) + torch.log1p(gaps.along.square())
    return torch.where(sightings.seen, loss, torch.zeros_like(loss)).sum((-2, -1))


def _first_points(cameras: Tensor, factor: Tensor, sightings: Sightings) -> Float[Tensor, "b m 3"]:
    """Of the points that a track's views lift it to, the one that all its views together say is the least wrong."""
    bearing = F.normalize(sightings.points, dim=-1) @ cameras[..., :3, :3].mT
    centre = cameras[..., None, :3, 3]
    lifted = factor[..., None, None] * sightings.points @ cameras[..., :3, :3].mT + centre
    direction = F.normalize(lifted[:, None] - centre[:, :, None], dim=-1)  # [b, seen from, lifted by, m, 3]
    across = (direction - bearing[:, :, None]).norm(dim=-1) / sightings.angle[:, :, None, None]
    wrong = (torch.log1p(across.square()) * sightings.seen[:, :, None]).sum(1)
    best = torch.where(sightings.seen, wrong, torch.inf).argmin(1)
    return lifted.gather(1, best[:, None, :, None].expand(-1, 1, -1, 3))[:, 0]


def _step(sightings: Sightings, state: _State, damping: Float[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt step: (turn, shift and log factor of each view [b v 7], shift of each point [b m 3]).

    A turn by w, a shift by c and a point moved by x change the vector q from camera to point by q x w - c + x. With n
    its direction and d its length, the squared residuals have the Hessian A = a (I - n n^T) + f n n^T in q, where a and
    f are the weights of angle and depth over (d scale)^2; skew(q)^T A = -a d skew(n), so no Jacobian is written out.
    """
    gaps = _gaps(sightings, state)
    n, d = gaps.direction, gaps.distance
    turn = sightings.seen / (1 + gaps.across.square().sum(-1)) / sightings.angle[..., None].square()  # a d^2
    stretch = sightings.seen / (1 + gaps.along.square()) / sightings.depth**2  # f d^2
    eye = torch.eye(3, dtype=n.dtype, device=n.device)
    outer = n[..., :, None] * n[..., None, :]
    turned = (turn / d)[..., None, None] * skew(n)
    stretched = (stretch / d)[..., None] * n
    moved = ((turn / d.square())[..., None, None] * (eye - outer)) + (stretch / d.square())[..., None, None] * outer
    # By q: what the residuals ask for, with the sign of a descent.
    pull_across = (turn / d * sightings.angle[..., None])[..., None] * (
        n * (n * gaps.across).sum(-1, keepdim=True) - gaps.across
    )
    pull_along = stretch * gaps.along * sightings.depth
    pull = pull_across - (pull_along / d)[..., None] * n

    cross = torch.cat([-turned, -moved, -stretched[..., None, :]], dim=-2)  # [b, v, m, 7, 3]
    view = n.new_zeros(*sightings.seen.shape[:2], 7, 7)
    view[..., :3, :3] = (turn[..., None, None] * (eye - outer)).sum(2)
    view[..., :3, 3:6] = turned.sum(2)
    view[..., 3:6, :3] = turned.sum(2).mT
    view[..., 3:6, 3:6] = moved.sum(2)
    view[..., 3:6, 6] = view[..., 6, 3:6] = stretched.sum(2)
    view[..., 6, 6] = stretch.sum(2)
    view_right = torch.cat([
        torch.linalg.cross(pull, n * d[..., None]).sum(2), -pull.sum(2), pull_along.sum(2)[..., None]
    ], dim=-1)  # fmt: skip
    return _eliminated(
        _damped(view, damping[:, None]), _damped(moved.sum(1), damping[:, None]), cross, view_right, pull.sum(1),
        _free(sightings.seen),
    )  # fmt: skip


def _eliminated(
    view: Float[Tensor, "b v 7 7"],
    point: Float[Tensor, "b m 3 3"],
    cross: Float[Tensor, "b v m 7 3"],
    view_right: Float[Tensor, "b v 7"],
    point_right: Float[Tensor, "b m 3"],
    free: Bool[Tensor, "b v"],
) -> tuple[Float[Tensor, "b v 7"], Float[Tensor, "b m 3"]]:
    """Solution of the normal equations by the Schur complement of the points; views that are not free stay."""
    b, v, m = cross.shape[:3]
    rows = cross.permute(0, 2, 1, 3, 4).reshape(b, m, 7 * v, 3)
    inverse = torch.linalg.inv_ex(point).inverse
    reduced = (rows @ inverse).transpose(1, 2).reshape(b, 7 * v, 3 * m)
    schur = -(reduced @ rows.transpose(2, 3).reshape(b, 3 * m, 7 * v))
    schur.view(b, v, 7, v, 7).diagonal(dim1=1, dim2=3).add_(view.permute(0, 2, 3, 1))
    right = view_right.reshape(b, 7 * v) - (reduced @ point_right.reshape(b, 3 * m, 1))[..., 0]
    free = free.repeat_interleave(7, dim=-1)
    schur = torch.where(free[:, :, None] & free[:, None], schur, torch.eye(7 * v, dtype=view.dtype, device=view.device))
    factored = torch.linalg.cholesky_ex(schur.double()).L
    step = torch.cholesky_solve(torch.where(free, right, 0.0).double()[..., None], factored).to(view.dtype)
    gap = point_right - (rows.mT @ step[:, None])[..., 0]
    return step.view(b, v, 7), (inverse @ gap[..., None])[..., 0]


def _free(seen: Bool[Tensor, "b v m"]) -> Bool[Tensor, "b v"]:
    """Views that may move: those with sightings but the first of them."""
    any_seen = seen.any(-1)
    return any_seen & (any_seen.cumsum(-1) > 1)


def _damped(matrix: Float[Tensor, "*b n n"], damping: Float[Tensor, "*#b"]) -> Float[Tensor, "*b n n"]:
    """Marquardt's damping: the diagonal grows by a share of itself, in whatever unit (or is a little: nothing seen)."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    return matrix + torch.diag_embed(damping[..., None] * diagonal + 1e-12)


def _moved(state: _State, view: Float[Tensor, "b v 7"], point: Float[Tensor, "b m 3"]) -> _State:
    """The step taken; rotations turn about the world's axes."""
    rotation = so3_exp(view[..., :3].nan_to_num()) @ state.cameras[..., :3, :3]
    return _State(
        cameras=rigid_from(rotation, state.cameras[..., :3, 3] + view[..., 3:6]),
        log_factor=state.log_factor + view[..., 6],
        points=state.points + point,
    )
