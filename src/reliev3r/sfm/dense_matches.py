"""Mutual matches between dense feature maps, with sub-pixel places: what a network's matching branch is read with.

Features are scaled so that the dot product of two is the logit of their match (``Prediction.features``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.sampling import sample_features

_LOGITS = 2**21
"""Of a block of queries on a CPU."""


@dataclass(frozen=True, kw_only=True)
class DenseMatchConfig:
    """Which cells ask, and which answers count."""

    queries: int = 192
    """Cells of each view that look for their match in every other view, on a regular grid; about so many."""
    window: int = 3
    """Cells on a side of the window, around the best cell, whose expectation is the sub-pixel place."""
    mass: float = 0.15
    """Least share of the softmax over all cells that lies within the window."""
    cycle: float = 0.75 / 64
    """How far, in image widths, the match of the match may lie from the query."""


def mutual_matches(
    features: Float[Tensor, "b v c gh gw"], size: tuple[int, int], config: DenseMatchConfig | None = None
) -> Tracks:
    """Every query cell of every view as a track [b, v, v * k]: seen in its own view, and wherever its match is mutual.

    Track ``i * k + q`` is query q of view i. ``uv`` is in pixels of images of ``size`` (height, width).
    """
    config = config or DenseMatchConfig()
    _, views, _, rows, columns = features.shape
    cells = query_cells(rows, columns, config.queries).to(features.device)
    stride = features.new_tensor([size[1] / columns, size[0] / rows])
    at = torch.stack([cells % columns + 0.5, cells // columns + 0.5], dim=-1).to(features.dtype) * stride  # k 2
    flat = features.flatten(-2)
    places, weights = [], []
    for view in range(views):  # all pairs of a view at once
        others = [other for other in range(views) if other != view]
        parts = []
        for part in cells.split(_asked_at_once(features, len(cells))):
            asked = flat[:, view, :, part].mT  # b k c
            cell, mass = _expectation(asked[:, None] @ flat[:, others], rows, columns, config.window)
            there = cell * stride
            answer = sample_features(features[:, others], there / features.new_tensor([size[1], size[0]]))
            back, returned = _expectation(answer @ flat[:, view, None], rows, columns, config.window)
            parts.append((there, back, torch.minimum(mass, returned)))
        there, back, mass = (torch.cat(each, dim=2) for each in zip(*parts, strict=True))
        good = ((back * stride - at).norm(dim=-1) < config.cycle * size[1]) & (mass > config.mass)
        places.append(torch.cat([there[:, :view], at.expand_as(there[:, :1]), there[:, view:]], dim=1))
        weights.append(torch.cat([good[:, :view], torch.ones_like(good[:, :1]), good[:, view:]], dim=1))
    return Tracks(uv=torch.cat(places, dim=-2), weight=torch.cat(weights, dim=-1).to(features.dtype))


def _asked_at_once(features: Float[Tensor, "b v c gh gw"], count: int) -> int:
    """How many of a view's ``count`` query cells ask in one block.

    On a CPU so many that their logits stay in memory that is used again. Larger blocks come from the system each time.
    That takes a third of the time, and leaves holes in the heap.
    """
    batch, views, _, rows, columns = features.shape
    if features.device.type != "cpu" or views == 1:
        return count
    return max(1, min(count, _LOGITS // (batch * (views - 1) * rows * columns)))


def query_cells(rows: int, columns: int, count: int) -> Int[Tensor, " k"]:
    """Cells of a regular grid of about ``count`` among ``rows`` x ``columns``, as row * columns + column."""
    step = max(1, round(math.sqrt(rows * columns / count)))
    y, x = torch.arange(step // 2, rows, step), torch.arange(step // 2, columns, step)
    return (y[:, None] * columns + x).flatten()


def _expectation(
    logits: Float[Tensor, "*b n"], rows: int, columns: int, window: int
) -> tuple[Float[Tensor, "*b 2"], Float[Tensor, "*b"]]:
    """(place in cells, corner convention: the mean over the window around the best cell; softmax mass within)."""
    highest, best = logits.max(-1)
    reach = torch.arange(window, device=logits.device) - window // 2
    y = (best // columns)[..., None, None] + reach[:, None]
    x = (best % columns)[..., None, None] + reach
    index, inside = _window_cells(y, x, rows, columns)
    share = (logits.gather(-1, index) - highest[..., None]).exp() * inside
    window_sum, total = share.sum(-1), (logits - highest[..., None]).exp_().sum(-1)
    mass = window_sum / total
    share = share / window_sum.clamp_min(1e-12)[..., None]
    place = [(share * (axis.expand(*best.shape, window, window).flatten(-2) + 0.5)).sum(-1) for axis in (x, y)]
    return torch.stack(place, dim=-1), mass


def _window_cells(y: Tensor, x: Tensor, rows: int, columns: int) -> tuple[Int[Tensor, "*b w"], Bool[Tensor, "*b w"]]:
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return (y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)).flatten(-2), inside.flatten(-2)
