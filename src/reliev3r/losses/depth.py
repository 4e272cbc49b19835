"""Ambiguity-aware scale-invariant depth loss with confidence (paper, Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import DepthLabels
from reliev3r.geometry.statistics import weighted_mad, weighted_median


@dataclass(frozen=True, kw_only=True)
class DepthLossConfig:
    """Eq. 4 and what it leaves open (docs/method.md has the measured choice)."""

    alpha: float = 1.0
    """Price of doubt. The optimal confidence is min(2, alpha / error), so pixels worse than alpha / 2 are doubted."""
    normalisation: Literal["mad", "median", "auto"] = "auto"
    """*Open in the paper.* ``mad``: subtract the weighted median and divide by the weighted mean absolute deviation
    (invariant to scale and shift). ``median``: divide by the weighted median only (invariant to scale). ``auto``:
    ``mad`` for labels that declare ``scale+shift``, ``median`` otherwise."""
    space: Literal["depth", "log", "disparity"] = "depth"
    """*Open.* What is normalised. In log space ``median`` subtracts the median instead of dividing by it."""
    detach_statistics: bool = False
    """*Open.* Whether the statistics of the prediction carry no gradient. (Their weights never do: sg(W).)"""
    confidence: bool = True
    """False: W = 1, a plain normalised L1 (ablation)."""


def depth_loss(
    depth: Float[Tensor, "*b v h w"],
    conf: Float[Tensor, "*b v h w"],
    labels: DepthLabels,
    config: DepthLossConfig,
) -> tuple[Float[Tensor, "*b v h w"], Bool[Tensor, "*b v h w"]]:
    """Per pixel W |G(depth, sg W) - G(label, sg W)| - alpha log W, and where it counts (Eq. 4).

    G normalises each view by itself, so only the shape of the label is used; its statistics are weighted by sg(W) over
    the valid pixels. Differentiable in ``depth`` and ``conf``; finite, with zero gradient, without any valid pixel.
    """
    valid = labels.valid
    flat = valid.flatten(-2)
    weight = torch.where(flat, conf.detach().flatten(-2) if config.confidence else 1.0, 0.0)
    mode = config.normalisation
    if mode == "auto":
        mode = "mad" if labels.ambiguity == "scale+shift" else "median"
    predicted = _normalise(_to_space(depth.flatten(-2), config.space), weight, mode, config, config.detach_statistics)
    target = _normalise(_to_space(_filled(labels.depth, valid).flatten(-2), config.space), weight, mode, config, True)
    error = torch.where(flat, (predicted - target).abs(), 0.0).unflatten(-1, valid.shape[-2:])
    if not config.confidence:
        return error, valid
    return conf * error - torch.where(valid, config.alpha * conf.log(), 0.0), valid


def _filled(depth: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, depth, torch.ones_like(depth))


def _to_space(depth: Tensor, space: str) -> Tensor:
    if space == "log":
        return depth.clamp_min(1e-8).log()
    return 1 / depth.clamp_min(1e-8) if space == "disparity" else depth


def _normalise(values: Tensor, weight: Tensor, mode: str, config: DepthLossConfig, detach: bool) -> Tensor:
    """G of Eq. 4 for maps [..., n]."""
    source = values.detach() if detach else values
    if mode == "median":
        median = weighted_median(source, weight)[..., None]
        return values - median if config.space == "log" else values / median.abs().clamp_min(1e-8)
    median, deviation = (statistic[..., None] for statistic in weighted_mad(source, weight))
    # A flat view has no deviation; the floor, relative to the median, keeps its gradient bounded.
    floor = 1e-3 * median.detach().abs() + 1e-6
    return (values - median) / deviation.clamp_min(1e-8).maximum(floor)
