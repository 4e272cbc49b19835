"""Depth maps that were made elsewhere, one file a frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from reliev3r.core.arrays import ARRAY_ERRORS, read_npy, read_npz
from reliev3r.core.errors import UserError
from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.data.images import affordable
from reliev3r.labels.expert import DepthMap

_SUFFIXES = (".png", ".npy", ".npz")


@dataclass(frozen=True, kw_only=True)
class FolderDepth:
    """``folder/NAME.png`` (16-bit, millimetres), ``NAME.npy`` or ``NAME.npz`` (key "depth" or its only array).

    Any resolution with the image's aspect ratio, of the image as it lies there: it is rectified as that is. 0,
    negative, NaN and infinite values are invalid. Depth is taken up to a factor per view. With ``disparity`` the values
    are inverse depth up to a factor and become depth by 1/d; an expert whose disparity also has an unknown offset must
    be converted before.
    """

    folder: Path
    disparity: bool = False
    ambiguity: Ambiguity = "scale"

    def fingerprint(self) -> dict[str, Any]:
        """What the files are taken for; their contents count through :meth:`inputs`."""
        return {"name": "folder-disparity" if self.disparity else "folder", "version": 1}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """The frame's file."""
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder of depth maps")
        found = [self.folder / (frame.name + suffix) for suffix in _SUFFIXES]
        found = [path for path in found if path.is_file()]
        if not found:
            raise UserError(f"{self.folder / frame.name}.png: no depth map for this frame (nor .npy, .npz); add it")
        if len(found) > 1:
            raise UserError(f"{found[0]}: ambiguous, {found[1].name} is there too; keep one depth map a frame")
        return found

    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """The stored map at its own resolution."""
        path = self.inputs(frame, capture)[0]
        values = _read(path)
        if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiu":
            raise UserError(f"{path}: holds {values.dtype} of shape {values.shape}; a depth map is 2D and numeric")
        height, width = values.shape
        # Rounding to whole pixels may change the aspect of a small map by half a pixel a side.
        tolerance = 0.02 + 0.5 / width + 0.5 / height
        if abs(width / height / frame.aspect - 1) > tolerance:
            raise UserError(
                f"{path}: {width}x{height} is of another aspect ratio than the image {frame.file} "
                f"({frame.width}x{frame.height}); the map must cover the whole upright image"
            )
        values = values.astype(np.float64)
        if frame.rectification is not None:
            values = frame.rectification.values(values)
        if self.disparity:
            return DepthMap.from_values(np.divide(1, values, out=np.zeros_like(values), where=values > 0))
        return DepthMap.from_values(values / 1000 if path.suffix == ".png" else values)


def _read(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".png":
            return _read_png(path)
        if path.suffix == ".npy":
            return read_npy(path)
        arrays = read_npz(path)
        if "depth" not in arrays and len(arrays) != 1:
            raise UserError(f'{path}: holds {len(arrays)} arrays; name the map "depth"')
        return arrays["depth"] if "depth" in arrays else next(iter(arrays.values()))
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: unreadable depth map ({error}); make it again") from error


def _read_png(path: Path) -> np.ndarray:
    values = cv2.imdecode(np.frombuffer(affordable(path).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("not a PNG image")
    if values.dtype != np.uint16 or values.ndim != 2:
        raise UserError(
            f"{path}: must be a 16-bit grey PNG in millimetres, is {values.dtype} {values.shape}; or use .npy"
        )
    return values
