"""Which files of a folder are the images of a capture, and a word about whatever else somebody may think is in."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reliev3r.core.cameras_json import refuse_same_names, refuse_unwritable_name
from reliev3r.core.errors import UserError
from reliev3r.data.images import IMAGE_SUFFIXES, picture_count
from reliev3r.data.masks import MASKS, unused_masks

logger = logging.getLogger(__name__)

_LONGEST_NUMBER = 1000  # digits; Python refuses to read longer ones
_OF_ONE = {".jpg", ".jpeg", ".jfif", ".bmp", ".ppm", ".pgm"}  # such files are not opened to count their pictures


def image_files(root: Path) -> list[Path]:
    """Images of a folder, or of its ``images/``, in natural order of their names; hidden files do not count.

    Raises:
        UserError: names that are :func:`~reliev3r.core.cameras_json.alike` or cannot be written, or as
            :func:`image_folder` says.
    """
    folder = image_folder(root)
    files = visible_files(folder)
    images = [file for file in files if is_image(file)]
    others = [file.name for file in files if not is_image(file)]
    if images and others:
        logger.warning("%s: ignored %d file(s) that are not images: %s", folder, len(others), ", ".join(others[:20]))
    if images:
        _tell_left_out(folder)
    for file in images:
        refuse_unwritable_name(file.name, folder)
    refuse_same_names([file.stem for file in images], folder)
    return images


def _tell_left_out(folder: Path) -> None:
    """Images that somebody may think are in: behind links that lead nowhere, and in folders below."""
    others = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_file()), key=natural
    )
    nothing = [path for path in others if is_image(path)]
    if nothing:
        logger.warning("%s: ignored %d image(s) that are no files (links to nothing, folders, pipes): %s", folder,
                       len(nothing), some_names(nothing))  # fmt: skip
    folders = (path for path in others if path.is_dir() and path.name not in (MASKS, "depth"))
    below = [path for path in folders if _holds_several(path)]
    if below:
        logger.warning("%s: the images in its folder(s) %s are not taken; a capture is the images of one folder",
                       folder, some_names(below))  # fmt: skip


def _holds_several(folder: Path) -> bool:
    """More than the one picture that a run's folder holds."""
    return sum(is_image(file) and file.is_file() for file in folder.iterdir()) > 1


def image_folder(root: Path) -> Path:
    """Where the images of a capture's folder are: in its ``images/`` where there are any, else in itself.

    Raises:
        UserError: both hold images, and most are not in ``images/``: which are meant?
    """
    inner = root / "images"
    beside, below = ([file for file in visible_files(folder) if is_image(file)] for folder in (root, inner))
    if not below:
        return root
    if len(beside) > len(below):
        raise UserError(f"{root}: holds {len(beside)} images, and {len(below)} in images/; move one of the two away")
    if beside:
        logger.warning("%s: ignored %d image(s) beside images/: %s", root, len(beside), some_names(beside))
    return inner


def is_image(file: Path) -> bool:
    """Whether a file is taken for an image, by its name; hidden ones are not (macOS keeps notes in ._NAME.jpg)."""
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def visible_files(folder: Path) -> list[Path]:
    """Its files in natural order, without hidden ones; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file()), key=natural)


def some_names(files: Sequence[Path]) -> str:
    """Of the first five."""
    return ", ".join(file.name for file in files[:5]) + (", ..." if len(files) > 5 else "")


def tell_unused_masks(path: Path, frames: Iterable[tuple[str, str]]) -> None:
    """Masks in the capture's folder that are of none of all its frames, each of a name and an image."""
    if unused := unused_masks(path, frames):
        logger.warning("%s: %d file(s) are the mask of no image and not used: %s; call them NAME.png", path / MASKS,
                       len(unused), some_names(unused))  # fmt: skip


def tell_several_pictures(files: Sequence[Path]) -> None:
    """Animations and documents of several pages, where the first picture may not be the one that is meant."""
    several = [file for file in files if file.suffix.lower() not in _OF_ONE and picture_count(file) > 1]
    if several:
        logger.warning("%s: %d image file(s) hold several pictures, of which the first is used: %s", several[0].parent,
                       len(several), some_names(several))  # fmt: skip


def natural(path: Path | str) -> list[Any]:
    """Sort key in which frame2 comes before frame10."""
    parts = filter(None, re.split(r"(\d+)", Path(path).name))
    return [(0, int(part), "") if part.isdecimal() and len(part) < _LONGEST_NUMBER else (1, 0, part) for part in parts]
