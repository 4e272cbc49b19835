"""One small picture of a capture's labels: photographs with tracks, and the depth below, for the label report."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.files import atomic_path
from reliev3r.data.capture import Capture
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.store import CaptureLabels

FILE = "quality.jpg"
_VIEWS = 6
_WIDTH = 220
_DOTS = 150
_GREY = 128  # pixels without depth


def write_sheet(folder: Path | str, capture: Capture, labels: CaptureLabels) -> None:
    """Write ``quality.jpg`` beside the labels: up to six views, deterministic.

    Dots are observations, from red (tracks of two views) over yellow to green (of half of the views or more); depth is
    in log scale of each map, blue is near.
    """
    columns = [_column(capture, labels, view) for view in evenly_spaced(range(len(capture.frames)), _VIEWS)]
    height = max(len(column) for column in columns)
    padded = [
        cv2.copyMakeBorder(c, 0, height - len(c), 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for c in columns
    ]
    sheet = np.concatenate(padded, axis=1)[:, :-4]
    ok, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not ok:
        raise RuntimeError("OpenCV could not encode a JPEG")
    with atomic_path(Path(folder) / FILE) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _column(capture: Capture, labels: CaptureLabels, view: int) -> UInt8[np.ndarray, "h w 3"]:
    frame = capture.frames[view]
    size = (_WIDTH, max(1, round(_WIDTH * frame.height / frame.width)))
    image = cv2.resize(capture.image(view), size, interpolation=cv2.INTER_AREA)
    visible = labels.tracks.visible
    length = visible.sum(0)
    seen = visible[view].nonzero()[:, 0]
    seen = seen[:: max(1, len(seen) // _DOTS)]
    uv = labels.tracks.uv[view, seen].double().numpy() * size[0] / frame.width
    full = max(3.0, len(visible) / 2)
    for (x, y), alive in zip(uv, ((length[seen] - 2) / (full - 2)).clamp(max=1).tolist(), strict=True):
        colour = (round(230 * min(1.0, 2 - 2 * alive)), round(200 * min(1.0, 0.2 + 2 * alive)), 40)
        cv2.circle(image, (round(float(x) * 16), round(float(y) * 16)), 28, colour, -1, cv2.LINE_AA, 4)
    depth = labels.depth(view)
    if not depth.valid.any():
        return image
    return np.concatenate([image, cv2.resize(_depth(depth.depth, depth.valid), size)], axis=0)


def _depth(depth: Float[np.ndarray, "h w"], valid: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    log = np.log(depth)
    low, high = np.percentile(log[valid], [2, 98])
    unit = ((log - low) / max(high - low, 1e-6)).clip(0, 1)
    picture = cv2.applyColorMap((255 * unit).round().astype(np.uint8), cv2.COLORMAP_TURBO)
    picture[~valid] = _GREY
    return np.ascontiguousarray(picture[..., ::-1])
