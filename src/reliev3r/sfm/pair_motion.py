"""Relative motion of many pairs of views at once, from bearings alone but for the lengths: no sample, no loop.

The other start of a solve, beside the similarity of lifted points (``sfm.batched.lifted_motion``): where depth is bad,
that one ends in the basin of the reversed relief, and this one does not look at depth before the end.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.rigid import rotation_from_9d, so3_exp
from reliev3r.geometry.statistics import weighted_median

_COARSE_DEG = (-36.0, -28.0, -21.0, -14.0, -9.0, -5.0, -2.0, 2.0, 5.0, 9.0, 14.0, 21.0, 28.0, 36.0)
"""Turns about the two axes of the image, around the rotation that lays the bearings onto one another."""
_FINE_DEG = (3.0, 1.5, 0.6)
"""Then one step to both sides about all three axes."""
_FEW = 96
"""Matches of a pair that the coarse grid looks at."""
_LONGEST = 1e3
"""Bound on the ratio of predicted to triangulated depth."""


def epipolar_motion(
    first: Float[Tensor, "*p n 3"],
    second: Float[Tensor, "*p n 3"],
    depths: tuple[Float[Tensor, "*p n"], Float[Tensor, "*p n"]],
    weight: Float[Tensor, "*p n"],
    sigma: Float[Tensor, "*p"],
) -> tuple[Float[Tensor, "*p"], Float[Tensor, "*p 3 3"], Float[Tensor, "*p 3"], Float[Tensor, "*p"]]:
    """(s, R, t) with X_first = s R X_second + t, as ``lifted_motion`` gives it, and how many matches agree.

    A grid of rotations around the one that lays the bearings best onto one another (Wahba's problem, re-weighted); for
    each the best translation in closed form (smallest eigenvector, re-weighted; Kneip & Lynen 2013), the cheapest under
    a Cauchy loss of the epipolar angle; then finer grids. Cheirality gives the sign. The lengths, and with them s, are
    the medians of predicted over triangulated depth in either view.

    Args:
        first: bearings of length 1 in the first view.
        second: of the same points in the second view.
        depths: predicted z-depth in either view, each in a unit of its own.
        weight: 0 where it is no match.
        sigma: scale of the epipolar angle in radians.
    """
    rotation = _laid_onto(first, second, weight)
    scale = sigma[..., None, None]
    grid = torch.tensor(_COARSE_DEG, device=first.device).deg2rad()
    turns = torch.nn.functional.pad(torch.cartesian_prod(grid, grid), (0, 1))
    turns = torch.cat([torch.zeros_like(turns[:1]), turns])
    thin = max(1, weight.shape[-1] // _FEW)
    few = (first[..., ::thin, :], second[..., ::thin, :], weight[..., ::thin])
    rotation, _, _ = _cheapest(*few, rotation, turns, 3 * scale)
    for step in _FINE_DEG:
        turn = math.radians(step)
        around = torch.tensor([-turn, 0.0, turn], device=first.device)
        turns = torch.cartesian_prod(around, around, around)
        rotation, _, _ = _cheapest(first, second, weight, rotation, turns, (step * scale).maximum(scale))
    rotation, direction, gap = _cheapest(first, second, weight, rotation, turns[13:14], scale)
    return _with_lengths(first, second @ rotation.mT, rotation, direction, depths, weight / (1 + gap))


def _laid_onto(first: Tensor, second: Tensor, weight: Tensor) -> Float[Tensor, "*p 3 3"]:
    """The rotation R for which R second is nearest to first."""
    say = torch.ones_like(weight)
    for _ in range(4):
        rotation = rotation_from_9d((first * (weight * say)[..., None]).mT @ second)
        say = 1 / (1 + (first - second @ rotation.mT).square().sum(-1) / 0.1**2)
    return rotation


def _cheapest(
    first: Tensor, second: Tensor, weight: Tensor, rotation: Tensor, turns: Float[Tensor, "c 3"], sigma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(rotation, translation direction, squared epipolar angles over sigma^2) of the cheapest turned rotation."""
    turned = so3_exp(turns) @ rotation[..., None, :, :]  # p c 3 3
    seen = second[..., None, :, :] @ turned.mT  # p c n 3
    normal = torch.linalg.cross(first[..., None, :, :].expand_as(seen), seen)
    say = weight[..., None, :].expand(seen.shape[:-1])
    for _ in range(3):
        _, vectors = torch.linalg.eigh((normal * say[..., None]).mT @ normal)
        direction = vectors[..., 0]
        far = torch.linalg.cross(direction[..., None, :].expand_as(seen), seen).square().sum(-1).clamp_min(1e-6)
        gap = (normal @ direction[..., None])[..., 0].square() / far / sigma.square()
        say = weight[..., None, :] / (1 + gap) / far
    best = (weight[..., None, :] * torch.log1p(gap)).sum(-1).argmin(-1)

    def taken(x: Tensor) -> Tensor:
        index = best.view(*best.shape, *[1] * (x.ndim - best.ndim)).expand(*best.shape, 1, *x.shape[best.ndim + 1 :])
        return x.gather(best.ndim, index).squeeze(best.ndim)

    return taken(turned), taken(direction), taken(gap)


def _with_lengths(
    first: Tensor, second: Tensor, rotation: Tensor, direction: Tensor, depths: tuple[Tensor, Tensor], say: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The motion with sign and length; ``second`` are the second view's bearings in the first one's axes."""
    cosine = (first * second).sum(-1)
    along_first, along_second = (first @ direction[..., None])[..., 0], (second @ direction[..., None])[..., 0]
    parallax = (1 - cosine.square()).clamp_min(1e-6)  # of first * a = second * b + direction
    lengths = ((along_first - cosine * along_second) / parallax, (cosine * along_first - along_second) / parallax)
    votes = (say * parallax * (lengths[0].sign() + lengths[1].sign())).sum(-1)
    sign = torch.where(votes < 0, -1.0, 1.0)
    lengths = (lengths[0] * sign[..., None], lengths[1] * sign[..., None])
    agree = say * (lengths[0] > 0) * (lengths[1] > 0)
    in_second = second @ rotation  # back in its own axes: its z tells depth from length
    z = (lengths[0] * first[..., 2], lengths[1] * in_second[..., 2])
    units = [
        weighted_median(
            (depth / own.clamp_min(1e-6)).clamp(1 / _LONGEST, _LONGEST), agree * parallax.sqrt()
        ).clamp(1 / _LONGEST, _LONGEST)
        for depth, own in zip(depths, z, strict=True)
    ]  # fmt: skip
    return units[0] / units[1], rotation, (units[0] * sign)[..., None] * direction, agree.sum(-1)
