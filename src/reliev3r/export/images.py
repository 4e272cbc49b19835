"""Photographs beside cameras: pixels that every program reads as the cameras mean them, EXIF or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path
from reliev3r.data.capture import Capture, Frame, load_capture
from reliev3r.data.images import image_format, is_turned
from reliev3r.data.video import frames_at

IMAGES = "images"
"""The folder, beside the files that name what is in it."""
_READ_BY_ALL = {("JPEG", "RGB"), ("MPO", "RGB"), ("PNG", "RGB")}
"""Format and mode of Pillow: what COLMAP, nerfstudio and gsplat read as the same 8-bit picture. Not grey ones: gsplat
cuts every picture to three of its last axis, and scales K by what is left of its width."""
_LOSSY = {"JPEG", "MPO", "HEIF", "AVIF"}
_JPEG = {"quality": 95, "subsampling": 0}


def write_images(
    capture: Capture | Path | str, names: Sequence[str], folder: Path, *, copy: bool = False
) -> tuple[str, ...]:
    """Put the image of each frame into ``folder``/images and return where, relative to ``folder``.

    The file is the original, as a hard link or, on another disk, a copy, where its stored pixels are those that the
    frame's cameras belong to. Where EXIF turns them, a lens was rectified, or the format is one that others do not
    read, the pixels are written anew: JPEG from JPEG and HEIC, else PNG. Files are named by their frames.

    Args:
        capture: an open one, or its path. Of a video the frames are decoded once more, by their numbers.
        names: of its frames.
        folder: where the files that name the images lie.
        copy: the originals' bytes instead of links to them, so that the folder stands alone.

    Raises:
        UserError: the capture has no such frames, an image is unreadable, or would be replaced by its upright copy.
    """
    if not isinstance(capture, Capture):
        if Path(capture).is_file():
            return _write_video_frames(Path(capture), names, folder)
        capture = load_capture(capture)
    index = {frame.name: number for number, frame in enumerate(capture.frames)}
    missing = [name for name in names if name not in index]
    if missing:
        raise UserError(f"{capture.root}: has no frame {missing[0]}; give the capture that was reconstructed")
    return tuple(_write_frame(capture, index[name], folder, copy=copy) for name in names)


def _write_frame(capture: Capture, index: int, folder: Path, *, copy: bool) -> str:
    frame = capture.frames[index]
    kind = image_format(frame.path)
    plain = kind in _READ_BY_ALL and frame.rectification is None and not is_turned(frame.path)
    jpeg = kind[0] in _LOSSY
    suffix = frame.path.suffix if plain else ".jpg" if jpeg else ".png"
    target = folder / IMAGES / f"{frame.name}{suffix}"
    if target.exists() and os.path.samefile(target, frame.path):
        if plain and not (copy and target.stat().st_nlink > 1 and not target.is_symlink()):
            return f"{IMAGES}/{target.name}"
        if target.resolve() == frame.path.resolve() or target.stat().st_nlink == 1:  # else a link, which is replaced
            raise UserError(f"{target}: is the photograph itself, which must not be replaced; choose another folder")
    if plain:
        _link(frame, target, copy=copy)
    else:
        _save(capture.image(index), target, jpeg=jpeg)
    return f"{IMAGES}/{target.name}"


def _link(frame: Frame, target: Path, *, copy: bool) -> None:
    """The link is the original: its mode, too, is its owner's and stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        _copy(frame.path, target)
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(frame.path.resolve(), temporary)
        os.replace(temporary, target)
    except OSError:  # another disk, or a file system without links
        _copy(frame.path, target)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _save(pixels: np.ndarray, target: Path, *, jpeg: bool) -> None:
    with atomic_path(target) as temporary:
        Image.fromarray(pixels).save(temporary, **(_JPEG if jpeg else {}))  # type: ignore[arg-type]


def _write_video_frames(video: Path, names: Sequence[str], folder: Path) -> tuple[str, ...]:
    if not all(name.isdecimal() for name in names):
        raise UserError(f"{video}: frames of a video are named by their numbers; give the capture of {names[0]}")
    numbers = {int(name): name for name in names}
    found = set()
    for number, pixels in frames_at(video, numbers):
        _save(pixels, folder / IMAGES / f"{numbers[number]}.jpg", jpeg=True)
        found.add(numbers[number])
    if len(found) < len(names):
        raise UserError(f"{video}: ends before frame {max(set(names) - found)}; give the video that was reconstructed")
    return tuple(f"{IMAGES}/{name}.jpg" for name in names)
