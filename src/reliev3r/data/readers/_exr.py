"""Depth maps in OpenEXR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from reliev3r.data.readers._layout import existing
from reliev3r.errors import UserError


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
