"""Images of real lenses as the pinhole images that the rest of the project works on."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from reliev3r.core.cameras_json import FrameEntry, refuse_impossible_K
from reliev3r.core.errors import UserError
from reliev3r.data.images import image_size
from reliev3r.geometry.camera import focal_from_fov


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

    def image(self, stored: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The pinhole image, bilinear; black where the lens saw nothing."""
        return cv2.remap(stored, *_grid(self), interpolation=cv2.INTER_LINEAR, borderValue=(0, 0, 0))

    def values(self, stored: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "h2 w2"]:
        """A map (depth, mask) by nearest neighbour, at its own resolution; 0 where the lens saw nothing."""
        u, v = _grid(self)
        height, width = stored.shape
        if (height, width) != u.shape:
            u, v = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in (u, v))
            u, v = (u + 0.5) * (width / self.width) - 0.5, (v + 0.5) * (height / self.height) - 0.5
        return cv2.remap(stored, u, v, interpolation=cv2.INTER_NEAREST, borderValue=0)


@functools.lru_cache(maxsize=2)  # a grid takes 8 bytes a pixel, and neighbouring frames share their lens
def _grid(rectification: Rectification) -> tuple[np.ndarray, np.ndarray]:
    uv = rectification.stored_uv().astype(np.float32) - 0.5  # cv2.remap counts from the centre of the first pixel
    return np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1])


def scaled_K(
    K: Float[np.ndarray, "3 3"], published: tuple[int, int], image: Path
) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
    """K (corner convention) of images of ``published`` = (width, height) for ``image``, and the latter's size.

    Copies of the dataset are often resized; K follows.

    Raises:
        UserError: the image has another aspect ratio (cropped or rotated).
    """
    width, height = image_size(image, upright=False)
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
_LISTED = ("k1", "k2", "k3", "k4", "p1", "p2")  # nerfstudio's order of distortion_params


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
    model = _model(entry, where)
    stored = None if "w" in entry and "h" in entry else image_size(image, upright=False)
    width, height = (_whole(entry, key, where) for key in "wh") if stored is None else stored
    fx = _focal(entry, "x", width, where)
    if fx is None:
        raise UserError(f"{where}: has no focal length; it needs fl_x or camera_angle_x")
    fy = _focal(entry, "y", height, where) or fx
    cx, cy = number(entry, "cx", where, width / 2), number(entry, "cy", where, height / 2)
    lens = Lens(
        model=model, width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, distortion=_distortion(entry, model, where)
    )
    refuse_impossible_K(lens.K, (width, height), where)
    return lens if size is None else _resized(lens, size, where, image)


def rectification_of_entry(
    entry: FrameEntry, K: Float[np.ndarray, "3 3"] | None, size: tuple[int, int], where: str
) -> Rectification | None:
    """What makes pinhole images of ``K`` of those that a frame of ``cameras.json`` is about; None where they are.

    ``K`` is the entry's in pixels (corner convention) of the image, whose ``size`` is (width, height).

    Raises:
        UserError: a model that no pinhole image can be made of, coefficients that it does not have, no K.
    """
    if not entry.lens:
        return None
    model = _model(entry.lens, where)
    distortion = _distortion(entry.lens, model, where)
    if K is None:
        if model.endswith("FISHEYE") or any(distortion):
            raise UserError(f"{where}: states a lens ({model}) but no K; its coefficients mean nothing without")
        return None
    refuse_impossible_K(K, size, where)
    fx, fy, cx, cy = (float(K[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    lens = Lens(model=model, width=size[0], height=size[1], fx=fx, fy=fy, cx=cx, cy=cy, distortion=distortion)
    return lens.rectification()


def stored_rectification(lens: dict[str, Any], where: str) -> Rectification | None:
    """That of a :class:`Lens` whose fields were stored as JSON (:attr:`Rectification.lens`).

    Raises:
        UserError: they are no lens's.
    """
    names = {field.name for field in dataclasses.fields(Lens)}
    numbers = {key: number(lens, key, where) for key in names - {"model", "distortion"} if key in lens}
    distortion = lens.get("distortion")
    if set(lens) != names or lens["model"] not in _COEFFICIENTS or not isinstance(distortion, list | tuple):
        raise UserError(f"{where}: the lens that its images were taken with is not one that can be rectified")
    coefficients = tuple(number({"k": value}, "k", where) for value in distortion)
    return Lens(
        model=lens["model"], distortion=coefficients, width=int(numbers["width"]), height=int(numbers["height"]),
        fx=numbers["fx"], fy=numbers["fy"], cx=numbers["cx"], cy=numbers["cy"],
    ).rectification()  # fmt: skip


def number(entry: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A finite number of a JSON object; text of one counts.

    Raises:
        UserError: missing (unless there is a ``default``) or anything else; ``where`` names file and frame.
    """
    value = entry.get(key, default)
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{where}: {key} must be a finite number, not {str(value)[:40]!r}; correct the file")
    return found


def _model(entry: dict[str, Any], where: str) -> str:
    model = str(entry.get("camera_model", "OPENCV_FISHEYE" if entry.get("is_fisheye") else "OPENCV"))
    if model not in _COEFFICIENTS:
        raise UserError(f"{where}: camera model {model[:40]} cannot be rectified; known: {', '.join(_COEFFICIENTS)}")
    return model


def _whole(entry: dict[str, Any], key: str, where: str) -> int:
    value = number(entry, key, where)
    if value != int(value) or value < 1:
        raise UserError(f"{where}: {key} must be a whole number of pixels, not {value:g}; correct the file")
    return int(value)


def _focal(entry: dict[str, Any], axis: str, side: int, where: str) -> float | None:
    """In pixels, from the focal length or the field of view along ``axis``; None where neither is stated."""
    if f"fl_{axis}" in entry:
        focal = number(entry, f"fl_{axis}", where)
        if focal <= 0:
            raise UserError(f"{where}: fl_{axis} must be above 0 pixels, not {focal:g}; correct the file")
        return focal
    if f"camera_angle_{axis}" not in entry:
        return None
    angle = number(entry, f"camera_angle_{axis}", where)
    if not 0 < angle < math.pi:
        raise UserError(f"{where}: camera_angle_{axis} must lie between 0 and pi radians, not {angle:g}")
    return focal_from_fov(angle, side)


def _distortion(entry: dict[str, Any], model: str, where: str) -> tuple[float, ...]:
    """In OpenCV's order. What the model does not have must be 0: it would be ignored without a word."""
    listed = entry.get("distortion_params")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) > len(_LISTED):
            raise UserError(f"{where}: distortion_params must be a list of at most {len(_LISTED)} numbers")
        entry = {**dict(zip(_LISTED, listed, strict=False)), **entry}
    for key in sorted(entry):
        if re.fullmatch(r"[kpsb]\d", key) and key not in _COEFFICIENTS[model] and number(entry, key, where) != 0:
            raise UserError(f"{where}: {key} is not 0, but camera model {model} has no {key}; correct the file")
    return tuple(number(entry, key, where, 0.0) for key in _COEFFICIENTS[model])


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


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    """K of four numbers."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
