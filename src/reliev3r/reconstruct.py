"""A forward pass without training: images and a checkpoint in, a reconstruction out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.errors import UserError
from reliev3r.labels.sample import network_views
from reliev3r.model.pretrained import checkpoint_hash, load_network
from reliev3r.reconstruction import Reconstruction
from reliev3r.types import Prediction, Views


@torch.no_grad()
def predict(model: nn.Module, views: Views) -> Prediction:
    """Prediction [v ...] of unbatched ``views``, on the CPU; the model's mode and device stay as they are."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    prediction = model(views.map(lambda x: x[None].to(device))).map(lambda x: x[0].float().cpu())
    model.train(training)
    return prediction


def reconstruct(
    images: Path,
    checkpoint: Path,
    *,
    intrinsics: str | None = None,
    views: int | None = None,
    image_size: int = 96,
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Reconstruction:
    """Depth, confidence and cameras of a folder of images or a video, in one forward pass.

    Raises:
        UserError: bad images or checkpoint, or unknown intrinsics that the checkpoint does not predict.
    """
    capture = with_intrinsics(load_capture(images, views=views, cache=cache, progress=progress), intrinsics)
    return reconstruct_capture(capture, checkpoint, image_size=image_size)


def reconstruct_capture(capture: Capture, checkpoint: Path | str, *, image_size: int = 96) -> Reconstruction:
    """The same for a capture that is open already.

    Raises:
        UserError: a bad checkpoint, or unknown intrinsics that it does not predict.
    """
    model = load_network(checkpoint)
    if not capture.has_K and model.config.fov == "none" and model.config.shape == "depth":
        raise UserError(f"{capture.root}: the intrinsics are unknown and {checkpoint} predicts none; give --intrinsics")
    sample, regions = network_views(capture, long_side=image_size, patch=model.config.patch_size)
    return Reconstruction(
        prediction=predict(model, sample),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=(sample.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=regions,
        meta={
            "system": f"reliev3r reconstruct ({checkpoint})",
            "checkpoint_sha256": checkpoint_hash(checkpoint),
            "intrinsics": capture.K_source or "predicted",
        },
    )
