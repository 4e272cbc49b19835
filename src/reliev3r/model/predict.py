"""A forward pass without training: images and a checkpoint in, a reconstruction out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reliev3r.core.device import Precision, resolve_device, resolve_precision
from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction, Views
from reliev3r.data.capture import Capture
from reliev3r.data.network_views import network_views
from reliev3r.model.load import Model, load_model, weights_hash
from reliev3r.model.network import Reliev3R
from reliev3r.model.passes import AT_ONCE, predict_in_passes

logger = logging.getLogger(__name__)


@torch.no_grad()
def predict(model: nn.Module, views: Views, *, bf16: bool = False, loops: Sequence[tuple[int, int]] = ()) -> Prediction:
    """Prediction [v ...] of unbatched ``views``, on the CPU, float32; the model's mode and device stay as they are.

    In one forward pass, or of more than :data:`~reliev3r.model.passes.AT_ONCE` views in overlapping ones.

    Args:
        model: a network of ours or another system's.
        views: in the order of a walk, where there are more.
        bf16: under autocast.
        loops: pairs of views far apart that see the same place; looked at where there are several passes.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()

    def one_pass(part: Views) -> Prediction:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return model(part.map(lambda x: x[None].to(device))).map(lambda x: x[0].cpu()).to(torch.float32)

    prediction = predict_in_passes(one_pass, views, loops)
    model.train(training)
    return prediction


@torch.no_grad()
def predict_depth(model: Reliev3R, views: Views) -> Float[Tensor, "v h w"]:
    """Depth alone of unbatched ``views``, on the CPU: no cameras are solved. Of more than ``AT_ONCE`` views in parts,
    each of a unit of its own."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    ranges = [range(begin, min(begin + AT_ONCE, len(views.image))) for begin in range(0, len(views.image), AT_ONCE)]
    parts = [views.select_views(list(each)).map(lambda x: x[None].to(device)) for each in ranges]
    depth = [model.without_cameras(part).depth[0].float().cpu() for part in parts]
    model.train(training)
    return torch.cat(depth)


def reconstruct_capture(
    capture: Capture,
    model: Model | Path | str,
    *,
    image_size: int | None = None,
    precision: Precision | None = None,
    device: str = "auto",
    loops: Sequence[tuple[int, int]] = (),
) -> Reconstruction:
    """Depth, confidence and cameras of a capture, by forward passes alone (one, of up to ``passes.AT_ONCE`` views).

    Args:
        capture: its intrinsics are used where they are known.
        model: a network, which runs where it is, or the name of one (``model.load``), which runs on ``device``.
        image_size: long side in pixels of the network's images; by default the one that it was trained with.
        precision: by default the one that it was trained with.
        device: of a network that is named: auto (the accelerator where there is one), cpu, cuda, ...
        loops: as :func:`predict` takes them.

    Raises:
        UserError: a bad checkpoint, one that does not say its image size, unknown intrinsics that it does not predict,
            or a prediction that is not finite.
    """
    name = model if isinstance(model, Path | str) else None
    network = load_model(model) if isinstance(model, Path | str) else model
    if not capture.has_K and not network.predicts_intrinsics:
        raise UserError(f"{capture.root}: the intrinsics are unknown and {name or 'the network'} predicts none; "
                        "give --intrinsics")  # fmt: skip
    size = network_size(network, name, image_size)
    place = resolve_device(device) if name is not None else next(network.parameters()).device
    bf16 = resolve_precision(precision or network.precision, place) == "bf16"
    if bf16 and isinstance(network, Reliev3R) and name is not None:
        matrices_in_bf16(network)
    sample, regions = network_views(capture, long_side=size, patch=network.patch_size)
    if len(capture.frames) > AT_ONCE and not capture.ordered:
        logger.warning(
            "%d photographs are more than the %d of one forward pass: overlapping passes take them in the order of "
            "their names, which should be that of a walk", len(capture.frames), AT_ONCE,
        )  # fmt: skip
    told = {} if name is None else {"checkpoint_sha256": weights_hash(name)}
    prediction = predict(network.to(place), sample, bf16=bf16, loops=loops)
    refuse_not_finite(prediction, name or "this network")
    tied = prediction.reached
    lost = [] if tied is None else [name for name, ok in zip(capture.names, tied.tolist(), strict=True) if not ok]
    if lost:
        logger.warning("nothing ties %d of %d views to the others, so they have no camera: %s", len(lost),
                       len(capture.names), ", ".join(lost))  # fmt: skip
    return Reconstruction(
        prediction=dataclasses.replace(prediction, reached=None),
        found=None if tied is None or bool(tied.all()) else tied,
        capture=capture,
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=(sample.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=regions,
        meta={
            "system": f"reliev3r reconstruct ({name or type(network).__name__})",
            **told,
            "image_size": size,
            "precision": "bf16" if bf16 else "float32",
            "intrinsics": capture.K_source or "predicted",
        },
    )


def network_size(network: Model, name: Path | str | None, asked: int | None) -> int:
    """The size to use; another one than that of the training is said."""
    trained, who = network.image_size, name or "the network"
    size = trained if asked is None else asked
    if size is None:
        raise UserError(f"{who}: does not say which image size it was trained with; give --image-size")
    if trained not in (None, size):
        logger.warning("%s was trained with images of %d pixels; it is shown %d, as you asked", who, trained, size)
    return size


def matrices_in_bf16(model: Reliev3R) -> Reliev3R:
    """Keep the large weights in bfloat16, in place, for forward passes under bf16 autocast.

    Autocast casts these weights (linear and patch layers of encoder, decoder and head decoders) in every forward pass
    and keeps both copies meanwhile; cast once, they give the same prediction bit for bit from less than half the
    memory. Norms, tokens, positions and the output heads, which work in float32, stay. Not for training.
    """
    parts = (model.encoder, model.decoder, model.depth_decoder, model.conf_decoder, model.camera_decoder)
    for part in parts:
        for module in () if part is None else part.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(torch.bfloat16)
    return model


def refuse_not_finite(prediction: Prediction, who: Path | str) -> None:
    """Before anything is made of a prediction; ``who`` is the network's name.

    Raises:
        UserError: a number of it is not finite, apart from cameras that were not found.
    """
    tied = slice(None) if prediction.reached is None else prediction.reached
    parts = (prediction.depth, prediction.rays, prediction.conf, prediction.world_from_cam[tied])
    if not all(bool(part.isfinite().all()) for part in parts):
        raise UserError(f"{who}: predicts numbers that are not finite: its weights are damaged; take others")
