"""Alignments that only evaluation needs: robust scales, scale and shift, and ICP."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reliev3r.geometry.align import align_scale_l1, align_scale_shift, umeyama
from reliev3r.geometry.rigid import rigid_from


def view_weights(view: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """1 / (pixels of the view) for each pixel: every view with pixels counts alike."""
    return 1 / torch.bincount(view).clamp_min(1).double()[view]


def relative_scale(
    predicted: Float[Tensor, "n d"], true: Float[Tensor, "n d"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """argmin over s >= 0 of sum_n w |s p - q|_1 / |q|: the scale that is L1-optimal for *relative* errors.

    Exact, by a weighted median over all coordinates. For depth (d = 1) it minimises the depth rel that is reported: a
    large overestimate has the same leverage on both. 0 where the prediction points away from the truth.
    """
    weight = (weight / true.norm(dim=-1).clamp_min(1e-12))[:, None].expand_as(true)
    return align_scale_l1(predicted.flatten(), true.flatten(), weight.flatten()).clamp_min(0)


def scale_shift_l1(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"], *, iterations: int = 50
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """argmin_{s,t} sum |s x + t - y|, by iteratively re-weighted least squares from the least-squares solution.

    pi^3 minimises the same by 1000 steps of Adam from (ratio of medians, 0).
    """
    scale, shift = align_scale_shift(x, y, torch.ones_like(x))
    floor = 1e-6 * y.abs().mean().clamp_min(1e-12)
    for _ in range(iterations):
        before = scale
        weight = 1 / (scale * x + shift - y).abs().clamp_min(float(floor))
        scale, shift = align_scale_shift(x, y, weight)
        if (scale - before).abs() <= 1e-7 * before.abs():
            break
    return scale, shift


def icp(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"], *, threshold: float = 0.1, iterations: int = 30
) -> Float[Tensor, "4 4"]:
    """target_from_source by rigid point-to-point ICP from the identity (Open3D's algorithm and stopping rule).

    Each source point is matched to its nearest target within ``threshold`` (unit of the points); it stops when the
    share of matched points and their RMS distance change by less than 1e-6, or where fewer than three points match.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(target.numpy())
    result = torch.eye(4, dtype=source.dtype)
    before = (-1.0, -1.0)
    for _ in range(iterations + 1):
        moved = source @ result[:3, :3].mT + result[:3, 3]
        distance, index = tree.query(moved.numpy(), distance_upper_bound=threshold)
        distance, index = torch.from_numpy(distance), torch.from_numpy(index)
        near = distance.isfinite()
        if near.sum() < 3:
            break
        now = (float(near.double().mean()), float(distance[near].square().mean().sqrt()))
        if all(abs(a - b) < 1e-6 for a, b in zip(now, before)):
            break
        before = now
        _, rotation, translation = umeyama(moved[near], target[index[near]], with_scale=False)
        result = rigid_from(rotation, translation) @ result
    return result
