"""Single-channel OpenEXR maps. FFmpeg writes them: OpenCV's wheels have OpenEXR or not, depending on their version."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float


def write_exr(file: Path, values: Float[np.ndarray, "h w"]) -> None:
    """float32, one channel named Y, deflated: what OpenCV, OpenEXR and ``data.readers`` read back to the bit."""
    import av

    height, width = values.shape
    frame = av.VideoFrame(width, height, "grayf32le")
    plane = frame.planes[0]
    rows = np.zeros((height, plane.line_size // 4), "<f4")
    rows[:, :width] = values
    plane.update(rows.tobytes())
    encoder: Any = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "grayf32le", Fraction(1)
    encoder.options = {"compression": "zip16", "format": "float"}
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(bytes(packet) for packet in packets))
