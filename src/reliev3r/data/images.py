"""Reading any photograph as 8-bit RGB: upright, or as it is stored."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.core.files import refuse_no_file

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""What phones of Apple and Samsung write; Pillow reads it with the package pillow-heif."""
IMAGE_SUFFIXES = HEIF_SUFFIXES | {
    ".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".avif", ".jp2", ".bmp", ".ppm", ".pgm", ".gif"
}  # fmt: skip
"""What is taken for an image; a file of another kind among images is ignored, a broken one of these is an error."""

MOST_PIXELS = 250_000_000
"""Of one image: the largest phone sensors have 200 megapixels, and a small file can claim any number."""

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769  # EXIF tags
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What makes stored pixels upright, by the tag; values from 5 on exchange width and height."""
_OF_EQUAL_PICTURES = {"GIF", "PNG", "WEBP", "AVIF", "TIFF"}
_AS_STORED = {**_UPRIGHT, 6: _UPRIGHT[8], 8: _UPRIGHT[6]}
_PILLOW_ERRORS = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, OverflowError, ZeroDivisionError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What hostile and damaged files make it raise."""
_limit = threading.Lock()  # Pillow's own limit is one for the process


def image_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """(width, height) in pixels of the upright image, or of its pixels as stored, from its header alone.

    Raises:
        UserError: not an image, or one that is too large.
    """
    with opened_image(path) as image:
        width, height = image.size
        exchanged = _orientation(image) >= 5 and upright != _comes_upright(image)
        return (height, width) if exchanged else (width, height)


def is_turned(path: Path) -> bool:
    """Whether the stored pixels are not upright (turned or mirrored): programs that ignore EXIF see another image.

    Raises:
        UserError: as :func:`image_size`.
    """
    with opened_image(path) as image:
        return _orientation(image) != 1


def affordable(path: Path) -> Path:
    """The path, of an image file that others decode; what its header claims is judged before memory is taken for it.

    Raises:
        UserError: as :func:`image_size`.
    """
    with opened_image(path):
        return path


def image_format(path: Path) -> tuple[str, str]:
    """(format, mode) as Pillow names them, whatever the file's suffix says.

    Raises:
        UserError: as :func:`image_size`.
    """
    with opened_image(path) as image:
        return str(image.format), image.mode


def exif_tags(path: Path) -> dict[int, Any]:
    """The photograph's EXIF tags (camera, exposure, lens) by number; none where they are damaged.

    Raises:
        UserError: as :func:`image_size`.
    """
    with opened_image(path) as image:
        try:
            exif = image.getexif()
            return {**exif, **exif.get_ifd(_EXIF_IFD)}
        except _PILLOW_ERRORS:
            return {}


def read_image(path: Path, *, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """The image as RGB: 16-bit scaled, grey repeated, transparency over white.

    ``upright`` applies EXIF's orientation; a value that the standard does not know is none. Without, the pixels are
    as stored, which is what COLMAP, OpenCV's and most datasets' cameras belong to.

    Raises:
        UserError: not an image, truncated, or with pixels that have no 8-bit meaning (floating point).
    """
    return _pixels(path, upright, _to_rgb)


def read_grey(path: Path) -> UInt8[np.ndarray, "h w"]:
    """The upright image in shades of grey, as :func:`read_image` reads it; what is transparent is black.

    Raises:
        UserError: as :func:`read_image`.
    """
    return _pixels(path, True, _to_grey)


def picture_count(path: Path) -> int:
    """Of how many pictures the first is used: of an animation, or of the pages of a TIFF. Other formats name the main
    one of theirs, which counts alone.

    Raises:
        UserError: as :func:`image_size`.
    """
    with opened_image(path) as image:
        try:
            return int(getattr(image, "n_frames", 1)) if image.format in _OF_EQUAL_PICTURES else 1
        except _PILLOW_ERRORS:  # the first may be whole
            return 1


def _pixels(path: Path, upright: bool, converted: Callable[[Image.Image, Path], Image.Image]) -> np.ndarray:
    with opened_image(path) as image:
        orientation, comes_upright = _orientation(image), _comes_upright(image)
        pixels = converted(image, path)
        if orientation != 1 and upright != comes_upright:
            pixels = pixels.transpose((_UPRIGHT if upright else _AS_STORED)[orientation])
        return np.array(pixels)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation of an image that was not decoded yet, 1 to 8; whatever else the tag holds means upright."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _PILLOW_ERRORS:  # the tags are rubbish, the picture need not be
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _comes_upright(image: Image.Image) -> bool:
    """Whether Pillow applies the orientation itself; of all formats it does so for TIFF."""
    return image.format == "TIFF"


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    return _on(image, path, "white").convert("RGB")


def _to_grey(image: Image.Image, path: Path) -> Image.Image:
    return _on(image, path, "black").convert("L")


def _on(image: Image.Image, path: Path, ground: str) -> Image.Image:
    """In 8 bits, and what is transparent in the colour of the ``ground``."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{path}: more than 16 bits a channel; convert it to 8-bit PNG or JPEG")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise UserError(f"{path}: floating-point pixels; convert it to 8-bit PNG or JPEG")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
    return image


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises while it is read becomes one line for the user."""
    refuse_no_file(path)
    try:
        with _open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(
                    f"{path}: {image.width}x{image.height} are more than {MOST_PIXELS // 10**6} megapixels; shrink it"
                )
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except _PILLOW_ERRORS as error:
        raise UserError(f"{path}: truncated or not an image ({error}); replace or remove it") from error


def _open(path: Path) -> Image.Image:
    """By its header, whatever size it claims: ``MOST_PIXELS`` judges that."""
    if path.suffix.lower() in HEIF_SUFFIXES:
        _register_heif(path)
    with _limit:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _register_heif(path: Path) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        remedy = "pip install 'reliev3r[heif]', or convert it to JPEG"
        raise UserError(f"{path}: HEIC images are read by an optional package: {remedy}") from error
    register_heif_opener()
