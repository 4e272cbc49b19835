"""MapAnything (facebookresearch/map-anything) from images alone: its rays, depth along them and cameras, in metres.

``baselines/adapters/mapanything.py`` reads the same outputs in NumPy, in an interpreter that has no reliev3r. Who
changes one changes the other.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.rigid import rigid_from, rotation_from_quaternion
from reliev3r.model.foreign.base import ForeignNetwork, assembled, least_depth, load_exactly, read_config
from reliev3r.model.weights.files import read_weights, weight_files

INPUTS = ("ray_dirs_encoder", "depth_encoder", "depth_scale_encoder", "cam_rot_encoder", "cam_trans_encoder",
          "cam_trans_scale_encoder")  # fmt: skip
"""Parts that read what is not given here: they are not trained, or weight decay alone would move them."""


class MapAnythingNetwork(ForeignNetwork):
    """Upstream's module. Its world is the first view's camera, as nearly as it predicts that."""

    system, prefix = "MapAnything", "mapanything"

    def __init__(self, network: Any, *, config: dict[str, Any] | None = None) -> None:
        """``config`` of upstream's ``config.json``."""
        from uniception.models.encoders.image_normalizations import IMAGE_NORMALIZATION_DICT

        super().__init__(network, config=config)
        self.patch_size = network.encoder.patch_size
        self.kind = network.encoder.data_norm_type
        self.normal = IMAGE_NORMALIZATION_DICT[self.kind]
        for part in INPUTS:
            getattr(network, part).requires_grad_(False)

    def predict_batch(self, views: Views) -> Prediction:
        """As :class:`ForeignNetwork` says."""
        mean, std = (value.to(views.image)[:, None, None] for value in (self.normal.mean, self.normal.std))
        images = ((views.image - mean) / std).unbind(1)
        raw = self.network([{"img": image, "data_norm_type": [self.kind]} for image in images])
        with torch.autocast(views.image.device.type, enabled=False):
            points, shift, turn, conf = (
                torch.stack([view[name].float() for view in raw], dim=1)
                for name in ("pts3d_cam", "cam_trans", "cam_quats", "conf")
            )
            depth, rays = depth_and_rays(points)
            # conf = least + exp(logit)
            return assembled(
                views, depth=depth, rays=rays, logit=(conf - self.least_conf).clamp_min(1e-6).log(),
                world_from_cam=rigid_from(rotation_from_quaternion(turn), shift),
            )  # fmt: skip

    @property
    def least_conf(self) -> float:
        """The confidence of nothing."""
        network: Any = self.network
        return float(network.dense_adaptor.confidence_adaptor.vmin)

    def trunk(self) -> nn.ModuleList:
        """Frame and global blocks in turns."""
        parts: Any = self.network.info_sharing
        return nn.ModuleList(parts.self_attention_blocks)


def depth_and_rays(
    points: Float[Tensor, "b v h w 3"],
) -> tuple[Float[Tensor, "b v h w"], Float[Tensor, "b v h w 3"]]:
    """z-depth, and rays with z = 1, whose product is the camera-frame ``points``; behind the camera there is none."""
    z = points[..., 2]
    depth = torch.maximum(z, least_depth(z))
    return depth, torch.cat([points[..., :2] / depth[..., None], torch.ones_like(z)[..., None]], dim=-1)


def load_mapanything(where: str) -> MapAnythingNetwork:
    """The network that ``config.json`` describes, from a file, a folder or a hub id in the cache.

    Raises:
        UserError: the package or the weights cannot be had, the weights do not fit, or the network has no cameras.
    """
    try:
        from mapanything.models import MapAnything
    except ImportError as error:
        raise UserError(
            f"mapanything:{where} needs the package mapanything ({error}); "
            "pip install git+https://github.com/facebookresearch/map-anything"
        ) from error
    files = weight_files(where)
    config = read_config(files, where)
    known = inspect.signature(MapAnything.__init__).parameters
    # Upstream puts classes into the dictionaries that it is given.
    settings = _without_checkpoints({name: copy.deepcopy(config[name]) for name in config if name in known})
    try:
        with _encoders_without_network(where), contextlib.redirect_stdout(io.StringIO()):  # it prints what is replaced
            network = MapAnything(**settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: config.json describes no MapAnything network ({error!r})") from error
    if not {"pose", "confidence"} <= set(network.scene_rep_type.split("+")):
        raise UserError(f"{where}: predicts {network.scene_rep_type}; a network with poses and confidence is needed")
    if network.dense_adaptor.confidence_adaptor.confidence_type != "exp":
        raise UserError(f"{where}: only confidence of the kind exp is known, not the kind of its config.json")
    if not hasattr(network.info_sharing, "self_attention_blocks"):
        raise UserError(f"{where}: its views attend in pairs; a network with self-attention over all views is needed")
    load_exactly(network, read_weights(files), where)
    return MapAnythingNetwork(network, config=config)


def _without_checkpoints(settings: Any) -> Any:
    """Every path to other weights taken out: upstream unpickles them, and the checkpoint replaces them all."""
    if isinstance(settings, dict):
        return {
            name: None if name == "pretrained_checkpoint_path" else _without_checkpoints(value)
            for name, value in settings.items()
        }
    return settings


@contextlib.contextmanager
def _encoders_without_network(where: str) -> Iterator[None]:
    """UniCeption asks torch.hub for a pretrained DINOv2; the same class without weights is in upstream's package."""
    from mapanything.models.external.dinov2.hub import backbones

    def load(source: str, name: str, *_: Any, **__: Any) -> Any:
        if source != "facebookresearch/dinov2":
            raise UserError(
                f"{where}: its encoder {name} of {source} would be downloaded; only DINOv2 encoders are known"
            )
        return getattr(backbones, name)(pretrained=False)

    hub: Any = torch.hub
    original, hub.load = hub.load, load
    try:
        yield
    finally:
        hub.load = original
