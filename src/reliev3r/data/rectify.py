"""Images of real lenses as the pinhole images that the rest of the project works on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8


@dataclass(frozen=True, kw_only=True, eq=False)
class Rectification:
    """Where each pixel of a pinhole image lies in the stored image of a distorted (or fisheye) lens."""

    width: int
    """Pixels of the pinhole image, as ``height``."""
    height: int
    lens: dict[str, Any]
    """Its parameters as plain JSON values: labels of images rectified otherwise are other labels."""
    stored_uv: Callable[[], Float[np.ndarray, "h w 2"]]
    """Positions, in pixels of the stored image (corner convention), of the pinhole image's pixel centres."""

    @functools.cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        uv = self.stored_uv().astype(np.float32) - 0.5  # cv2.remap counts from the centre of the first pixel
        return np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1])

    def image(self, stored: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The pinhole image, bilinear; black where the lens saw nothing."""
        return cv2.remap(stored, *self._grid, interpolation=cv2.INTER_LINEAR, borderValue=(0, 0, 0))

    def values(self, stored: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "h2 w2"]:
        """A map (depth, mask) by nearest neighbour; 0 where the lens saw nothing."""
        return cv2.remap(stored, *self._grid, interpolation=cv2.INTER_NEAREST, borderValue=0)
