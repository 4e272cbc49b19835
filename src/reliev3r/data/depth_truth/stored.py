"""A depth map on disk with the camera that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDepth:
    """One frame's map and pinhole camera; the map has not been read."""

    K: Float[np.ndarray, "3 3"]
    """In pixels of an image of ``size``, corner convention, float64."""
    size: tuple[int, int]
    """(width, height); the map covers that image at any resolution."""
    world_from_cam: Float[np.ndarray, "4 4"]
    """OpenCV axes, float64, in any world."""
    read: Callable[[], Float[np.ndarray, "h w"]]
    """z-depth in the unit of that world, float32, 0 where unknown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredScene:
    """The maps of a scene."""

    folder: Path
    frames: dict[str, StoredDepth]
    """By the stem of the image's file."""
    caveats: tuple[str, ...]
    """What must stand beside numbers: how the depth was made."""
