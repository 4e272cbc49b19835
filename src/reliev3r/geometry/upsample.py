"""A depth map on the finer grid of its photograph: linear on surfaces, a choice between them at a jump."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from reliev3r.geometry.sampling import depth_edges, resize_linear

_JUMP = 0.1
"""Of the depth: what lies further apart are two surfaces."""
_REACH = 3
"""Coarse pixels to each side that a pixel near a jump looks at."""
_SURFACES = 6
"""Coarse pixels, those with most to say, whose surface is considered."""
_PLACE, _COLOUR = 2.0, 0.08
"""Standard deviations of how much a coarse pixel says: in coarse pixels, and of RGB in [0, 1]."""


def upsample_depth(
    depth: Float[Tensor, "h w"],
    conf: Float[Tensor, "h w"],
    coarse: Float[Tensor, "h w 3"],
    fine: Float[Tensor, "H W 3"],
) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """z-depth and confidence at the pixels of ``fine``: the photograph, RGB in [0, 1], over the area of ``coarse``.

    Where coarse neighbours lie on one surface, inverse depth (linear over the image of a plane) and confidence are
    interpolated. Near a jump each pixel takes one of the surfaces around it, the one whose coarse pixels are near in
    place and colour (the weights of joint bilateral upsampling, Kopf et al. 2007): a mean over those that agree, never
    a depth between two of them, and their confidence. A coarse pixel whose depth is not positive and finite is unknown:
    it says nothing, and the fine pixels in it are 0 in both.
    """
    height, width = fine.shape[:2]
    known = depth.isfinite() & (depth > 0)
    inverse = torch.where(known, 1 / torch.where(known, depth, 1.0), 0.0)
    smooth = resize_linear(torch.stack([inverse, conf], dim=-1), height, width)
    y, x = (
        (torch.arange(count, dtype=torch.float64) + 0.5) * size / count - 0.5
        for count, size in zip((height, width), depth.shape, strict=True)
    )
    at = _beside_jumps(depth, known)[y.round().long()[:, None], x.round().long()].nonzero(as_tuple=True)
    if len(at[0]):
        place = torch.stack([y[at[0]], x[at[1]]], dim=-1).float()
        smooth[at] = _chosen(inverse, conf, known, coarse, place, fine[at])
    here = known[y.round().long()[:, None], x.round().long()]
    result = torch.where(here, 1 / smooth[..., 0].clamp_min(1e-30), 0.0)
    return result, torch.where(here, smooth[..., 1], 0.0)


def _beside_jumps(depth: Tensor, known: Tensor) -> Bool[Tensor, "h w"]:
    """Coarse pixels near two surfaces, or near what is unknown."""
    near = depth_edges(torch.where(known, depth, 1e-3), rtol=_JUMP) | ~known
    return F.max_pool2d(near.float()[None, None], 3, stride=1, padding=1)[0, 0] > 0


def _chosen(
    inverse: Tensor, conf: Tensor, known: Tensor, coarse: Tensor, place: Float[Tensor, "n 2"], colour: Tensor
) -> Float[Tensor, "n 2"]:
    """Inverse depth and confidence of the surface that has most to say at ``place`` (row and column, coarse pixels)."""
    slope_y, slope_x = _slope(inverse, known, 0), _slope(inverse, known, 1)
    middle, last = place.round().long(), torch.tensor(inverse.shape) - 1
    values, says, sure = [], [], []
    for step_y in range(-_REACH, _REACH + 1):
        for step_x in range(-_REACH, _REACH + 1):
            cell = middle + torch.tensor([step_y, step_x])
            row, column = cell.clamp_min(0).minimum(last).unbind(-1)
            away = place - torch.stack([row, column], dim=-1)
            there = inverse[row, column]
            value = there + slope_y[row, column] * away[:, 0] + slope_x[row, column] * away[:, 1]
            values.append(torch.where(value > 0.5 * there, value, there))
            difference = (coarse[row, column] - colour).square().sum(-1)
            weight = (-away.square().sum(-1) / (2 * _PLACE**2) - difference / (2 * _COLOUR**2)).exp() + 1e-12
            says.append(weight * known[row, column] * ((cell >= 0) & (cell <= last)).all(-1))
            sure.append(conf[row, column])
    value, weight, certain = torch.stack(values), torch.stack(says), torch.stack(sure)
    most, best = torch.full_like(value[0], -1.0), torch.ones(len(place), 2)
    for own in value.gather(0, weight.topk(_SURFACES, dim=0).indices):
        agree = weight * ((value - own).abs() <= _JUMP * own)
        support = agree.sum(0)
        mean = (
            torch.stack([(agree * value).sum(0), (agree * certain).sum(0)], dim=-1) / support.clamp_min(1e-30)[:, None]
        )
        better = support > most
        best = torch.where(better[:, None], mean, best)
        most = torch.where(better, support, most)
    return best


def _slope(inverse: Tensor, known: Tensor, axis: int) -> Tensor:
    """Change a pixel along ``axis``: the smaller of both sides', and 0 where they disagree or one is not known."""
    size = inverse.shape[axis]
    if size < 3:
        return torch.zeros_like(inverse)
    change = inverse.diff(dim=axis)
    change = torch.where(known.narrow(axis, 1, size - 1) & known.narrow(axis, 0, size - 1), change, 0.0)
    before = torch.cat([change.narrow(axis, 0, 1), change], dim=axis)
    after = torch.cat([change, change.narrow(axis, size - 2, 1)], dim=axis)
    return torch.where(before * after > 0, torch.where(before.abs() < after.abs(), before, after), 0.0)
