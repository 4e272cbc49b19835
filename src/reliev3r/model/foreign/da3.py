"""Depth Anything 3 (ByteDance-Seed/Depth-Anything-3): z-depth of its dual head, cameras of its camera decoder."""

from __future__ import annotations

import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import focal_from_fov, ray_map
from reliev3r.geometry.rigid import invert, rigid_from
from reliev3r.model.foreign.base import ForeignNetwork, assembled, load_exactly, read_config
from reliev3r.model.weights.files import read_weights, weight_files

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet; upstream normalises images before the network, not in it."""
NOT_RUN = ("cam_enc.", "gs_head.", "gs_adapter.")
"""Known cameras as input, and Gaussian splats."""
SMALLEST_FOV = 0.01
"""Radians; the field of view leaves upstream through a ReLU, which makes focal lengths of a million images' widths."""


class Da3Network(ForeignNetwork):
    """Upstream's any-view network; of a nested one the any-view branch alone, whose unit is not metres.

    The world is upstream's: near the camera that it chooses as its reference.
    """

    system, prefix = "Depth Anything 3", "da3"

    def predict_batch(self, views: Views) -> Prediction:
        """As :class:`ForeignNetwork` says."""
        mean, std = (views.image.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        raw = self.branch((views.image - mean) / std)
        with torch.autocast(views.image.device.type, enabled=False):
            K, world_from_cam = cameras(raw["extrinsics"].float(), raw["intrinsics"].float(), *views.size)
            return assembled(
                views, depth=raw["depth"].float(), rays=ray_map(K, *views.size), world_from_cam=world_from_cam,
                logit=(raw["depth_conf"].float() - 1).clamp_min(1e-6).log(),  # conf = 1 + exp(logit)
            )  # fmt: skip

    @property
    def branch(self) -> Any:
        """The module that predicts from all views."""
        model: Any = self.network
        model = model["model"]
        return model["da3"] if isinstance(model, nn.ModuleDict) else model

    def trunk(self) -> nn.ModuleList:
        """The blocks from the first that sees other views on: every other one."""
        blocks, first = self.branch.backbone.pretrained.blocks, self.branch.backbone.alt_start
        return nn.ModuleList(list(blocks)[first:])


def cameras(
    cam_from_world: Float[Tensor, "b v 3 4"], K: Float[Tensor, "b v 3 3"], height: int, width: int
) -> tuple[Float[Tensor, "b v 3 3"], Float[Tensor, "b v 4 4"]]:
    """(K, world_from_cam), with focal lengths of at least the smallest field of view."""
    longest = focal_from_fov(SMALLEST_FOV, max(height, width))
    return K.clamp_max(longest), invert(rigid_from(cam_from_world[..., :3], cam_from_world[..., 3]))


def load_da3(where: str) -> Da3Network:
    """The network that ``config.json`` names, from a file, a folder or a hub id in the cache.

    Raises:
        UserError: the package or the weights cannot be had, the weights do not fit, or the network has no cameras.
    """
    os.environ.setdefault("DA3_LOG_LEVEL", "WARN")  # it prints at every forward pass
    try:
        from depth_anything_3.cfg import create_object, load_config
        from depth_anything_3.registry import MODEL_REGISTRY
    except ImportError as error:
        raise UserError(
            f"da3:{where} needs the package depth_anything_3 ({error}); "
            "pip install git+https://github.com/ByteDance-Seed/Depth-Anything-3"
        ) from error
    files = weight_files(where)
    config = read_config(files, where)
    name = config.get("model_name")
    if name not in MODEL_REGISTRY:
        raise UserError(f"{where}: config.json names the network {name}; upstream has {', '.join(MODEL_REGISTRY)}")
    settings = load_config(MODEL_REGISTRY[name])  # upstream's: config.json may name any object to be made
    nested = "anyview" in settings
    settings = settings["anyview"] if nested else settings
    if settings.get("cam_dec") is None:
        raise UserError(f"{where}: {name} predicts no cameras; give an any-view network, for instance DA3-LARGE")
    for part in ("gs_head", "gs_adapter"):
        settings.pop(part, None)
    network = create_object(settings)
    network.cam_enc = None
    return wrap(network, read_weights(files), where, config=config, nested=nested)


def wrap(
    network: nn.Module, tensors: dict[str, Tensor], where: str, *, config: dict[str, Any], nested: bool = False
) -> Da3Network:
    """Upstream's any-view network with ``tensors``, of upstream's file, loaded.

    Raises:
        UserError: they do not fit.
    """
    prefix = "model.da3." if nested else "model."
    beside = ("model.da3_metric.", *(prefix + part for part in NOT_RUN))
    rest = {name: value for name, value in tensors.items() if name.startswith(beside)}
    named = nn.ModuleDict({"model": nn.ModuleDict({"da3": network}) if nested else network})
    load_exactly(named, {name: value for name, value in tensors.items() if name not in rest}, where)
    return Da3Network(named, rest=rest, config=config)
