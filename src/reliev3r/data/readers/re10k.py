"""RealEstate10K: clips of videos with cameras by SLAM and bundle adjustment.

``CLIP.txt``: the video's address, then a line for each frame: time in microseconds, fx fy cx cy as shares of the
image's width and height (pixel corners), two zeros, and the 3 x 4 camera-from-world pose in OpenCV axes, row by row.
Frames are not part of the dataset. They are looked for where the usual downloaders put them, named by their times:
``CLIP/TIME.png`` (or .jpg) beside ``CLIP.txt``, or ``frames/SPLIT/CLIP/`` beside the folder ``SPLIT`` that has it.
Format: https://google.github.io/realestate10k/download.html.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.data.image_folder import natural
from reliev3r.data.images import image_size
from reliev3r.data.lenses import pinhole
from reliev3r.data.readers._layout import text_rows
from reliev3r.data.readers._scene import Shot, checked_pose, matrix, scene_of
from reliev3r.data.truth import NO_DEPTH, Scene

logger = logging.getLogger(__name__)

CAVEATS = (
    "the true poses are RealEstate10K's (SLAM and bundle adjustment), the scale of each clip is arbitrary",
    NO_DEPTH,
)
_SPLITS = ("train", "test")
_SUFFIXES = (".png", ".jpg")
_COLUMNS = 19
_LOOKS = 8
"""Text files of a folder that are looked into: a split has 70 000."""
_ASPECT = 0.02


def recognises(root: Path) -> bool:
    """Whether one of the first text files in the folder, ``train`` or ``test`` is a clip, or their chunks lie there."""
    return any(_is_clip(file) for folder in _folders(root) for file in islice(folder.glob("*.txt"), _LOOKS)) or (
        _chunk(root) is not None
    )


def scenes(root: Path) -> list[str]:
    """Clips whose frames are there, with their split before them.

    Raises:
        UserError: photographs are packed in chunks.
    """
    found = [file for folder in _folders(root) for file in folder.glob("*.txt") if _frames_of(file) is not None]
    chunk = _chunk(root)
    if not found and chunk is not None:
        raise UserError(
            f"{chunk}: pixelSplat's chunks keep the photographs inside; unpack them to CLIP.txt and CLIP/TIME.jpg "
            "(docs/datasets.md has the lines)"
        )
    return [file.relative_to(root).with_suffix("").as_posix() for file in sorted(found, key=natural)]


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One clip; see :class:`reliev3r.data.readers.Reader`. Frames without an image are left out and counted."""
    file = root / f"{name}.txt"
    folder = _frames_of(file)
    if folder is None or not _is_clip(file):
        raise UserError(f"{file}: not a clip with frames; `reliev3r datasets {root}` lists those there are")
    images = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES}
    rows = text_rows(file, skip=1)
    for index, row in enumerate(rows):
        if len(row) != _COLUMNS:
            raise UserError(f"{file}: frame {index + 1} has {len(row)} numbers, not {_COLUMNS}; restore the file")
    there = [(index, row) for index, row in enumerate(rows) if row[0] in images]
    if not there:
        raise UserError(f"{folder}: has no image of the clip's {len(rows)} frames, as {rows[0][0]}.png")
    if len(there) < len(rows):
        logger.warning("%s: left out %d of %d frames without an image", folder, len(rows) - len(there), len(rows))
    size = image_size(images[there[0][1][0]], upright=False)
    shots = [_shot(images[row[0]], size, row, f"{file}: frame {index + 1}") for index, row in there]
    return scene_of(
        name, folder, shots, views=views, metric=False, ordered=True, K_source="RealEstate10K", caveats=CAVEATS
    )


def _shot(image: Path, size: tuple[int, int], row: list[str], where: str) -> Shot:
    try:
        fx, fy, cx, cy, *zeros = (float(word) for word in row[1:7])
    except ValueError as error:
        raise UserError(f"{where} has words that are no numbers; restore the file from the dataset") from error
    if any(zeros):
        raise UserError(f"{where} has {row[5]} {row[6]} where RealEstate10K has two zeros; restore the file")
    width, height = size
    if not (fx > 0 and fy > 0) or abs(fx * width / (fy * height) - 1) > _ASPECT:
        raise UserError(
            f"{image}: is {width}x{height}, but the focal lengths ({row[1]} of its width, {row[2]} of its height) are "
            "of square pixels of another aspect ratio: cropped or stretched; make the frames anew"
        )
    return Shot(
        name=image.stem,
        image=image,
        K=pinhole(fx * width, fy * height, cx * width, cy * height),
        world_from_cam=_inverse(matrix(np.array(row[7:]).reshape(3, 4), where), where),
        stored_size=size,
    )


def _inverse(cam_from_world: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(cam_from_world).all():
        return np.full((4, 4), np.nan)
    return np.linalg.inv(checked_pose(cam_from_world, where))


def _folders(root: Path) -> Iterator[Path]:
    """Where clips may lie."""
    yield from (folder for folder in (root, *(root / split for split in _SPLITS)) if folder.is_dir())


def _frames_of(file: Path) -> Path | None:
    """The folder of a clip's frames."""
    split = file.absolute().parent
    beside, apart = file.with_suffix(""), split.parent / "frames" / split.name / file.stem
    return next((folder for folder in (beside, apart) if folder.is_dir()), None)


def _chunk(root: Path) -> Path | None:
    """One of the files that pixelSplat made of the dataset (MVSplat and others share them)."""
    indexed = (folder for folder in _folders(root) if (folder / "index.json").is_file())
    return next((file for folder in indexed for file in folder.glob("*.torch")), None)


def _is_clip(file: Path) -> bool:
    """Whether a text file begins as a clip's does: an address, then the numbers of a frame."""
    try:
        with open(file, encoding="utf8") as stream:
            address, first = stream.readline(1000), stream.readline(1000)
    except (OSError, UnicodeDecodeError):
        return False
    return address.startswith("http") and len(first.split()) == _COLUMNS
