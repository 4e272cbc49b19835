"""Calibrations that datasets publish once for all images, and the pinhole images that are made of distorted ones."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from reliev3r.data.images import image_size
from reliev3r.data.rectify import Rectification
from reliev3r.errors import UserError


def scaled_K(
    K: Float[np.ndarray, "3 3"], published: tuple[int, int], image: Path
) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
    """K (corner convention) of images of ``published`` = (width, height) for ``image``, and the latter's size.

    Copies of the dataset are often resized; K follows.

    Raises:
        UserError: the image has another aspect ratio (cropped or rotated).
    """
    width, height = image_size(image)
    scale = width / published[0]
    if abs(height - scale * published[1]) > 0.5:
        raise UserError(
            f"{image}: is {width}x{height}, not {published[0]}x{published[1]} or a resized copy (cropped or rotated?); "
            "restore the dataset's own images"
        )
    return np.diag([scale, scale, 1.0]) @ K, (width, height)


def brown_rectification(
    K: Float[np.ndarray, "3 3"], distortion: tuple[float, ...], size: tuple[int, int]
) -> tuple[Rectification, Float[np.ndarray, "3 3"]]:
    """From OpenCV's lens (k1, k2, p1, p2, k3; ``K`` in corner convention) to a pinhole image of the same size.

    The pinhole's K, which is returned too, shows the largest part of which every pixel was seen.
    """
    centred = K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # OpenCV counts from the centre of the first pixel
    new, _ = cv2.getOptimalNewCameraMatrix(centred, np.array(distortion), size, 0)

    def stored_uv() -> np.ndarray:
        u, v = cv2.initUndistortRectifyMap(centred, np.array(distortion), None, new, size, cv2.CV_32FC1)
        return np.stack([u, v], axis=-1) + 0.5

    lens = {"model": "OPENCV", "K": K.tolist(), "distortion": list(distortion)}
    new_K = np.array(new, np.float64) + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return Rectification(width=size[0], height=size[1], lens=lens, stored_uv=stored_uv), new_K


def fisheye624(rays: Float[np.ndarray, "*b 3"], parameters: tuple[float, ...]) -> Float[np.ndarray, "*b 2"]:
    """Pixels, integer centres, of camera-frame rays (z > 0) by Project Aria's FisheyeRadTanThinPrism model.

    ``parameters``: focal length, principal point (2), radial k0 to k5, tangential p0, p1, thin prism s0 to s3. From
    the documentation of facebookresearch/projectaria_tools, "Camera intrinsic models".
    """
    focal, centre = parameters[0], np.array(parameters[1:3])
    radial, p, s = np.array(parameters[3:9]), np.array(parameters[9:11]), np.array(parameters[11:15])
    xy = rays[..., :2] / rays[..., 2:]
    r = np.linalg.norm(xy, axis=-1, keepdims=True)
    theta = np.arctan(r)
    powers = theta ** (2 * np.arange(1, 7))
    bent = theta * (1 + (powers * radial).sum(-1, keepdims=True))
    xy = xy * np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)
    square = (xy**2).sum(-1, keepdims=True)
    tangential = square * p + 2 * xy * (xy * p).sum(-1, keepdims=True)
    prism = square * s[[0, 2]] + square**2 * s[[1, 3]]
    return focal * (xy + tangential + prism) + centre


@functools.cache
def turned_fisheye_rectification(
    parameters: tuple[float, ...], stored_size: int, published_size: int, focal: float
) -> tuple[Rectification, Float[np.ndarray, "3 3"]]:
    """From a square FISHEYE624 image that lies on its left side to an upright pinhole image of the same size.

    ``parameters`` and ``focal`` (the pinhole's) are in pixels of ``published_size``. Turned upright, the stored
    image is rotated clockwise: the pinhole's x axis is -y of the stored camera, its y axis is x.
    """
    scale = stored_size / published_size
    K = np.array([[focal * scale, 0, stored_size / 2], [0, focal * scale, stored_size / 2], [0, 0, 1]], np.float64)

    def stored_uv() -> np.ndarray:
        x = (np.arange(stored_size) + 0.5 - K[0, 2]) / K[0, 0]
        right, down = np.meshgrid(x, x)
        rays = np.stack([down, -right, np.ones_like(right)], axis=-1)
        return (fisheye624(rays, parameters) + 0.5) * scale

    lens = {"model": "FISHEYE624", "parameters": list(parameters), "focal": focal, "upright": "clockwise"}
    return Rectification(width=stored_size, height=stored_size, lens=lens, stored_uv=stored_uv), K
