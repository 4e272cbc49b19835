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
from reliev3r.model.foreign import base_hash, load_adaptable, patch_size, predicts_intrinsics
from reliev3r.model.inference import matrices_in_bf16
from reliev3r.model.network import Reliev3R
from reliev3r.model.precision import Precision, own_device, resolve_precision
from reliev3r.reconstruction import Reconstruction
from reliev3r.types import Prediction, Views


@torch.no_grad()
def predict(model: nn.Module, views: Views, *, bf16: bool = False) -> Prediction:
    """Prediction [v ...] of unbatched ``views``, on the CPU, float32; the model's mode and device stay as they are.
    ``bf16``: under autocast."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        prediction = model(views.map(lambda x: x[None].to(device))).map(lambda x: x[0].float().cpu())
    model.train(training)
    return prediction


def reconstruct(
    images: Path,
    checkpoint: Path | str,
    *,
    intrinsics: str | None = None,
    views: int | None = None,
    image_size: int = 96,
    precision: Precision = "auto",
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Reconstruction:
    """Depth, confidence and cameras of a folder of images or a video, in one forward pass on the device at hand.

    ``checkpoint``: whatever ``load_adaptable`` takes: a folder of ours, ``pi3:PATH``, or another system and a path.

    Raises:
        UserError: bad images or checkpoint, or unknown intrinsics that the checkpoint does not predict.
    """
    capture = with_intrinsics(load_capture(images, views=views, cache=cache, progress=progress), intrinsics)
    return reconstruct_capture(capture, checkpoint, image_size=image_size, precision=precision)


def reconstruct_capture(
    capture: Capture, checkpoint: Path | str, *, image_size: int = 96, precision: Precision = "auto"
) -> Reconstruction:
    """The same for a capture that is open already.

    Raises:
        UserError: a bad checkpoint, or unknown intrinsics that it does not predict.
    """
    model, device = load_adaptable(str(checkpoint)), own_device()
    if not capture.has_K and not predicts_intrinsics(model):
        raise UserError(f"{capture.root}: the intrinsics are unknown and {checkpoint} predicts none; give --intrinsics")
    sample, regions = network_views(capture, long_side=image_size, patch=patch_size(model))
    bf16 = resolve_precision(precision, device) == "bf16"
    if bf16 and isinstance(model, Reliev3R):
        matrices_in_bf16(model)
    return Reconstruction(
        prediction=predict(model.to(device), sample, bf16=bf16),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=(sample.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=regions,
        meta={
            "system": f"reliev3r reconstruct ({checkpoint})",
            "checkpoint_sha256": base_hash(str(checkpoint)),
            "precision": "bf16" if bf16 else "float32",
            "intrinsics": capture.K_source or "predicted",
        },
    )
