"""How much of each view the others see, by depth and cameras alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_LONG_SIDE = 48
"""Pixels of the grid that is looked up: a thousand places a view tell shares of a view to a few per cent."""
_AGREES = 0.1
"""Relative difference of depths up to which two views see the same surface."""


def covisibility(
    depth: Float[np.ndarray, "v h w"], K: Float[np.ndarray, "v 3 3"], world_from_cam: Float[np.ndarray, "v 4 4"]
) -> Float[np.ndarray, "v v"]:
    """Entry [i, j]: the share of view i's pixels with depth that view j sees too, in [0, 1]; 1 on the diagonal.

    A point counts where it lies in front of camera j, inside its image, and within a tenth of the depth there.
    ``K`` in corner convention.
    """
    views, height, width = depth.shape
    step = max(1, round(max(height, width) / _LONG_SIDE))
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    cam_from_world = np.linalg.inv(world_from_cam)
    shares = np.eye(views, dtype=np.float32)
    for i in range(views):
        z = depth[i, rows, columns].astype(np.float64)
        known = z > 0
        if not known.any():
            continue
        local = (np.linalg.inv(K[i]) @ pixels[:, known]) * z[known]
        world = world_from_cam[i, :3, :3] @ local + world_from_cam[i, :3, 3:]
        for j in range(views):
            if i != j:
                seen = cam_from_world[j, :3, :3] @ world + cam_from_world[j, :3, 3:]
                shares[i, j] = _sees(depth[j], K[j], seen).mean()
    return shares


def _sees(depth: np.ndarray, K: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which camera-frame points [3, n] the depth map shows."""
    height, width = depth.shape
    z = np.where(points[2] > 1e-9, points[2], np.inf)
    u, v = (K[axis, axis] * points[axis] / z + K[axis, 2] for axis in (0, 1))
    inside = np.isfinite(z) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    found = np.where(inside, depth[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)], 0)
    return inside & (found > 0) & (np.abs(found - points[2]) < _AGREES * points[2])


def ranking(shares: Float[np.ndarray, "v v"]) -> Int[np.ndarray, "v v"]:
    """Row i: view i itself, then the others by how much both see of each other, the most first; ties in order."""
    mutual = (shares + shares.T) / 2
    np.fill_diagonal(mutual, np.inf)
    return np.argsort(-mutual, axis=1, kind="stable")
