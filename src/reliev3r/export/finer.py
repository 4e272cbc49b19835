"""Maps as fine as the photographs, for people and other programs; every score is of the network's own grid."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.network_views import area_mean
from reliev3r.geometry.sampling import resize_linear
from reliev3r.geometry.upsample import upsample_depth

_log = logging.getLogger(__name__)

DEPTH_SIZE = 512
"""Long side of exported maps in pixels, unless told otherwise."""
MOST_PIXELS = 16_000_000
"""Of all maps together: 81 views of 512 x 384."""


def finer(
    reconstruction: Reconstruction,
    capture: Capture | Path | str | None,
    depth_size: int | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """The same cameras with depth, confidence and colours of a finer grid over the same regions.

    :func:`~reliev3r.geometry.upsample.upsample_depth` is guided by the photographs of ``capture``. The long side is
    ``depth_size`` (:data:`DEPTH_SIZE`; 0: as predicted), what the largest region has in the photographs, or what
    :data:`MOST_PIXELS` leave, whichever is the least. Maps that are not coarser stay, as do those of systems without
    depth, and where no capture is given or it is a video that is not open. ``meta["maps"]`` says what was done.

    Raises:
        UserError: the capture has no such frames, or is not of the sizes that were reconstructed.
    """
    views, height, width = reconstruction.prediction.depth.shape
    size = finer_size(reconstruction, DEPTH_SIZE if depth_size is None else depth_size)
    if size is None or not reconstruction.predicts_depth or capture is None:
        return reconstruction
    if not isinstance(capture, Capture):
        if Path(capture).is_file():
            _log.info("%s: a video that is not open guides no depth; maps stay %dx%d", capture, width, height)
            return reconstruction
        capture = load_capture(capture)
    index = {frame.name: number for number, frame in enumerate(capture.frames)}
    depth, conf = torch.empty(views, *size), torch.empty(views, *size)
    image = torch.empty(views, *size, 3, dtype=torch.uint8)
    for view, name in enumerate(reconstruction.names):
        if name not in index:
            raise UserError(f"{capture.root}: has no frame {name}; give the capture that was reconstructed")
        pixels = capture.image(index[name])
        if pixels.shape[1::-1] != tuple(reconstruction.sizes[view]):
            raise UserError(f"{capture.root}: frame {name} has another size than the one that was reconstructed")
        left, top, across, down = reconstruction.regions[view].tolist()
        photograph = torch.from_numpy(area_mean(pixels, (left, top, across, down), size)).float()
        coarse = reconstruction.image[view].float() / 255
        own = reconstruction.prediction.depth[view], reconstruction.prediction.conf[view]
        depth[view], conf[view] = upsample_depth(*own, coarse, photograph / 255)
        image[view] = photograph.round().to(torch.uint8)
        if progress is not None:
            progress(view + 1, views, "finer depth, by the photographs")
    rays = resize_linear(reconstruction.prediction.rays, *size, extrapolate=True)
    prediction = dataclasses.replace(reconstruction.prediction, depth=depth, conf=conf, rays=rays)
    made = {"upsampled_from": [height, width], "guided_by": "the photographs"}
    return dataclasses.replace(
        reconstruction, prediction=prediction, image=image, meta={**reconstruction.meta, "maps": made}
    )


def finer_size(reconstruction: Reconstruction, depth_size: int) -> tuple[int, int] | None:
    """(height, width) of the finer maps; None where they would not be finer."""
    views, height, width = reconstruction.prediction.depth.shape
    native = float((reconstruction.regions[:, 2:].double() / torch.tensor([width, height])).max())
    factor = min(depth_size / max(height, width), native, math.sqrt(MOST_PIXELS / (views * height * width)))
    size = round(factor * height), round(factor * width)
    return size if size[0] > height and size[1] > width else None
