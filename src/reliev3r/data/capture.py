"""A capture: photographs or the frames of a video, with intrinsics where they are known. Never poses, never depth."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, UInt8

from reliev3r.core.cameras_json import (
    CAMERAS_JSON,
    FrameEntry,
    read_about,
    read_frames,
    refuse_impossible_K,
    refuse_unwritable_name,
)
from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.data.image_folder import image_files, some_names, tell_several_pictures, tell_unused_masks, visible_files
from reliev3r.data.images import IMAGE_SUFFIXES, image_size, read_image
from reliev3r.data.lenses import Rectification, rectification_of_entry
from reliev3r.data.masks import mask_of, read_mask
from reliev3r.data.video import FRAMES, extract_frames, user_cache
from reliev3r.geometry.sampling import evenly_spaced

logger = logging.getLogger(__name__)
T = TypeVar("T")

_NARROWEST = 40  # long over short side; nothing of what is narrower would be left at a network's size
_OFF_CENTRE = 0.24  # of the image: K of half the size has the centre at a quarter
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
    as_stored: bool = False
    """Whether size, K and lens belong to the pixels as stored, which EXIF would turn: so it is in datasets, whose
    cameras were solved by programs that ignore EXIF."""

    mask: Path | None = None
    """What to leave out of it (``data.masks``), in pixels of the upright image before rectification; None: nothing."""

    def __post_init__(self) -> None:
        """Shape and K are checked here, whatever they come from.

        Raises:
            UserError: the image is a line, or its K is impossible for its size.
        """
        if max(self.width, self.height) > _NARROWEST * min(self.width, self.height):
            raise UserError(f"{self.path}: {self.width}x{self.height} is too narrow for a photograph; leave it out")
        if self.K is not None:
            refuse_impossible_K(self.K, (self.width, self.height), str(self.path))

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
    def masks(self) -> Iterator[Bool[np.ndarray, "h w"] | None]:
        """:meth:`kept` of one frame after the other."""
        return map(self.kept, range(len(self.frames)))

    @property
    def has_K(self) -> bool:
        """Whether the intrinsics of every frame are known."""
        return all(frame.K is not None for frame in self.frames)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The RGB image of a frame that its size and K belong to, read from disk: upright, unless ``as_stored``, and
        rectified.

        Raises:
            UserError: unreadable.
        """
        frame = self.frames[index]
        stored = read_image(frame.path, upright=not frame.as_stored)
        return stored if frame.rectification is None else frame.rectification.image(stored)

    def kept(self, index: int) -> Bool[np.ndarray, "h w"] | None:
        """Which pixels of :meth:`image` count: those that a frame's mask leaves and that its lens saw; None: all.

        Raises:
            UserError: the mask is unreadable, or of another size than the upright image.
        """
        frame = self.frames[index]
        kept = None if frame.mask is None else read_mask(frame.mask, (frame.width, frame.height))
        if frame.rectification is None:
            return kept
        kept = np.ones((frame.height, frame.width), bool) if kept is None else kept
        kept = frame.rectification.values(kept.astype(np.uint8)) > 0
        return None if kept.all() else kept


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
    refuse_unwritable_name(str(path), path.parent)
    if path.is_file():
        return _video_capture(path, views or VIDEO_VIEWS, cache, progress)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or video; give a folder of images or a video file")
    if os.path.lexists(path / CAMERAS_JSON):  # a link to nothing, too: whoever has one has cameras
        return _listed_capture(path, views)
    files = _at_least_two(image_files(path), path)
    tell_unused_masks(path, ((file.stem, file.name) for file in files))
    files = evenly_spaced(files, views)
    tell_several_pictures(files)
    return Capture(root=path, frames=tuple(_frame_from_file(path, file) for file in files))


def _listed_capture(path: Path, views: int | None) -> Capture:
    """Of a folder with ``cameras.json``, which says whether its frames have an order in time."""
    about, entries = read_about(path / CAMERAS_JSON), _entries_with_images(path / CAMERAS_JSON)
    tell_unused_masks(path, ((entry.name, str(entry.image)) for entry in entries))
    frames = tuple(_frame_from_entry(path, entry) for entry in evenly_spaced(_at_least_two(entries, path), views))
    tell_several_pictures([frame.path for frame in frames])
    warn_if_off_centre(frames, CAMERAS_JSON)
    capture = Capture(root=path, frames=frames, synthetic=bool(about.synthetic), ordered=about.ordered)
    tell_rectified(capture.frames, str(path / CAMERAS_JSON))
    return dataclasses.replace(capture, K_source=CAMERAS_JSON if capture.has_K else None)


def _at_least_two(items: list[T], path: Path) -> list[T]:
    if not items:
        there = visible_files(path)
        found = f"but {some_names(there)}; " if there else ""
        raise UserError(
            f"{path}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))}), {found}give a folder of images"
        )
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
    size = image_size(root / file)
    stated = (entry.width or size[0], entry.height or size[1])
    resize = resized(stated, size, f"{root / file}: is {size[0]}x{size[1]} when upright but {CAMERAS_JSON} says")
    K = None if entry.K is None else resize @ entry.K
    if K is not None and entry.width is None:
        _refuse_K_of_stored_pixels(K, size, root / file)
    rectification = rectification_of_entry(entry, K, size, f"{root / CAMERAS_JSON}: frame '{entry.name}'")
    return Frame(name=entry.name, file=file, path=root / file, width=size[0], height=size[1], K=K,
                 rectification=rectification, mask=mask_of(root, entry.name, file))  # fmt: skip


def _refuse_K_of_stored_pixels(K: Float[np.ndarray, "3 3"], size: tuple[int, int], file: Path) -> None:
    """Where nobody says which size K is of: a centre that is the middle of the image only as it is stored.

    Raises:
        UserError: K is not of the upright image, which is of ``size``.
    """
    stored = image_size(file, upright=False)
    if stored == size:
        return
    off, off_stored = (max(abs(K[axis, 2] / of[axis] - 0.5) for axis in (0, 1)) for of in (size, stored))
    if off_stored < 0.5 * off and off > 0.05:
        raise UserError(
            f"{file}: EXIF turns it to {size[0]}x{size[1]} pixels, but its K is of the stored {stored[0]}x{stored[1]}; "
            "give width, height and K of the upright image"
        )


def resized(stated: tuple[int, int], size: tuple[int, int], where: str) -> Float[np.ndarray, "3 3"]:
    """What brings K of images of ``stated`` = (width, height) to the same images at another ``size``.

    Raises:
        UserError: another aspect ratio; ``where`` names the image with its size, and the file.
    """
    scale = (size[0] / stated[0], size[1] / stated[1])
    if abs(scale[0] / scale[1] - 1) > 0.01:
        raise UserError(f"{where} {stated[0]}x{stated[1]} (cropped or turned?); give width, height and K of this image")
    return np.diag([*scale, 1.0])


def warn_if_off_centre(frames: Sequence[Frame], source: str) -> None:
    """A principal point far from the image's centre is rare, and what a K of another size of the image shows."""
    off = [
        frame for frame in frames
        if frame.K is not None
        and max(abs(frame.K[0, 2] / frame.width - 0.5), abs(frame.K[1, 2] / frame.height - 0.5)) > _OFF_CENTRE
    ]  # fmt: skip
    if off:
        K, frame = off[0].K, off[0]
        assert K is not None
        logger.warning(
            "%s: the principal point of %s (%.0f, %.0f) is far from the centre of its %dx%d pixels; does K belong to "
            "another size of the image?", source, frame.name, K[0, 2], K[1, 2], frame.width, frame.height,
        )  # fmt: skip


def tell_rectified(frames: Sequence[Frame], source: str) -> None:
    """Say in one line that images are not used as they are."""
    lenses = [frame.rectification.lens for frame in frames if frame.rectification is not None]
    if lenses:
        models = " and ".join(sorted({str(lens["model"]) for lens in lenses}))
        logger.info("%s: %d of %d images are rectified from a lens of model %s; K, labels and exports are those of the "
                    "rectified pixels", source, len(lenses), len(frames), models)  # fmt: skip


def _frame_from_file(root: Path, file: Path) -> Frame:
    width, height = image_size(file)
    relative = file.relative_to(root).as_posix()
    return Frame(name=file.stem, file=relative, path=file, width=width, height=height,
                 mask=mask_of(root, file.stem, relative))  # fmt: skip


def _video_capture(video: Path, views: int, cache: Path | None, progress: Progress | None) -> Capture:
    if video.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{video}: is a single image; give the folder of images")
    folder = (cache or user_cache(video)) / FRAMES
    files = extract_frames(video, folder, views, progress=progress)
    return Capture(root=folder, frames=tuple(_frame_from_file(folder, file) for file in files), ordered=True)
