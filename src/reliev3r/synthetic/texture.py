"""Procedural textures: evaluated at the hit point, low-passed to the pixel's footprint, the same from every view.

A face is a plane with coordinates (u, v) in metres. Its colour is a tessellation (bricks, planks, tiles and checkers,
or irregular cells) of randomly coloured cells with joints, under scattered spots of several sizes and multi-octave
value noise. Randomness is a hash of lattice coordinates: nothing repeats and no image is stored.

Arrays are laid out [..., n] with the points last, and choices are made by arithmetic: comparisons, ``where``,
``gather`` and arg-reductions cost ten to a thousand times a multiplication in PyTorch's CPU kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

_OCTAVES = 5
_SPOT_LEVELS = 3
_CHANNELS = (1597334677, 1103515245, 1664525, 22695477, 214013, 69069, 1566083941, 747796405)
"""Odd multipliers that make independent numbers of one hash."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Texture parameters of every face (f faces); lengths in metres, colours in [0, 1]."""

    irregular: bool
    """Whether faces are tessellated into Voronoi cells instead of rows of rectangles."""
    seed: Int32[Tensor, " f"]
    palette: Float[Tensor, "9 f"]
    """RGB of the two colours between which cells vary, and of the joints."""
    angle: Float[Tensor, " f"]
    """In-plane rotation of the tessellation in radians."""
    cell: Float[Tensor, "2 f"]
    """Width and height of a cell."""
    bond: Float[Tensor, " f"]
    """Rectangles: shift of each row against the next as a share of the width (0.5: bricks). Cells: jitter, 0 to 1."""
    checker: Float[Tensor, " f"]
    """In [0, 1]: 0 colours cells at random, 1 alternates two colours."""
    joint: Float[Tensor, " f"]
    """Width of the joints between cells."""
    warp: Float[Tensor, " f"]
    """How far low-frequency noise bends the tessellation."""
    grain: Float[Tensor, " f"]
    """Relative amplitude of the noise on the colour."""
    spacing: Float[Tensor, " f"]
    """Lattice spacing of the coarsest noise octave; each further one halves it."""
    spots: Float[Tensor, " f"]
    """Probability that a cell of a spot lattice holds a spot."""
    spot: Float[Tensor, " f"]
    """Spacing of the coarsest spot lattice; each further one halves it."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Materials:
        """A copy with ``function`` applied to every tensor."""
        tensors = {k: function(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **tensors)  # type: ignore[arg-type]


def albedo(
    materials: Materials, face: Int[Tensor, " n"], uv: Float[Tensor, "2 n"], footprint: Float[Tensor, " n"]
) -> Float[Tensor, "3 n"]:
    """RGB in [0, 1] at the points ``uv`` (metres) of faces ``face``, low-passed to ``footprint`` (metres)."""
    own = materials.map(lambda x: x.index_select(-1, face))
    noise = _value_noise(uv, own, footprint)
    cosine, sine = own.angle.cos(), own.angle.sin()
    bent = torch.stack([cosine * uv[0] - sine * uv[1], sine * uv[0] + cosine * uv[1]]) + own.warp * noise[:2]
    mix, cell, border = (_voronoi if materials.irregular else _rows)(bent, own)
    # Far away, cells melt into their mean instead of flickering.
    sharp = (own.cell.amin(0) / footprint - 1).clamp(0, 1)
    colour = torch.lerp(own.palette[3:6], own.palette[:3], 0.5 + (mix - 0.5) * sharp)
    colour = colour * (1 + 0.4 * sharp * (_random(cell, 1) - 0.5))
    colour = torch.lerp(colour, own.palette[6:], _line_coverage(border, 0.5 * own.joint, footprint))
    colour = colour * (1 + own.grain * noise.sum(0))
    return _with_spots(colour, uv, own, footprint).clamp(0, 1)


def _rows(uv: Tensor, own: Materials) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of rectangles: (mix of the two colours in [0, 1], hash of the cell, distance to its border in metres)."""
    y = uv[1] / own.cell[1]
    row = y.floor()
    x = uv[0] / own.cell[0] + own.bond * row
    column = x.floor()
    cell = _hash(column.int(), row.int(), own.seed)
    half = 0.5 * (column + row)
    alternating = 2 * (half - half.floor())
    mix = torch.lerp(_random(cell, 0), alternating, own.checker)
    border_x = (0.5 - (x - column - 0.5).abs()) * own.cell[0]
    border_y = (0.5 - (y - row - 0.5).abs()) * own.cell[1]
    return mix, cell, torch.minimum(border_x, border_y)


def _voronoi(uv: Tensor, own: Materials) -> tuple[Tensor, Tensor, Tensor]:
    """Irregular cells around jittered lattice points (Worley 1996); returns what :func:`_rows` returns."""
    p = uv / own.cell
    base = p.floor().int()
    neighbour = torch.arange(9, device=uv.device, dtype=torch.int32)[:, None]
    x, y = base[0] + neighbour % 3 - 1, base[1] + neighbour // 3 - 1
    cells = _hash(x, y, own.seed)
    dx = (x + 0.5 + own.bond * (_random(cells, 2) - 0.5) - p[0]) * own.cell[0]
    dy = (y + 0.5 + own.bond * (_random(cells, 3) - 0.5) - p[1]) * own.cell[1]
    distance = (dx * dx + dy * dy).sqrt()
    first = second = torch.full_like(p[0], 1e3)
    for d in distance.unbind(0):
        second = torch.minimum(second, torch.maximum(first, d))
        first = torch.minimum(first, d)
    cell = select(cells, argmin(distance))
    alternating = (1e6 * (_random(cell, 0) - 0.5)).clamp(0, 1)
    return torch.lerp(_random(cell, 0), alternating, own.checker), cell, 0.5 * (second - first)


def _value_noise(uv: Tensor, own: Materials, footprint: Tensor) -> Tensor:
    """Value noise [octave, n], each within plus or minus its gain, faded out where it is finer than the footprint."""
    octave = torch.arange(_OCTAVES, device=uv.device, dtype=torch.int32)[:, None]
    frequency = 2.0**octave / own.spacing
    x, y = uv[0] * frequency, uv[1] * frequency
    column, row = x.floor(), y.floor()
    dx, dy = x - column, y - row
    dx, dy = dx * dx * (3 - 2 * dx), dy * dy * (3 - 2 * dy)
    column, row, seed = column.int(), row.int(), own.seed + 131 * octave
    top, bottom = (
        torch.lerp(_hash(column, r, seed).float(), _hash(column + 1, r, seed).float(), dx) for r in (row, row + 1)
    )
    gain = 2.0**-31 * 0.8**octave * (1 / (frequency * footprint) - 1).clamp(0, 1)
    return torch.lerp(top, bottom, dy) * gain


def _with_spots(colour: Tensor, uv: Tensor, own: Materials, footprint: Tensor) -> Tensor:
    """``colour`` [3, n] under round spots, one at most in each cell of lattices of decreasing size."""
    level = torch.arange(_SPOT_LEVELS, device=uv.device, dtype=torch.int32)[:, None]
    size = own.spot * 0.5**level
    x, y = uv[0] / size, uv[1] / size
    column, row = x.floor(), y.floor()
    cell = _hash(column.int(), row.int(), own.seed + 7919 * (level + 1))
    dx = x - column - (0.3 + 0.4 * _random(cell, 0))
    dy = y - row - (0.3 + 0.4 * _random(cell, 1))
    radius = 0.08 + 0.2 * _random(cell, 2)
    coverage = (0.5 + (radius - (dx * dx + dy * dy).sqrt()) * size / footprint).clamp(0, 1)
    present = (1e6 * (own.spots - _random(cell, 3))).clamp(0, 1)
    coverage = coverage * present * (0.5 * size / footprint - 0.5).clamp(0, 1)
    value = 0.05 + 0.9 * _random(cell, 4)
    tint = torch.stack([_random(cell, channel) for channel in (5, 6, 7)])
    paint = value * (0.6 + 0.4 * tint)
    for k in range(_SPOT_LEVELS):
        colour = torch.lerp(colour, paint[:, k], coverage[k])
    return colour


def _line_coverage(distance: Tensor, half_width: Tensor, footprint: Tensor) -> Tensor:
    """Share of a box filter of width ``footprint``, ``distance`` away from a line's centre, that the line covers."""
    upper = torch.minimum(distance + 0.5 * footprint, half_width)
    lower = torch.maximum(distance - 0.5 * footprint, -half_width)
    return (upper - lower).clamp_min(0) / footprint


def _hash(x: Int32[Tensor, "..."], y: Int32[Tensor, "..."], seed: Int32[Tensor, "..."]) -> Int32[Tensor, "..."]:
    """Pseudo-random int32 for integer lattice coordinates (products wrap)."""
    h = x * 73856093 + y * 19349663 + seed * 83492791
    h = (h ^ (h >> 13)) * 1274126177
    h = (h ^ (h >> 15)) * 2146121005
    return h ^ (h >> 16)


def _random(h: Int32[Tensor, "..."], channel: int) -> Float[Tensor, "..."]:
    """Number in [0, 1] of a hash; the channels (0, 1, ...) are independent of one another."""
    return (h * _CHANNELS[channel]).float() * 2.0**-32 + 0.5


def argmin(values: Float[Tensor, "k n"]) -> Int[Tensor, " n"]:
    """Index of the smallest of k <= 64 non-negative values, the first among those equal to about 1e-5 relative.

    Non-negative floats are ordered as their bits are: the index rides in the lowest six bits through a plain minimum.
    """
    index = torch.arange(len(values), device=values.device, dtype=torch.int32)[:, None]
    return (((values.contiguous().view(torch.int32) & ~63) | index).amin(0) & 63).long()


def select(values: Tensor, index: Int[Tensor, " n"]) -> Tensor:
    """values [..., k, n] at each column's own row: [..., n]."""
    columns = torch.arange(index.shape[0], device=index.device)
    return values.flatten(-2).index_select(-1, index * index.shape[0] + columns)
