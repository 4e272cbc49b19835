"""A scene of pseudo-labels that any of the layouts can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

CONFIDENT = 0.25
"""Confidence at or below which a pixel is masked out: the threshold of MapAnything's loader of DL3DV."""
_JPEG = {"quality": 95, "subsampling": 0}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingScene:
    """Pinhole images with depth, cameras and confidence: all on the same pixels, in one unit."""

    name: str
    """That of its folder: no slash, no space, no "#" at the start."""
    frames: tuple[str, ...]
    """Names, in the order of the capture."""
    images: UInt8[np.ndarray, "v h w 3"]
    """RGB."""
    depth: Float[np.ndarray, "v h w"]
    """z-depth in the unit of the cameras, float32, 0 where unknown."""
    confidence: Float[np.ndarray, "v h w"]
    """In [0, 1], 0 where there is no depth."""
    K: Float[np.ndarray, "v 3 3"]
    """In pixels of ``images``, corner convention."""
    world_from_cam: Float[np.ndarray, "v 4 4"]
    """OpenCV axes."""
    note: Mapping[str, Any]
    """What ``pseudo_labels.json`` says besides what depends on the layout; its "frames" are those of this scene."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.images.shape[2], self.images.shape[1]

    @property
    def confident(self) -> Bool[np.ndarray, "v h w"]:
        """Pixels that are worth training on."""
        return self.confidence > CONFIDENT

    def K_with_centre(self, centre: float) -> Float[np.ndarray, "v 3 3"]:
        """K where the first pixel's centre is at (``centre``, ``centre``)."""
        moved = self.K.copy()
        moved[:, :2, 2] += centre - 0.5
        return moved


def write_image(file: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """RGB or grey, as JPEG or PNG by the file's suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **(_JPEG if file.suffix == ".jpg" else {}))  # type: ignore[arg-type]


def write_mask(file: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """255 where true, as grey PNG."""
    write_image(file, np.where(mask, 255, 0).astype(np.uint8))
