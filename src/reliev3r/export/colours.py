"""Colours for people: maps as pictures and one distinct colour per view."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from jaxtyping import UInt8

COLOUR_MAPS = {"depth": cv2.COLORMAP_TURBO, "conf": cv2.COLORMAP_VIRIDIS}
_NOTHING = 128  # grey: neither map contains it


def colour_map(
    values: np.ndarray, low: float, high: float, *, kind: str, valid: np.ndarray | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a map [h, w] on a linear scale from ``low`` to ``high`` (clipped); grey where not ``valid``."""
    known = np.isfinite(values) if valid is None else np.isfinite(values) & valid
    unit = np.where(known, (values - low) / max(high - low, 1e-12), 0.0)
    picture = cv2.applyColorMap((unit.clip(0, 1) * 255).round().astype(np.uint8), COLOUR_MAPS[kind])
    picture[~known] = _NOTHING
    return np.ascontiguousarray(picture[..., ::-1])


def depth_picture(depth: np.ndarray, near: float, far: float) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a depth map, logarithmic from ``near`` (blue) to ``far`` (red); grey where not positive."""
    known = np.isfinite(depth) & (depth > 0)
    logarithm = np.log(np.where(known, depth, 1.0))
    return colour_map(logarithm, float(np.log(near)), float(np.log(far)), kind="depth", valid=known)


def view_colours(count: int) -> UInt8[np.ndarray, "count 3"]:
    """RGB colours that run through the hues from red to violet in the order of the views."""
    hues = np.linspace(0, 0.83, count)
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(h, 0.85, 0.9)] for h in hues], dtype=np.uint8)
