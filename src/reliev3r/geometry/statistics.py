"""Weighted robust statistics."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def weighted_median(values: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """The lower weighted median: the smallest value at which the cumulative weight reaches half of the total.

    Differentiable in ``values`` (the gradient reaches the one value that is picked). 0 where all weights are 0.
    """
    order = _argsort(values.detach())
    cumulative = weight.gather(-1, order).cumsum(-1)
    total = cumulative[..., -1:]
    position = torch.searchsorted(cumulative.contiguous(), 0.5 * total).clamp_max(values.shape[-1] - 1)
    picked = values.gather(-1, order.gather(-1, position))[..., 0]
    return torch.where(total[..., 0] > 0, picked, torch.zeros_like(picked))


def _argsort(values: Tensor) -> Tensor:
    """Along the last dimension; numpy's vectorised sort takes half the time of torch's on a CPU."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return values.argsort(dim=-1)
    return torch.from_numpy(values.numpy().argsort(axis=-1))


def weighted_mean(
    values: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"], *, eps: float = 1e-12
) -> Float[Tensor, "*b"]:
    """Sum of weight * value over the sum of weights; 0 where all weights are 0. Weightless values are not read."""
    values = torch.where(weight > 0, values, torch.zeros_like(values))
    return (weight * values).sum(-1) / weight.sum(-1).clamp_min(eps)


Deviation = Literal["mean", "median"]
"""Which average of the absolute deviations from the median."""


def weighted_deviation(
    values: Float[Tensor, "*b n"], weight: Float[Tensor, "*b n"], average: Deviation
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Weighted median, and the weighted mean or median of the absolute deviations from it.

    With the mean it is MiDaS' shift and scale; which one the paper's WMAD is, is open. 0 where all weights are 0.
    """
    median = weighted_median(values, weight)
    apart = (values - median[..., None]).abs()
    return median, (weighted_mean if average == "mean" else weighted_median)(apart, weight)


_LOST = 10


def main_part(
    places: Float[np.ndarray, "n 3"], middle: Float[np.ndarray, "3"] | None = None
) -> Float[np.ndarray, "k 3"]:
    """Without what is more than ten times as far from the ``middle`` (by default the median) as half of all is.

    One lost camera, or a few points at the horizon, must not decide how everything else is looked at.
    """
    away = np.linalg.norm(places - (np.median(places, axis=0) if middle is None else middle), axis=1)
    half = np.median(away)
    return places[away <= _LOST * half] if half > 0 else places
