"""The verb ``reconstruct``: images and a checkpoint in, a reconstruction out, without training."""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.device import Precision
from reliev3r.core.progress import Progress
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.model.load import Model
from reliev3r.model.predict import reconstruct_capture


def reconstruct(
    images: Path,
    model: Model | Path | str,
    *,
    intrinsics: str | None = None,
    views: int | None = None,
    image_size: int | None = None,
    precision: Precision | None = None,
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Depth, confidence and cameras of a folder of images or a video, in one forward pass on the device at hand.

    Args:
        images: a folder of images, a capture, or a video.
        model: a network, or the name of one: a checkpoint's folder, ``pi3:PATH``, or another system's (``model.load``).
        intrinsics: FILE, fov:DEG or exif; by default the capture's own, else the network's.
        views: this many images, evenly spaced; of a video at most that many frames.
        image_size: long side in pixels of the network's images; by default the one that it was trained with.
        precision: by default the one that it was trained with.
        device: of a network that is named: auto (the accelerator where there is one), cpu, cuda, ...
        cache: folder for a video's frames.
        progress: hears of the frames.

    Raises:
        UserError: bad images or checkpoint, or unknown intrinsics that the network does not predict.
    """
    capture = with_intrinsics(load_capture(images, views=views, cache=cache, progress=progress), intrinsics)
    return reconstruct_capture(capture, model, image_size=image_size, precision=precision, device=device)
