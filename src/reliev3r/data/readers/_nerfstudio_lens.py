"""Lenses as nerfstudio's files state them, and the pinhole images that they are rectified to."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from reliev3r.data.images import image_size
from reliev3r.data.readers._poses import pinhole
from reliev3r.data.rectify import Rectification
from reliev3r.errors import UserError

# the coefficients that each model has, in the order in which OpenCV wants them
_COEFFICIENTS = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
    "SIMPLE_RADIAL_FISHEYE": ("k1",),
    "RADIAL_FISHEYE": ("k1", "k2"),
}


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A camera model of OpenCV's, in pixels of an image of ``width`` x ``height``, corner convention."""

    model: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    """In OpenCV's order, of its fisheye model where ``model`` ends in FISHEYE."""

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """Of the rectified image, which keeps focal lengths, centre and size; float64."""
        return pinhole(self.fx, self.fy, self.cx, self.cy)

    @property
    def straight(self) -> bool:
        """Whether the image is a pinhole's already. A fisheye is none even where its coefficients are 0."""
        return not self.model.endswith("FISHEYE") and not any(self.distortion)

    def rectification(self) -> Rectification | None:
        """To the pinhole image of :attr:`K`; None where the image is one."""
        if self.straight:
            return None
        return Rectification(
            width=self.width, height=self.height, lens=dataclasses.asdict(self), stored_uv=self._stored_uv
        )

    def _stored_uv(self) -> Float[np.ndarray, "h w 2"]:
        K = pinhole(self.fx, self.fy, self.cx - 0.5, self.cy - 0.5)  # OpenCV counts from the first pixel's centre
        coefficients = np.array(self.distortion, np.float64)
        size = (self.width, self.height)
        if self.model.endswith("FISHEYE"):
            coefficients = np.concatenate([coefficients, np.zeros(4 - len(coefficients))])
            maps = cv2.fisheye.initUndistortRectifyMap(K, coefficients, np.eye(3), K, size, cv2.CV_32FC1)
        else:
            coefficients = np.concatenate([coefficients, np.zeros(max(0, 5 - len(coefficients)))])
            maps = cv2.initUndistortRectifyMap(K, coefficients, None, K, size, cv2.CV_32FC1)
        return np.stack(maps, axis=-1) + 0.5


def lens_of(entry: dict[str, Any], where: str, image: Path, size: tuple[int, int] | None = None) -> Lens:
    """The lens that a frame (with what it shares with others) of a nerfstudio file states.

    ``size`` (width, height) is that of smaller copies, to which it is scaled. The size of ``image`` is read where the
    entry has none; missing numbers mean square pixels, a centred principal point and no distortion.

    Raises:
        UserError: no focal length, numbers that cannot be, a model that no pinhole image can be made of, or a size
            of another aspect.
    """
    model = str(entry.get("camera_model", "OPENCV"))
    if model not in _COEFFICIENTS:
        raise UserError(f"{where}: camera model {model} cannot be rectified; known: {', '.join(_COEFFICIENTS)}")
    try:
        width, height = (int(entry["w"]), int(entry["h"])) if "w" in entry and "h" in entry else image_size(image)
        fx = float(entry["fl_x"]) if "fl_x" in entry else _focal(entry["camera_angle_x"], width)
        fy = float(entry.get("fl_y", fx))
        cx, cy = float(entry.get("cx", width / 2)), float(entry.get("cy", height / 2))
        distortion = tuple(float(entry.get(key, 0.0)) for key in _COEFFICIENTS[model])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: needs numbers w, h, fl_x (or camera_angle_x), fl_y, cx, cy; {error}") from error
    if not np.isfinite([fx, fy, cx, cy, *distortion]).all() or min(fx, fy, width, height) <= 0:
        raise UserError(f"{where}: intrinsics that are not finite and positive; restore the file")
    lens = Lens(model=model, width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, distortion=distortion)
    return lens if size is None else _resized(lens, size, where, image)


def _focal(angle: Any, width: int) -> float:
    return 0.5 * width / math.tan(0.5 * float(angle))


def _resized(lens: Lens, size: tuple[int, int], where: str, image: Path) -> Lens:
    sx, sy = size[0] / lens.width, size[1] / lens.height
    if abs(sx / sy - 1) > 0.02:
        raise UserError(
            f"{image.parent}: images of {size[0]}x{size[1]} are no smaller copies of the {lens.width}x{lens.height} "
            f"in {where} (rotated or cropped?); restore the dataset's own"
        )
    return dataclasses.replace(
        lens, width=size[0], height=size[1], fx=lens.fx * sx, fy=lens.fy * sy, cx=lens.cx * sx, cy=lens.cy * sy
    )
