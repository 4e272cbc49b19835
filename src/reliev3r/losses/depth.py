"""Ambiguity-aware scale-invariant depth loss with confidence (paper, Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import DepthLabels
from reliev3r.geometry.statistics import Deviation, weighted_deviation, weighted_median

FLATTEST = 1e-3
"""A view's deviation counts as at least this share of its median: the gradient stays bounded where a view is flat."""


@dataclass(frozen=True, kw_only=True)
class DepthLossConfig:
    """Eq. 4 and what it leaves open (docs/method.md has the measured choice)."""

    alpha: float = 1.0
    """Price of doubt, in weighted absolute deviations of the label. The optimal confidence is min(2, alpha / error), so
    pixels that are off by more than half of it are doubted."""
    deviation: Deviation = "mean"
    """*Open.* Mean or median absolute deviation."""
    align: Literal["declared", "scale+shift"] = "declared"
    """*Open.* What of the prediction is fitted to the label before they are compared. ``declared``: what the label
    leaves open, a factor, or a factor and an offset. ``scale+shift``: both for every label."""
    space: Literal["depth", "log", "disparity"] = "depth"
    """*Open.* What is compared. The factor of ``depth`` is an offset in log space."""
    detach_statistics: bool = False
    """*Open.* Whether the statistics of the prediction carry no gradient. (Their weights never do: sg(W).)"""
    confidence: bool = True
    """False: W = 1, a plain normalised L1 (ablation)."""


def depth_loss(
    depth: Float[Tensor, "*b v h w"],
    conf: Float[Tensor, "*b v h w"],
    labels: DepthLabels,
    config: DepthLossConfig,
    doubt: Float[Tensor, "*b v h w"] | None = None,
) -> tuple[Float[Tensor, "*b v h w"], Bool[Tensor, "*b v h w"]]:
    """Per pixel W |G(depth, sg W) - G(label, sg W)| - alpha log W, and where it counts (Eq. 4).

    The error is what is left after the prediction was aligned to the label, view by view, in absolute deviations of the
    label: one unit for every kind of label, so that ``alpha`` means the same for all (docs/method.md derives it). All
    statistics are weighted by sg(W) over the valid pixels. Only the shape of a label is used; the prediction of a label
    up to a factor must have the right offset, that of a label up to factor and offset need not.

    ``doubt`` says what else W is to hear of, in the unit of the error and without gradient: W (error + doubt) in place
    of W error (ours, not the paper's).

    Differentiable in ``depth`` and ``conf``; finite, with zero gradient, without any valid pixel.
    """
    valid = labels.valid
    flat = valid.flatten(-2)
    weight = torch.where(flat, conf.detach().flatten(-2) if config.confidence else 1.0, 0.0)
    predicted = _to_space(depth.flatten(-2), config.space)
    target = _to_space(torch.where(valid, labels.depth, 1.0).flatten(-2), config.space)
    free_shift = config.align == "scale+shift" or labels.ambiguity == "scale+shift"
    difference = (_difference_up_to_shift if free_shift else _difference_up_to_scale)(predicted, target, weight, config)
    error = torch.where(flat, difference.abs(), 0.0).unflatten(-1, valid.shape[-2:])
    if not config.confidence:
        return error, valid
    heard = error if doubt is None else error + torch.where(valid, doubt.detach(), 0.0)
    return conf * heard - torch.where(valid, config.alpha * conf.log(), 0.0), valid


def _to_space(depth: Tensor, space: str) -> Tensor:
    if space == "log":
        return depth.clamp_min(1e-8).log()
    return 1 / depth.clamp_min(1e-8) if space == "disparity" else depth


def _difference_up_to_shift(predicted: Tensor, target: Tensor, weight: Tensor, config: DepthLossConfig) -> Tensor:
    """G(x) = (x - median) / deviation, of maps [..., n]."""
    centre, deviation = _statistics(_source(predicted, config), weight, config)
    true_centre, true_deviation = _statistics(target, weight, config)
    return (predicted - centre) / deviation - (target - true_centre) / true_deviation


def _difference_up_to_scale(predicted: Tensor, target: Tensor, weight: Tensor, config: DepthLossConfig) -> Tensor:
    """G(x) = x / median * (median / deviation of the label): the offset stays, and so does the unit."""
    centre = weighted_median(_source(predicted, config), weight)[..., None]
    true_centre, true_deviation = _statistics(target, weight, config)
    if config.space == "log":
        return (predicted - centre - target + true_centre) / true_deviation
    unit = true_centre.abs().clamp_min(1e-8) / true_deviation
    return (predicted / centre.abs().clamp_min(1e-8) - target / true_centre.abs().clamp_min(1e-8)) * unit


def _source(predicted: Tensor, config: DepthLossConfig) -> Tensor:
    """What the statistics of the prediction are made of."""
    return predicted.detach() if config.detach_statistics else predicted


def _statistics(values: Tensor, weight: Tensor, config: DepthLossConfig) -> tuple[Tensor, Tensor]:
    """Weighted median [..., 1] and deviation [..., 1], of which a flat view has none."""
    centre, deviation = (x[..., None] for x in weighted_deviation(values, weight, config.deviation))
    size = torch.ones_like(centre) if config.space == "log" else centre.detach().abs()
    return centre, deviation.maximum(FLATTEST * size + 1e-8)
