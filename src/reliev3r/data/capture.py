"""A capture: photographs or the frames of a video, with intrinsics where they are known. Never poses, never depth."""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.cameras_json import CAMERAS_JSON, FrameEntry, read_about, read_frames, refuse_same_names
from reliev3r.core.errors import UserError
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
    """Whether neighbouring frames are neighbours in time: a video, a sequence, a ``cameras.json`` that says so."""
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
    if (path / CAMERAS_JSON).is_file():
        return _listed_capture(path, views)
    files = evenly_spaced(_at_least_two(_image_files(path), path), views)
    return Capture(root=path, frames=tuple(_frame_from_file(path, file) for file in files))


def _listed_capture(path: Path, views: int | None) -> Capture:
    """Of a folder with ``cameras.json``, which says whether its frames have an order in time."""
    about, entries = read_about(path / CAMERAS_JSON), _entries_with_images(path / CAMERAS_JSON)
    frames = tuple(_frame_from_entry(path, entry) for entry in evenly_spaced(_at_least_two(entries, path), views))
    capture = Capture(root=path, frames=frames, synthetic=bool(about.synthetic), ordered=about.ordered)
    return dataclasses.replace(capture, K_source=CAMERAS_JSON if capture.has_K else None)


def _at_least_two(items: list[T], path: Path) -> list[T]:
    if not items:
        raise UserError(f"{path}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))}); give a folder of images")
    if len(items) == 1:
        raise UserError(f"{path}: only one image; a reconstruction needs at least 2 views of the scene")
    return items


def _entries_with_images(file: Path) -> list[FrameEntry]:
    entries = list(read_frames(file))
    for entry in entries:
        if entry.image is None:
            raise UserError(f"{file}: frame '{entry.name}' has no \"image\"; every frame needs the path of its image")
    return entries


def _frame_from_entry(root: Path, entry: FrameEntry) -> Frame:
    file = str(entry.image)
    width, height = image_size(root / file)
    stated = (entry.width or width, entry.height or height)
    if stated != (width, height):
        raise UserError(
            f"{root / file}: is {width}x{height} when upright but {CAMERAS_JSON} says {stated[0]}x{stated[1]}; "
            "correct width, height and K there"
        )
    return Frame(name=entry.name, file=file, path=root / file, width=width, height=height, K=entry.K)


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
    refuse_same_names([file.stem for file in images], folder)
    return images


def _is_image_folder(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir() if file.is_file())


def _frame_from_file(root: Path, file: Path) -> Frame:
    width, height = image_size(file)
    return Frame(name=file.stem, file=file.relative_to(root).as_posix(), path=file, width=width, height=height)


def natural(path: Path | str) -> list[Any]:
    """Sort key in which frame2 comes before frame10."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", Path(path).name) if p]


def _video_capture(video: Path, views: int, cache: Path | None, progress: Progress | None) -> Capture:
    if video.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{video}: is a single image; give the folder of images")
    folder = (cache or user_cache(video)) / "frames"
    files = extract_frames(video, folder, views, progress=progress)
    return Capture(root=folder, frames=tuple(_frame_from_file(folder, file) for file in files), ordered=True)
