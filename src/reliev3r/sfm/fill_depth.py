"""Dense depth from depths that are known here and there: as few bends of the surfaces as the image allows.

Inverse depth is affine in the pixel wherever a surface is plane. So the map of least second differences through the
known depths continues walls, floors and tables. Image edges may bend it; far from all that is known it keeps to a
prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, kw_only=True)
class FillConfig:
    """Scales are shares of the inverse depth: what counts as one unit of disagreement."""

    known: float = 0.02
    """Of a depth that is known with certainty; beyond twice that it counts less and less (Cauchy)."""
    bend: float = 0.01
    """Of the second difference between neighbouring pixels."""
    slope: float = 0.03
    """Of the first difference: a surface that nothing holds at its end is not continued for ever."""
    prior: float = 0.3
    """Of the gap to the prior."""
    doubt: float = 1.0
    """Gap to the prior, as a share of it, from which the prior itself is doubted."""
    edge: float = 0.05
    """Change of colour (sum over the channels) at which a bend costs a third."""
    crease: float = 1e-3
    """What a bend at the sharpest edge still costs, as a share."""
    rounds: int = 4
    """Of re-weighting."""
    least: float = 0.2
    """Certainty below which a depth is not looked at."""


def fill_depth(
    depth: Float[Tensor, "v h w"],
    certainty: Float[Tensor, "v h w"],
    prior: Float[Tensor, "v h w"],
    image: Float[Tensor, "v 3 H W"],
    config: FillConfig | None = None,
) -> Float[Tensor, "v h w"]:
    """Depth everywhere, in the unit of ``depth``.

    Args:
        depth: > 0; read where it is certain.
        certainty: in [0, 1].
        prior: depth > 0 of the same unit, right in its coarse form.
        image: RGB in [0, 1], at this size or a larger one.
        config: see there.
    """
    config = config or FillConfig()
    small = F.interpolate(image, size=depth.shape[-2:], mode="area")
    maps = [part.double().cpu().numpy() for part in (depth, certainty, prior, small)]
    filled = [_filled(*(part[view] for part in maps), config) for view in range(len(depth))]  # type: ignore[call-arg]
    return torch.from_numpy(np.stack(filled)).to(depth)


def _filled(
    depth: np.ndarray, certainty: np.ndarray, prior: np.ndarray, image: np.ndarray, config: FillConfig
) -> Float[np.ndarray, "h w"]:
    """One view: a sparse linear system for the inverse depth in units of its median, re-weighted."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import spsolve

    unit = float(np.median(prior))
    known, usual = (unit / np.maximum(x, 1e-9 * unit) for x in (depth.ravel(), prior.ravel()))
    certain = np.where(certainty.ravel() > config.least, certainty.ravel(), 0.0)
    bending, weight, anchored = _bending(image, config), certain, np.ones_like(usual)
    found = usual
    for left in reversed(range(config.rounds)):
        data, anchors = weight / (config.known * known) ** 2, anchored / (config.prior * usual) ** 2
        found = spsolve((bending + diags(anchors + data)).tocsc(), data * known + anchors * usual)
        wide = 2 * 4.0**left  # first everything may speak, at last what agrees with its surroundings
        weight = certain / (1 + ((found - known) / (wide * config.known * known)) ** 2)
        anchored = 1 / (1 + ((found - usual) / (config.doubt * usual)) ** 2)
    return (unit / found.clip(1 / 50, 50)).reshape(depth.shape)


def _bending(image: Float[np.ndarray, "3 h w"], config: FillConfig) -> csr_matrix:
    """Quadratic form of the second differences along rows and columns, less where the colour changes."""
    from scipy.sparse import csr_matrix, diags

    rows, columns = image.shape[1:]
    index = np.arange(rows * columns).reshape(rows, columns)
    total: Any = csr_matrix((rows * columns, rows * columns))
    for axis in (0, 1):
        if index.shape[axis] < 3:
            continue
        change = np.abs(np.diff(image, axis=axis + 1)).sum(0)
        before, after = np.delete(change, -1, axis), np.delete(change, 0, axis)
        allowed = np.exp(-np.maximum(before, after) / config.edge).ravel() + config.crease
        triple = [np.take(index, range(k, index.shape[axis] - 2 + k), axis).ravel() for k in range(3)]
        count = len(allowed)
        values = np.concatenate([np.ones(count), np.full(count, -2.0), np.ones(count)])
        places = (np.tile(np.arange(count), 3), np.concatenate(triple))
        second = csr_matrix((values, places), shape=(count, rows * columns))
        total = total + second.T @ diags(allowed / config.bend**2) @ second
        pair = [np.delete(index, where, axis).ravel() for where in (-1, 0)]
        places = (np.tile(np.arange(change.size), 2), np.concatenate(pair))
        first = csr_matrix((np.repeat([1.0, -1.0], change.size), places), shape=(change.size, rows * columns))
        total = total + first.T @ diags(np.exp(-change.ravel() / config.edge) / config.slope**2) @ first
    return total
