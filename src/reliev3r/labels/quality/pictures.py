"""What the pictures alone say: are they sharp, is there texture, does it repeat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.files import atomic_path
from reliev3r.data.capture import Capture
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.store import CaptureLabels

_SIDE = 640  # all is measured at this long side, or less
_BLOCK = 16
_FLAT = 4.0  # grey levels of 255: a block that varies less, after noise is averaged out, shows nothing

_KEYPOINTS = 500
_ALIKE = 0.35  # distance of unit RootSIFT descriptors: true matches of neighbouring views are about as alike
_APART = 0.08  # of the long side: nearer copies are the same thing seen twice
_TWINS = 6  # look-alikes of a keypoint that are considered
_NEIGHBOURS = 8  # keypoints around a keypoint that are asked whether they moved along


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Figures of one picture."""

    sharpness: float
    """Variance of the Laplacian over the variance of the picture; comparable within one capture only."""
    blur: float
    """In [0, 1], the direction in which it is worst: how little another blur changes the picture (Crete et al. 2007).
    Near 0.3 for a crisp photograph, beyond 0.6 one sees it."""
    streak: float
    """``blur`` minus that of the sharpest direction: large where the camera moved, small where it was out of focus."""
    texture: float
    """Share of the picture's blocks that show anything."""


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How much of a picture is there twice."""

    copies: float
    """Share of the keypoints with a look-alike elsewhere in the picture, whose neighbours have theirs alongside."""
    mirrored: float
    """The same in the mirrored picture."""


def appearance(image: UInt8[np.ndarray, "h w 3"]) -> Appearance:
    """Sharpness, blur and texture of an RGB picture."""
    grey = _grey(image)
    directions = _blur_by_direction(grey.astype(np.float32))
    return Appearance(
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var() / max(float(grey.var()), 1.0)),
        blur=max(directions),
        streak=max(directions) - min(directions),
        texture=_texture(grey),
    )


def repetition(image: UInt8[np.ndarray, "h w 3"]) -> Repetition:
    """Look-alikes inside an RGB picture, by SIFT with itself and with its mirror image."""
    grey = _grey(image)
    uv, descriptor = _features(grey)
    turned_uv, turned = _features(np.ascontiguousarray(grey[:, ::-1]))
    back = np.stack([grey.shape[1] - turned_uv[:, 0], turned_uv[:, 1]], axis=1)
    apart = _APART * max(grey.shape)
    return Repetition(
        copies=_twin_share(uv, descriptor, uv, uv, descriptor, apart),
        mirrored=_twin_share(uv, descriptor, turned_uv, back, turned, apart),
    )


def _grey(image: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    shrink = _SIDE / max(grey.shape)
    return grey if shrink >= 1 else cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)


def _blur_by_direction(grey: Float[np.ndarray, "h w"]) -> list[float]:
    """Crete's no-reference blur along four directions: the share of the variation that a box filter leaves."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.7)  # noise would pass for sharpness
    shares = []
    for dx, dy in ((1, 0), (1, 1), (0, 1), (1, -1)):
        kernel = np.zeros((9, 9), np.float32)
        for k in range(-4, 5):
            kernel[4 + k * dy, 4 + k * dx] = 1 / 9
        blurred = cv2.filter2D(smooth, -1, kernel, borderType=cv2.BORDER_REFLECT)
        before, after = (_variation(picture, dx, dy) for picture in (smooth, blurred))
        lost = np.maximum(before - after, 0).sum()
        shares.append(float(1 - lost / max(float(before.sum()), 1e-6)))
    return shares


def _variation(grey: np.ndarray, dx: int, dy: int) -> np.ndarray:
    moved = np.roll(grey, (-dy, -dx), axis=(0, 1))
    return np.abs(moved - grey)[1:-1, 1:-1]


def _texture(grey: UInt8[np.ndarray, "h w"]) -> float:
    smooth = cv2.blur(grey, (3, 3)).astype(np.float32)
    height, width = (size // _BLOCK * _BLOCK for size in grey.shape)
    if not height or not width:
        return float(smooth.std() > _FLAT)
    blocks = smooth[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return float((blocks.std(axis=(1, 3)) > _FLAT).mean())


def _features(grey: UInt8[np.ndarray, "h w"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 128"]]:
    """Keypoints and RootSIFT descriptors, one at each place."""
    keypoints, descriptor = cv2.SIFT.create(nfeatures=_KEYPOINTS, contrastThreshold=0.01).detectAndCompute(grey, None)
    if descriptor is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    uv = np.array([keypoint.pt for keypoint in keypoints])
    first = np.unique(np.rint(uv).astype(int), axis=0, return_index=True)[1]
    descriptor = np.sqrt(descriptor[first] / np.maximum(descriptor[first].sum(1, keepdims=True), 1e-9))
    return uv[first], descriptor


def _twin_share(
    uv: np.ndarray, descriptor: np.ndarray, other_uv: np.ndarray, place: np.ndarray, other: np.ndarray, apart: float
) -> float:
    """Share of the keypoints at ``uv`` whose look-alike among ``other`` is confirmed by the look-alikes around.

    Look-alikes nearer than ``apart`` (at ``place``, in the same picture) do not count. By itself a look-alike is
    chance; where a structure repeats, the neighbours' look-alikes lie at nearly the same offset (in ``other_uv``).
    """
    if min(len(uv), len(other)) <= _TWINS:
        return 0.0
    distance = np.sqrt(np.maximum(2 - 2 * descriptor @ other.T, 0))
    distance[np.linalg.norm(uv[:, None] - place[None], axis=-1) < apart] = np.inf
    twins = np.argsort(distance, axis=1, kind="stable")[:, :_TWINS]
    alike = np.take_along_axis(distance, twins, axis=1) < _ALIKE
    offset = other_uv[twins] - uv[:, None]  # [n, twins, 2]
    gap = np.linalg.norm(uv[:, None] - uv[None], axis=-1)
    np.fill_diagonal(gap, np.inf)
    confirmed = 0
    for k in np.nonzero(alike.any(1))[0]:
        near = np.argsort(gap[k], kind="stable")[:_NEIGHBOURS]
        mine, theirs = offset[k][alike[k]], offset[near]  # [a, 2], [near, twins, 2]
        tolerance = 0.25 * gap[k, near] + 2.0
        along = np.linalg.norm(mine[:, None, None] - theirs[None], axis=-1) < tolerance[:, None]
        votes = (along & alike[near]).any(-1).sum(-1)
        confirmed += int(votes.max() >= 3)
    return confirmed / len(uv)


FILE = "quality.jpg"
_VIEWS = 6
_WIDTH = 220
_DOTS = 150
_GREY = 128  # pixels without depth


def write_sheet(folder: Path | str, capture: Capture, labels: CaptureLabels) -> None:
    """Write ``quality.jpg`` beside the labels: up to six views, deterministic.

    Dots are observations, from red (tracks of two views) over yellow to green (of half of the views or more); depth is
    in log scale of each map, blue is near.
    """
    columns = [_column(capture, labels, view) for view in evenly_spaced(range(len(capture.frames)), _VIEWS)]
    height = max(len(column) for column in columns)
    padded = [
        cv2.copyMakeBorder(c, 0, height - len(c), 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for c in columns
    ]
    sheet = np.concatenate(padded, axis=1)[:, :-4]
    ok, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not ok:
        raise RuntimeError("OpenCV could not encode a JPEG")
    with atomic_path(Path(folder) / FILE) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _column(capture: Capture, labels: CaptureLabels, view: int) -> UInt8[np.ndarray, "h w 3"]:
    frame = capture.frames[view]
    size = (_WIDTH, max(1, round(_WIDTH * frame.height / frame.width)))
    image = cv2.resize(capture.image(view), size, interpolation=cv2.INTER_AREA)
    visible = labels.tracks.visible
    length = visible.sum(0)
    seen = visible[view].nonzero()[:, 0]
    seen = seen[:: max(1, len(seen) // _DOTS)]
    uv = labels.tracks.uv[view, seen].double().numpy() * size[0] / frame.width
    full = max(3.0, len(visible) / 2)
    for (x, y), alive in zip(uv, ((length[seen] - 2) / (full - 2)).clamp(max=1).tolist(), strict=True):
        colour = (round(230 * min(1.0, 2 - 2 * alive)), round(200 * min(1.0, 0.2 + 2 * alive)), 40)
        cv2.circle(image, (round(float(x) * 16), round(float(y) * 16)), 28, colour, -1, cv2.LINE_AA, 4)
    depth = labels.depth(view)
    if not depth.valid.any():
        return image
    return np.concatenate([image, cv2.resize(_depth(depth.depth, depth.valid), size)], axis=0)


def _depth(depth: Float[np.ndarray, "h w"], valid: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    log = np.log(depth)
    low, high = np.percentile(log[valid], [2, 98])
    unit = ((log - low) / max(high - low, 1e-6)).clip(0, 1)
    picture = cv2.applyColorMap((255 * unit).round().astype(np.uint8), cv2.COLORMAP_TURBO)
    picture[~valid] = _GREY
    return np.ascontiguousarray(picture[..., ::-1])
