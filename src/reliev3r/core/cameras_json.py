"""``cameras.json``: the one reader and the one writer of what captures and results say about their cameras.

docs/conventions.md has the format. The file counts pixels from the centre of the first one, we count from its corner:
K is shifted here, once coming in and once going out, and nowhere else.

What anybody may know of a frame (:func:`read_frames`) and its ground truth (:func:`read_posed_frames`) are two
functions with two types. Only ``data.truth`` calls the second; a test holds that.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.core.files import inside, read_json, write_json

CAMERAS_JSON = "cameras.json"
"""Its name in a capture and in a folder of results."""

_AXES = "OpenCV camera axes (x right, y down, z forward); cam_to_world 4x4, X_w = T X_c"
_CAPTURED = f"{_AXES}; K pixel centres at integer coords; depth uint16 PNG, z-depth in mm, 0 = invalid"
_PREDICTED = f"{_AXES}, up to one global similarity; K in pixels of the original image, pixel centres at integer coords"
_CORNER_FROM_CENTRE = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
_LENS = re.compile(r"camera_model|is_fisheye|distortion_params|[kpsb]\d")
"""Entries about the lens, for all frames together or for one: nerfstudio's names (``data.lenses``)."""
_FARTHEST = 1e13  # no camera on Earth in any unit, and where float32 can still square
_LONGEST_PIXEL = 5.0  # width over height or the reverse; the most oblong ones of video have 1.5
_UNNAMED = re.compile(r"dist|dist_?coeffs?|distortion(_?coefficients|_?coeffs|_?model)?|D|lens|model", re.IGNORECASE)
"""How others call them; unread they would be ignored without a word."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameEntry:
    """What the file says about one image, ground truth apart."""

    name: str
    """Unique in the file; it names the frame's labels and outputs."""
    image: str | None = None
    """Path below the file's folder, with forward slashes; None where a file gives nothing but intrinsics."""
    width: int | None = None
    """Pixels of the upright image, as ``height``; None if not stated."""
    height: int | None = None
    K: Float[np.ndarray, "3 3"] | None = None
    """Intrinsics in pixels of that image, corner convention, float64; None if unknown."""
    lens: dict[str, Any] = field(default_factory=dict)
    """Its camera model and distortion as they stand, unchecked (``data.lenses`` knows them); empty: a pinhole."""


Entry = TypeVar("Entry", bound=FrameEntry)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedEntry(FrameEntry):
    """A frame with its camera's place and its depth map: ground truth in a capture, predictions in a result."""

    world_from_cam: Float[np.ndarray, "4 4"] | None = None
    """OpenCV axes, float64, not finite where the camera was not found; None if unknown."""
    depth: str | None = None
    """Path of the depth map below the file's folder; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What the file says about the capture as a whole."""

    synthetic: Any = None
    """Settings of the room that was rendered; None for photographs."""
    source: str = ""
    """The dataset's scene that it was converted from; "" if from none."""
    metric: bool = True
    """Whether lengths are metres."""
    ordered: bool = False
    """Whether the frames are listed as they were taken, neighbours in time side by side (a sequence)."""
    caveats: tuple[str, ...] = ()
    """Sentences that must stand beside numbers."""


def read_frames(file: Path) -> tuple[FrameEntry, ...]:
    """The frames in the file's order, without poses and depth.

    Raises:
        UserError: missing or malformed; names that clash or cannot name files, images outside the folder, a K that is
            no pinhole's.
    """
    content = _content(file)
    shared = _lens(content, str(file))
    return _unique([FrameEntry(**_stated(entry, file, shared)) for entry in content["frames"]], file)


def read_posed_frames(file: Path) -> tuple[PosedEntry, ...]:
    """The frames with poses and depth. Ground truth: only ``data.truth`` may call this.

    Raises:
        UserError: as :func:`read_frames`, or a pose that is no 4 x 4 matrix.
    """
    content = _content(file)
    frames, shared = [], _lens(content, str(file))
    for entry in content["frames"]:
        stated = _stated(entry, file, shared)
        pose = _pose(entry.get("cam_to_world"), f"{file}: frame '{stated['name']}'")
        depth = entry.get("depth") or None
        if depth is not None:
            inside(file.parent, depth, f"{file}: frame '{stated['name']}'")
        frames.append(PosedEntry(**stated, world_from_cam=pose, depth=depth))
    return _unique(frames, file)


def read_about(file: Path) -> About:
    """What is said about all frames together; no frame is looked at.

    Raises:
        UserError: missing or malformed.
    """
    content = _content(file)
    caveats = content.get("caveats") or ()
    if not isinstance(caveats, list | tuple) or not all(isinstance(text, str) for text in caveats):
        raise UserError(f'{file}: "caveats" must be a list of sentences')
    if not isinstance(content.get("ordered", False), bool):
        raise UserError(f'{file}: "ordered" must be true (frames in the order of time) or false')
    return About(
        synthetic=content.get("synthetic"),
        source=str(content.get("source", "")),
        metric=content.get("metric") is not False,
        ordered=content.get("ordered", False),
        caveats=tuple(caveats),
    )


def read_shared_intrinsics(file: Path) -> FrameEntry | None:
    """One {"K", "width", "height"} for all images, as an entry without a name; None if the file lists frames.

    Raises:
        UserError: not JSON, or neither of the two.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f'{file}: must hold "frames" or one "K", "width" and "height"')
    return None if "frames" in content else FrameEntry(name="", **_intrinsics(content, str(file)))


def write_frames(file: Path, frames: Iterable[PosedEntry], *, predicted: bool = False, **about: Any) -> None:
    """Write the file, atomically. What a frame does not have is left out.

    ``about`` are further entries on all frames together, those of :class:`About` among them. ``predicted`` says that
    the poses are a result, known up to one similarity, and not a capture's.
    """
    convention = _PREDICTED if predicted else _CAPTURED
    write_json(file, {"convention": convention, **about, "frames": [_written(frame) for frame in frames]})


def alike(name: str) -> str:
    """The same for names that some file system does not tell apart: by case, or by how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()


def is_result(file: Path) -> bool:
    """Whether it holds predicted cameras, which other results may replace; a capture's own are nowhere else.

    Raises:
        UserError: missing, or not JSON.
    """
    content = read_json(file)
    return isinstance(content, dict) and content.get("convention") == _PREDICTED


def refuse_same_names(names: Iterable[str], where: Path) -> None:
    """Frames are told apart by name, on every file system.

    Raises:
        UserError: two are :func:`alike`.
    """
    seen: set[str] = set()
    for name in names:
        if alike(name) in seen:
            raise UserError(f"{where}: two images are named {name!r}; rename one, the name identifies the frame")
        seen.add(alike(name))


def refuse_unwritable_name(name: str, where: Path) -> None:
    """A frame's name goes into files, models and pages of other programs, which take text alone.

    Raises:
        UserError: it is no UTF-8 (from an old archive or camera), or holds control characters or line breaks.
    """
    if not _writable(name):
        raise UserError(f"{where}: the name {name!a} is not UTF-8 or has control characters; rename it")


def _writable(name: str) -> bool:
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


def refuse_impossible_K(K: Float[np.ndarray, "3 3"], size: tuple[int, int], where: str) -> None:
    """K (corner convention) of an image of ``size`` = (width, height): it must be one that a lens can have.

    Raises:
        UserError: a principal point outside the image, a field of view outside 2 to 170 degrees (such a K is
            normalised, or belongs to another size of the image), or pixels more than five times as wide as high.
    """
    fov = max(2 * math.degrees(math.atan2(size[axis] / 2, K[axis, axis])) for axis in (0, 1))
    outside = not all(0 <= K[axis, 2] <= size[axis] for axis in (0, 1))
    square = 1 / _LONGEST_PIXEL <= K[0, 0] / K[1, 1] <= _LONGEST_PIXEL
    if outside or not square or not 2 <= fov <= 170:
        seen = f"its principal point ({K[0, 2]:.6g}, {K[1, 2]:.6g}) lies outside" if outside else f"it sees {fov:.4g}°"
        seen = seen if square else f"its focal lengths are {K[0, 0]:.6g} and {K[1, 1]:.6g}"
        raise UserError(
            f"{where}: K is not one of {size[0]}x{size[1]} pixels ({seen}); give it in pixels of this very image"
        )


def checked_pose(pose: Float[np.ndarray, "4 4"], where: str) -> Float[np.ndarray, "4 4"]:
    """The pose, if it is not finite (a camera that was not found) or a rigid motion.

    Raises:
        UserError: a finite matrix that is no rigid motion within 1e-3: scaled, sheared or mirrored.
    """
    if not np.isfinite(pose).all():
        return pose
    rotation, bottom = pose[:3, :3].clip(-2, 2), pose[3]  # no entry of a rotation is above 1
    off = max(np.abs(rotation @ rotation.T - np.eye(3)).max(), np.abs(bottom - [0, 0, 0, 1]).max())
    if off > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: the pose is no rotation and translation (scaled or mirrored?); restore the file")
    if np.abs(pose[:3, 3]).max() > _FARTHEST:
        raise UserError(f"{where}: the camera is {np.abs(pose[:3, 3]).max():.3g} away; restore the file")
    return pose


def _content(file: Path) -> dict[str, Any]:
    content = read_json(file)
    entries = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _no_frames(file)
    return content


def _no_frames(file: Path) -> UserError:
    return UserError(
        f"{file}: needs a list 'frames' of objects with a 'name' or an 'image'; docs/conventions.md has the format"
    )


def _unique(frames: list[Entry], file: Path) -> tuple[Entry, ...]:
    refuse_same_names((frame.name for frame in frames), file)
    return tuple(frames)


def _stated(entry: dict[str, Any], file: Path, shared: dict[str, Any]) -> dict[str, Any]:
    """The fields of a :class:`FrameEntry`; ``shared`` is the lens that the file states for all frames."""
    image, name = entry.get("image") or None, entry.get("name")
    if image is not None:
        place = inside(file.parent, image, f"{file}: frame {name!r}: image")
        image = place.relative_to(os.path.normpath(file.parent)).as_posix()
        name = place.stem if name is None else name
    if name is None:
        raise _no_frames(file)
    if not isinstance(name, str) or not re.fullmatch(r"[^\s./\\][^/\\]*", name) or not _writable(name):
        raise UserError(f"{file}: frame name {name!a} cannot name files; use letters and digits")
    return {"name": name, "image": image, **_intrinsics({**shared, **entry}, f"{file}: frame '{name}'")}


def _intrinsics(entry: dict[str, Any], where: str) -> dict[str, Any]:
    return {
        "width": _pixels(entry.get("width"), where),
        "height": _pixels(entry.get("height"), where),
        "K": _corner_K(entry["K"], where) if entry.get("K") else None,
        "lens": _lens(entry, where),
    }


def _lens(entry: dict[str, Any], where: str) -> dict[str, Any]:
    unread = [key for key in entry if _UNNAMED.fullmatch(key) and entry[key]]
    if unread:
        raise UserError(
            f"{where}: {unread[0]!r} is not read; write camera_model, and its coefficients as k1, k2, p1, p2"
        )
    return {key: value for key, value in entry.items() if _LENS.fullmatch(key)}


def _pixels(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, int | float) and 0 < value < 1e9 and value == int(value):  # neither NaN nor huge
        return int(value)
    raise UserError(f"{where}: width and height must be whole numbers of pixels, not {value!r}")


def _corner_K(value: Any, where: str) -> Float[np.ndarray, "3 3"]:
    K = _matrix(value, f"{where}: K")
    pinhole = K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0
    if not pinhole or abs(K[0, 1]) > 1e-3 * K[0, 0] or not np.allclose([K[1, 0], *K[2]], [0, 0, 0, 1]):
        raise UserError(f"{where}: K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels; undistort the images")
    return K + _CORNER_FROM_CENTRE


def _pose(value: Any, where: str) -> Float[np.ndarray, "4 4"] | None:
    if value is None:
        return None
    pose = _matrix(value, f"{where}: cam_to_world")
    if pose.shape != (4, 4):
        raise UserError(f"{where}: cam_to_world must be a 4x4 matrix; leave it out where it is unknown")
    return checked_pose(pose, where)


def _matrix(value: Any, what: str) -> np.ndarray:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{what} is not a matrix of numbers; correct it or leave it out") from error


def _written(frame: PosedEntry) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": frame.name, "image": frame.image, "width": frame.width, "height": frame.height}
    if frame.K is not None:
        entry["K"] = (frame.K - _CORNER_FROM_CENTRE).tolist()
    if frame.world_from_cam is not None:
        entry["cam_to_world"] = frame.world_from_cam.tolist()
    if frame.depth is not None:
        entry["depth"] = frame.depth
    return entry
