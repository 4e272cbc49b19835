"""A capture: photographs or the frames of a video, with intrinsics where they are known. Never poses, never depth."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.core.progress import Progress
from reliev3r.data.images import IMAGE_SUFFIXES, image_size, read_image
from reliev3r.data.lenses import Rectification
from reliev3r.data.video import extract_frames, user_cache
from reliev3r.geometry.sampling import evenly_spaced

logger = logging.getLogger(__name__)
T = TypeVar("T")

VIDEO_VIEWS = 24
"""Frames taken from a video when the number of views is not given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One image of a capture."""

    name: str
    """Unique in the capture; names the frame's labels and outputs."""
    file: str
    """Path of the image relative to the capture's root, with forward slashes."""
    path: Path
    width: int
    """Pixels of the upright image, as ``height``."""
    height: int
    K: Float[np.ndarray, "3 3"] | None = None
    """Pinhole intrinsics in pixels of the upright original image, corner convention, float64; None if unknown."""
    rectification: Rectification | None = None
    """Makes the pinhole image, whose size and K these are, of the stored one; None where the stored one is it."""

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """At least two images of one static scene."""

    root: Path
    frames: tuple[Frame, ...]
    synthetic: bool = False
    """Rendered by ``reliev3r.synthetic``: only then may simulated experts look at its truth."""
    ordered: bool = False
    """Whether neighbouring frames are neighbours in time (a video)."""
    K_source: str | None = None
    """Where the intrinsics come from, to be shown beside results; None where they are unknown."""

    @property
    def names(self) -> tuple[str, ...]:
        """The frames' names, in order."""
        return tuple(frame.name for frame in self.frames)

    @property
    def has_K(self) -> bool:
        """Whether the intrinsics of every frame are known."""
        return all(frame.K is not None for frame in self.frames)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The upright (and rectified) RGB image of a frame, read from disk.

        Raises:
            UserError: unreadable.
        """
        frame = self.frames[index]
        stored = read_image(frame.path)
        return stored if frame.rectification is None else frame.rectification.image(stored)


def load_capture(
    path: Path | str,
    *,
    views: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Capture:
    """Find the images of a capture: a folder of images, ``images/`` beside ``cameras.json``, or a video file.

    ``views`` picks that many evenly spaced images, or at most that many frames of a video by motion and sharpness
    (``data.video``; 24 by default); all where there are fewer. K is taken from ``cameras.json``; its poses and depth
    are not read. Video frames are written to ``cache``/frames (by default below the user's cache folder) and reused
    while the video is the same.

    Raises:
        UserError: missing, empty, a single image, unreadable files, names that clash, malformed ``cameras.json``.
    """
    path = Path(path)
    if views is not None and views < 2:
        raise UserError(f"views={views}: a reconstruction needs at least 2 views")
    if path.is_file():
        return _video_capture(path, views or VIDEO_VIEWS, cache, progress)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or video; give a folder of images or a video file")
    if (path / "cameras.json").is_file():
        entries, synthetic = _camera_entries(path / "cameras.json")
        frames = [_frame_from_entry(path, entry) for entry in evenly_spaced(_at_least_two(entries, path), views)]
    else:
        files, synthetic = _image_files(path), False
        frames = [_frame_from_file(path, file) for file in evenly_spaced(_at_least_two(files, path), views)]
    source = "cameras.json" if all(frame.K is not None for frame in frames) else None
    return Capture(root=path, frames=tuple(frames), synthetic=synthetic, K_source=source)


def intrinsics_from_entry(entry: dict[str, Any], where: str) -> Float[np.ndarray, "3 3"]:
    """K of an entry in the format of ``cameras.json`` (integer pixel centres) in our corner convention.

    Raises:
        UserError: not a 3x3 pinhole matrix without skew.
    """
    try:
        K = np.array(entry["K"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: K is missing or not a matrix of numbers") from error
    pinhole = K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0
    if not pinhole or abs(K[0, 1]) > 1e-3 * K[0, 0] or not np.allclose([K[1, 0], *K[2]], [0, 0, 0, 1]):
        raise UserError(f"{where}: K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels; undistort the images")
    K[:2, 2] += 0.5
    return K


def _at_least_two(items: list[T], path: Path) -> list[T]:
    if not items:
        raise UserError(f"{path}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))}); give a folder of images")
    if len(items) == 1:
        raise UserError(f"{path}: only one image; a reconstruction needs at least 2 views of the scene")
    return items


def _camera_entries(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """Checked entries of ``cameras.json`` and whether it says that the capture is synthetic."""
    content = read_json(file)
    entries = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{file}: has no list "frames" of objects; see docs/conventions.md for its format')
    for entry in entries:
        if not isinstance(entry.get("image"), str):
            raise UserError(f'{file}: a frame has no "image"; every frame needs the path of its image')
        image = PurePosixPath(entry["image"])
        name = entry.setdefault("name", image.stem)
        if image.is_absolute() or ".." in image.parts:
            raise UserError(f"{file}: image {image} lies outside the capture; use a path relative to its folder")
        if not isinstance(name, str) or not re.fullmatch(r"[^\s./\\][^/\\\0]*", name):
            raise UserError(f"{file}: frame name {name!r} cannot name files; use letters and digits")
    _reject_duplicates([entry["name"] for entry in entries], file)
    return entries, bool(content.get("synthetic"))


def _frame_from_entry(root: Path, entry: dict[str, Any]) -> Frame:
    path = root / entry["image"]
    width, height = image_size(path)
    stated = (entry.get("width", width), entry.get("height", height))
    if stated != (width, height):
        raise UserError(
            f"{path}: is {width}x{height} when upright but cameras.json says {stated[0]}x{stated[1]}; "
            "correct width, height and K there"
        )
    K = intrinsics_from_entry(entry, f"{root / 'cameras.json'}: frame {entry['name']}") if entry.get("K") else None
    return Frame(name=entry["name"], file=entry["image"], path=path, width=width, height=height, K=K)


def _image_files(root: Path) -> list[Path]:
    """Images of a folder (or of its ``images/``) in natural order of their names; hidden files do not count."""
    folder = root
    if not _is_image_folder(root) and (root / "images").is_dir():
        folder = root / "images"
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural)
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    others = [file.name for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]
    if images and others:
        logger.warning("%s: ignored %d file(s) that are not images: %s", folder, len(others), ", ".join(others[:20]))
    _reject_duplicates([file.stem for file in images], folder)
    return images


def _is_image_folder(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir() if file.is_file())


def _frame_from_file(root: Path, file: Path) -> Frame:
    width, height = image_size(file)
    return Frame(name=file.stem, file=file.relative_to(root).as_posix(), path=file, width=width, height=height)


def natural(path: Path | str) -> list[Any]:
    """Sort key in which frame2 comes before frame10."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", Path(path).name) if p]


def _reject_duplicates(names: list[str], where: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise UserError(f"{where}: two images are named {name!r}; rename one, the name identifies the frame")
        seen.add(name.lower())


def _video_capture(video: Path, views: int, cache: Path | None, progress: Progress | None) -> Capture:
    if video.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{video}: is a single image; give the folder of images")
    folder = (cache or user_cache(video)) / "frames"
    files = extract_frames(video, folder, views, progress=progress)
    return Capture(root=folder, frames=tuple(_frame_from_file(folder, file) for file in files), ordered=True)
