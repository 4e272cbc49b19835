"""What any point tracker needs beside itself: clips of a long video, points to follow, and doubt about its answers."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

_FAINT = 1e-3
"""Of the strongest corner of an image: below, a cell has nothing that could be followed."""
_STILL = 0.1
"""Share of the typical step below which a point near the border counts as frozen."""
_MOVING = 0.002
"""Typical step, as a share of the image's long side, from which on the camera counts as moving."""


def corners(image: UInt8[np.ndarray, "h w 3"], *, count: int, border: float) -> Float[np.ndarray, "n 2"]:
    """About ``count`` points to follow (pixels, corner convention): the strongest corner of each cell of a grid.

    Cells without texture give none, nor does a strip of ``border`` pixels along the edges.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(grey, (0, 0), 1), 3)
    edge = int(np.ceil(border))
    inner = np.zeros_like(strength)
    inner[edge : height - edge, edge : width - edge] = strength[edge : height - edge, edge : width - edge]
    cell = max(2, round(np.sqrt(height * width / count)))
    found = []
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            tile = inner[top : top + cell, left : left + cell]
            row, column = np.unravel_index(tile.argmax(), tile.shape)
            if tile[row, column] > _FAINT * strength.max():
                found.append((left + column + 0.5, top + row + 0.5))
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def farthest_frame(seen: Bool[np.ndarray, "n t"], asked: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each point the frame in which it is seen farthest in time from the one in which it was asked for."""
    apart = np.where(seen, np.abs(np.arange(seen.shape[1]) - asked[:, None]), 0)
    return np.where(apart.max(1) > 0, apart.argmax(1), asked)


def agreed(
    there: Float[np.ndarray, "n t 2"],
    back: Float[np.ndarray, "n t 2"],
    seen: Bool[np.ndarray, "n t"],
    asked: Int[np.ndarray, " n"],
    *,
    tolerance: float,
) -> Bool[np.ndarray, "n t"]:
    """Where following a point, and following it back from where it arrived, give the same place (within pixels).

    A track that does not come back to where it started has jumped, and is wrong on either side: all of it goes.
    """
    apart = np.linalg.norm(there - back, axis=2)
    returned = apart[np.arange(len(apart)), asked] < tolerance
    return seen & (apart < tolerance) & returned[:, None]


def inside(uv: Float[np.ndarray, "n t 2"], width: float, height: float, *, border: float) -> Bool[np.ndarray, "n t"]:
    """Farther than ``border`` pixels from the image's edges. Trackers put what they lose at the edge or at (0, 0)."""
    return np.all((uv > border) & (uv < np.array([width, height]) - border), axis=2)


def frozen(
    uv: Float[np.ndarray, "n t 2"],
    seen: Bool[np.ndarray, "n t"],
    width: float,
    height: float,
    *,
    strip: float,
) -> Bool[np.ndarray, "n t"]:
    """Points that stand still near the border while the rest of the image moves: they have left it in truth."""
    step = np.linalg.norm(np.diff(uv, axis=1), axis=2)
    both = seen[:, 1:] & seen[:, :-1]
    typical = np.zeros(step.shape[1])
    for time in np.nonzero(both.any(0))[0]:
        typical[time] = np.median(step[both[:, time], time])
    still = (typical > _MOVING * max(width, height)) & (step < _STILL * typical)
    still = np.pad(still, ((0, 0), (0, 1))) | np.pad(still, ((0, 0), (1, 0)))
    return still & ~inside(uv, width, height, border=strip)
