"""Images of distorted lenses for the readers' tests, from images instead of from a scene."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from layouts import Distort, Room, rays


def through(room: Room, distort: Distort) -> tuple[np.ndarray, np.ndarray]:
    """(rgb, depth) of the room as the lens stores them on images of the same size, 0 where the room's do not reach."""
    width, height = room.size
    xy = rays(room.K, room.size, distort)
    # pixel centres of the room's arrays are at + 0.5, of cv2.remap's at integers
    at = [(xy[..., i] * room.K[i, i] + room.K[i, 2] - 0.5).astype(np.float32) for i in range(2)]
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
    return dataclasses.replace(room, rgb=np.stack([rgb] * len(room)), scene=None)
