"""Depth maps as datasets store them. Each reader returns what the file holds; ``known`` makes it ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt16

from reliev3r.core import arrays
from reliev3r.core.errors import UserError
from reliev3r.data.images import affordable
from reliev3r.data.readers._layout import existing

SKY = 1000.0
"""Metres: renderers of outdoor scenes (TartanAir) put the sky at such distances."""


def known(
    depth: Shaped[np.ndarray, "h w"], file: Path, *, size: tuple[int, int] | None = None, below: float = np.inf
) -> Float[np.ndarray, "h w"]:
    """Depth as float32, with 0 for what is not finite, not positive, or at ``below`` and more (sky).

    Raises:
        UserError: the map is not ``size`` = (width, height).
    """
    if size is not None and (depth.shape[1], depth.shape[0]) != tuple(size):
        raise UserError(
            f"{file}: is {depth.shape[1]}x{depth.shape[0]}, but the image is {size[0]}x{size[1]}; "
            "restore the dataset's own files"
        )
    depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0) & (depth < below), depth, np.float32(0))


def z_of_range(distance: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "h w"]:
    """z-depth of lengths along the rays through the pixels' centres (``K`` in corner convention)."""
    height, width = distance.shape
    x = (np.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (np.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
    return (distance / np.sqrt(x[None] ** 2 + y[:, None] ** 2 + 1)).astype(np.float32)


def read_png16(file: Path) -> UInt16[np.ndarray, "h w"]:
    """A 16-bit grey PNG.

    Raises:
        UserError: missing, damaged, or of another type.
    """
    stored = cv2.imread(str(affordable(existing(file))), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 2 or stored.dtype != np.uint16:
        raise UserError(f"{file}: not a readable 16-bit grey PNG; restore it from the dataset")
    return stored


def read_packed_png(file: Path) -> Float[np.ndarray, "h w"]:
    """A float32 map whose four bytes (little endian) are the blue, green, red and alpha of a PNG (TartanAir V2).

    Raises:
        UserError: missing, damaged, or of another type.
    """
    stored = cv2.imread(str(affordable(existing(file))), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[2] != 4:
        raise UserError(f"{file}: not a readable 8-bit RGBA PNG (a packed float32 map); restore it from the dataset")
    return np.ascontiguousarray(stored).view("<f4")[..., 0]


def read_npy(file: Path, shape: tuple[int, ...] | None = None) -> Float[np.ndarray, "*s"]:
    """An array of floating-point numbers, of two dimensions where ``shape`` is not given.

    Raises:
        UserError: missing, damaged, pickled, or of another type or shape.
    """
    try:
        stored = arrays.read_npy(existing(file))
    except arrays.ARRAY_ERRORS as error:
        raise UserError(f"{file}: not a readable .npy array; restore it from the dataset") from error
    fits = stored.ndim == 2 if shape is None else stored.shape == shape
    if not fits or stored.dtype.kind != "f":
        raise UserError(f"{file}: not an array of floating-point numbers of the right shape; restore it")
    return stored


def read_pfm(file: Path) -> Float[np.ndarray, "h w"]:
    """A one-channel PFM: rows from the bottom to the top, little endian where its scale is negative.

    Raises:
        UserError: missing, damaged or truncated.
    """
    content = existing(file).read_bytes()
    header = re.match(rb"Pf\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", content)
    if header is None:
        raise UserError(f"{file}: not a one-channel PFM file; restore it from the dataset")
    width, height = int(header[1]), int(header[2])
    values = content[header.end() :]
    if len(values) != 4 * width * height:
        raise UserError(f"{file}: {len(values)} bytes of depth, not 4 x {width} x {height}; restore it")
    order = "<f4" if header[3].startswith(b"-") else ">f4"
    return np.frombuffer(values, order).reshape(height, width)[::-1].astype(np.float32)


def read_exr(file: Path) -> Float[np.ndarray, "h w"]:
    """A depth map in OpenEXR, half or single precision: grey, one channel of any name, or equal colour channels.

    Decoded by FFmpeg (PyAV), because OpenCV's wheels are built with or without OpenEXR depending on their version.

    Raises:
        UserError: missing, damaged, or of another kind.
    """
    import av

    content = existing(file).read_bytes()
    try:
        content = _whole_exr(content)
        frame: Any = av.CodecContext.create("exr", "r").decode(av.Packet(content))[0]
        kind, planes = frame.format.name, frame.planes
        plane = planes[0 if kind.startswith("gray") else 2]  # FFmpeg's order of colours is G, B, R
        dtype = np.dtype({"f32le": "<f4", "f16le": "<f2"}[kind[-5:]])
        rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    except (av.FFmpegError, KeyError, IndexError, ValueError) as error:
        raise UserError(f"{file}: not a readable OpenEXR depth map ({error}); restore it from the dataset") from error
    return rows[:, : frame.width * dtype.itemsize].copy().view(dtype).astype(np.float32)


_LINES = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
"""Of a block, by the number that stands for the compression."""


def _whole_exr(content: bytes) -> bytes:
    """The file, if none of its lines is missing (FFmpeg would fill them in), with an only channel named Y.

    FFmpeg refuses a lone Z or R, as depth is often called. Layout: the OpenEXR project's "OpenEXR File Layout".

    Raises:
        ValueError: truncated, or not OpenEXR.
    """
    at, where = 8, {}
    while content[at : at + 1] not in (b"\0", b""):
        name, kind, rest = content[at:].split(b"\0", 2)
        start = at + len(name) + len(kind) + 6
        where[name] = start
        at = start + int.from_bytes(rest[:4], "little")
    if content[:4] != b"\x76\x2f\x31\x01" or not {b"channels", b"compression", b"dataWindow"} <= where.keys():
        raise ValueError("no OpenEXR header")
    _, top, _, bottom = np.frombuffer(content, "<i4", 4, where[b"dataWindow"])
    if not content[5] & 2:  # not in tiles
        blocks = -(-int(bottom - top + 1) // _LINES[content[where[b"compression"]]])
        offsets = np.frombuffer(content, "<u8", blocks, at + 1).astype(int)
        ends = [offset + 8 + int.from_bytes(content[offset + 4 : offset + 8], "little") for offset in offsets]
        if min(offsets) <= at or max(ends) > len(content):
            raise ValueError("truncated")
    first = where[b"channels"]
    alone = content[first + 1] == 0 and content[first + 18] == 0
    return content[:first] + b"Y" + content[first + 1 :] if alone else content
