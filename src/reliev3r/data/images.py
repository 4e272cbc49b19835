"""Reading any photograph as upright 8-bit RGB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from reliev3r.core.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".gif"})
"""What is taken for an image; a file of another kind among images is ignored, a broken one of these is an error."""

_ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 exchange width and height
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of the upright image, from its header alone.

    Raises:
        UserError: not an image.
    """
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if is_transposed(image) else (width, height)


def is_transposed(image: Image.Image) -> bool:
    """Whether EXIF says that making the stored pixels upright exchanges width and height."""
    return image.getexif().get(_ORIENTATION, 1) >= 5


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The image as upright RGB: EXIF rotation applied, 16-bit scaled, grey repeated, transparency over white.

    Raises:
        UserError: not an image, truncated, or with pixels that have no 8-bit meaning (floating point).
    """
    with _opened(path) as image:
        return np.array(_to_rgb(ImageOps.exif_transpose(image), path))


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{path}: more than 16 bits a channel; convert it to 8-bit PNG or JPEG")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UserError(f"{path}: floating-point pixels; convert it to 8-bit PNG or JPEG")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises while it is read becomes one line for the user."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except _PILLOW_ERRORS as error:
        raise UserError(f"{path}: truncated or not an image ({error}); replace or remove it") from error
