"""Frames that differ by a similarity: one from points that both know, and all at once from many such pairs.

A similarity ``a_from_b`` is the matrix [4 4] of s R and t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.align import umeyama
from reliev3r.geometry.rigid import rigid_from, rotation_from_9d
from reliev3r.geometry.statistics import weighted_median

_ROUNDS = 10
"""Of re-weighting."""


@dataclass(frozen=True, kw_only=True)
class Join:
    """What ties two frames."""

    a: int
    b: int
    a_from_b: Float[Tensor, "4 4"]
    weight: float
    """How much it counts beside others."""


def scale_of(similarity: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Its scale s > 0."""
    return torch.det(similarity[..., :3, :3]).clamp_min(1e-30).pow(1 / 3)


def moved_cameras(a_from_b: Float[Tensor, "4 4"], b_from_cam: Float[Tensor, "v 4 4"]) -> Float[Tensor, "v 4 4"]:
    """Rigid ``a_from_cam``, in the unit of a (depths are to be multiplied by :func:`scale_of`)."""
    moved = a_from_b @ b_from_cam
    return rigid_from(moved[:, :3, :3] / scale_of(a_from_b), moved[:, :3, 3])


def robust_similarity(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], weight: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "4 4"], float]:
    """(``target_from_source``, how far points of weight are from one another, as a share of the target's extent).

    Least squares, re-weighted by Cauchy's weights at the median distance. Both numbers of the second are medians.
    """
    say = weight
    for _ in range(_ROUNDS):
        s, rotation, t = umeyama(source, target, say)
        apart = (s * source @ rotation.T + t - target).norm(dim=-1)
        usual = weighted_median(apart, weight).clamp_min(1e-12)
        say = weight / (1 + (apart / usual).square())
    middle = (weight[:, None] * target).sum(0) / weight.sum().clamp_min(1e-12)
    extent = weighted_median((target - middle).norm(dim=-1), weight).clamp_min(1e-12)
    return rigid_from(s * rotation, t), float(usual / extent)


def joined_frames(joins: Sequence[Join], count: int) -> Float[Tensor, "n 4 4"]:
    """``first_from_frame`` of frames 0 to ``count`` - 1 that make all joins agree best; all must be tied to frame 0.

    Rotations, then scales, then translations: a linear least-squares problem each, so that a loop spreads its gap over
    all frames of it. Float64.
    """
    weight = torch.tensor([join.weight for join in joins], dtype=torch.float64)
    measured = torch.stack([join.a_from_b for join in joins]).double()
    scale = scale_of(measured)
    rotation = measured[:, :3, :3] / scale[:, None, None]
    eye = torch.eye(3, dtype=torch.float64)
    # R_b^T = R_ab^T R_a^T: one block of rows a join, one block of columns a frame.
    turned = _solved(joins, count, weight, [part.T for part in rotation], torch.zeros(len(joins), 3, 3), eye)
    world = rotation_from_9d(turned.mT.contiguous())
    one = [torch.ones(1, 1)] * len(joins)
    size = _solved(joins, count, weight, one, scale.log()[:, None, None], torch.zeros(1, 1))[:, 0, 0].exp()
    a = [join.a for join in joins]
    step = size[a, None, None] * (world[a] @ measured[:, :3, 3, None])
    place = _solved(joins, count, weight, [eye] * len(joins), step, torch.zeros(3, 1))[..., 0]
    return rigid_from(size[:, None, None] * world, place)


def _solved(
    joins: Sequence[Join], count: int, weight: Tensor, factor: Sequence[Tensor], step: Tensor, first: Tensor
) -> Float[Tensor, "n r c"]:
    """X of every frame that solves X_b = factor X_a + step in the weighted least-squares sense; X of frame 0 given."""
    rows, columns = first.shape
    system = torch.zeros(len(joins) * rows, count * rows, dtype=torch.float64)
    right = step.double().flatten(0, 1).clone()
    for index, (join, own) in enumerate(zip(joins, factor, strict=True)):
        block = slice(index * rows, (index + 1) * rows)
        system[block, join.b * rows : (join.b + 1) * rows] += torch.eye(rows, dtype=torch.float64)
        system[block, join.a * rows : (join.a + 1) * rows] -= own.double()
    each = weight.sqrt().repeat_interleave(rows)[:, None]
    first = first.double()
    right -= system[:, :rows] @ first
    rest = torch.linalg.lstsq(each * system[:, rows:], each * right, driver="gelsd").solution
    return torch.cat([first, rest]).view(count, rows, columns)
