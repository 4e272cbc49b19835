"""What a person painted out of a photograph: no tracks and no depth there (sky, people, the photographer's feet)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.core.types import Tracks
from reliev3r.data.images import image_size, read_grey

MASKS = "masks"
"""The folder of a capture with ``NAME.png`` or, as COLMAP has it, ``FILE.png`` (``a.jpg.png``)."""
_KEPT = 128


def mask_of(root: Path, name: str, file: str) -> Path | None:
    """The mask of the frame ``name``, whose image is ``file``, in a capture's folder; None where there is none."""
    folder = root / MASKS
    places = (folder / f"{name}.png", folder / f"{Path(file).name}.png")
    return next((place for place in places if place.is_file()), None)


def unused_masks(root: Path, frames: Iterable[tuple[str, str]]) -> list[Path]:
    """Files in the folder of masks that are of none of all the capture's frames, each of a name and an image."""
    there = {path for path in (root / MASKS).glob("*") if not path.name.startswith(".")}
    return sorted(there - {mask_of(root, name, file) for name, file in frames}) if there else []


def read_mask(file: Path, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where the image counts: white (128 or more) is kept, black and what is transparent is left out.

    Raises:
        UserError: unreadable, not of ``size`` = (width, height), that of the upright image, or with shades but none
            of them white: a map of labels, for instance of 0 and 1.
    """
    if (found := image_size(file)) != size:
        raise UserError(
            f"{file}: is {found[0]}x{found[1]}, but its upright image is {size[0]}x{size[1]}; mask that one"
        )
    values = read_grey(file)
    if 0 < values.max() < _KEPT:
        raise UserError(f"{file}: its values end at {values.max()}; write 255 (white) where the image counts, else 0")
    return values >= _KEPT


def kept_at(kept: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """A mask on a ``grid`` = (height, width) that covers the image: kept where nothing of the pixel is left out."""
    mask = Image.fromarray(kept.astype(np.uint8) * 255)
    return np.asarray(mask.resize(grid[::-1], Image.Resampling.BOX)) == 255


def without_masked(tracks: Tracks, masks: Iterable[Bool[np.ndarray, "h w"] | None]) -> Tracks:
    """Tracks [v, m] in pixels of the images, with weight 0 where the view's mask (None: there is none) says so."""
    weight = tracks.weight.clone()
    for view, mask in enumerate(masks):
        if mask is None:
            continue
        height, width = mask.shape
        column = tracks.uv[view, :, 0].floor().long().clamp(0, width - 1)
        row = tracks.uv[view, :, 1].floor().long().clamp(0, height - 1)
        weight[view] = torch.where(torch.from_numpy(mask)[row, column], weight[view], 0.0)
    return dataclasses.replace(tracks, weight=weight)
