"""Images of distorted lenses for the readers' tests, from the published formulas, inverted numerically."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from reader_room import Room

Distort = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Normalised coordinates x/z, y/z to those where the lens images them."""


def brown(k1: float, k2: float, p1: float, p2: float) -> Distort:
    """Brown's model as OpenCV and COLMAP write it."""

    def distort(x, y):
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2 * r2
        return (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )

    return distort


def fisheye(k1: float, k2: float, k3: float, k4: float) -> Distort:
    """Equidistant with a polynomial (Kannala and Brandt)."""

    def distort(x, y):
        r = np.maximum(np.hypot(x, y), 1e-12)
        t = np.arctan(r)
        s = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / r
        return x * s, y * s

    return distort


def through(room: Room, distort: Distort) -> tuple[np.ndarray, np.ndarray]:
    """(rgb, depth) of the room as the lens stores them on images of the same size, 0 where the room's do not reach."""
    width, height = room.size
    K = room.K
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    xd, yd = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    x, y = xd.copy(), yd.copy()
    for _ in range(200):  # fixed point with damping: mild lenses converge
        fx, fy = distort(x, y)
        x, y = x + 0.7 * (xd - fx), y + 0.7 * (yd - fy)
    fx, fy = distort(x, y)
    assert max(np.abs(fx - xd).max(), np.abs(fy - yd).max()) < 1e-9
    # pixel centres of the room's arrays are at + 0.5, of cv2.remap's at integers
    at = (x * K[0, 0] + K[0, 2] - 0.5).astype(np.float32), (y * K[1, 1] + K[1, 2] - 0.5).astype(np.float32)
    rgb = np.stack([cv2.remap(image, *at, cv2.INTER_LINEAR, borderValue=(0, 0, 0)) for image in room.rgb])
    inverse = [cv2.remap((1 / d).astype(np.float32), *at, cv2.INTER_LINEAR, borderValue=0) for d in room.depth]
    depth = np.stack([np.where(i > 0.05, 1 / np.maximum(i, 1e-6), 0) for i in inverse])
    inside = (at[0] >= 0) & (at[1] >= 0) & (at[0] <= width - 1) & (at[1] <= height - 1)
    return rgb, depth * inside


def rays_as_colours(room: Room) -> Room:
    """The room with images whose red and green tell x and y of a pixel, two levels a pixel; blue is 255."""
    width, height = room.size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rgb = np.stack([20 + 2 * u, 20 + 2 * v, 0 * u + 255], axis=-1).astype(np.uint8)
    return Room(rgb=np.stack([rgb] * len(room)), depth=room.depth, K=room.K, world_from_cam=room.world_from_cam)
