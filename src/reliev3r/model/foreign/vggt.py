"""VGGT (facebookresearch/vggt): cameras of its camera head, z-depth of its depth head, up to scale.

``baselines/adapters/vggt.py`` reads the same outputs in NumPy, in an interpreter that has no reliev3r. Who changes one
changes the other.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import focal_from_fov, ray_map
from reliev3r.geometry.rigid import invert, rigid_from, rotation_from_quaternion
from reliev3r.model.foreign.base import ForeignNetwork, assembled, load_exactly
from reliev3r.model.weights.files import read_weights, weight_files

NOT_RUN = ("point_head.", "track_head.")
SMALLEST_FOV = 0.01
"""Radians; the field of view leaves upstream through a ReLU, and 0 would be an infinite focal length."""


class VggtNetwork(ForeignNetwork):
    """Upstream's module, without the point and track heads."""

    system, prefix = "VGGT", "vggt"

    def predict_batch(self, views: Views) -> Prediction:
        """As :class:`ForeignNetwork` says."""
        raw = self.network(views.image)
        with torch.autocast(views.image.device.type, enabled=False):
            K, world_from_cam = cameras(raw["pose_enc"].float(), *views.size)
            return assembled(
                views, depth=raw["depth"][..., 0].float(), rays=ray_map(K, *views.size),
                world_from_cam=world_from_cam,
                logit=(raw["depth_conf"].float() - 1).clamp_min(1e-6).log(),  # conf = 1 + exp(logit)
            )  # fmt: skip

    def trunk(self) -> nn.ModuleList:
        """Frame and global blocks in turns."""
        parts: Any = self.network.aggregator
        return nn.ModuleList(block for pair in zip(parts.frame_blocks, parts.global_blocks) for block in pair)


def cameras(
    encoding: Float[Tensor, "b v 9"], height: int, width: int
) -> tuple[Float[Tensor, "b v 3 3"], Float[Tensor, "b v 4 4"]]:
    """(K, world_from_cam) of pose encodings: cam_from_world as translation and quaternion (real part last), then
    vertical and horizontal field of view (radians) around a centred principal point."""
    focal = focal_from_fov(encoding[..., 7:].clamp(SMALLEST_FOV, math.pi - SMALLEST_FOV))
    zero, one = torch.zeros_like(focal[..., 0]), torch.ones_like(focal[..., 0])
    rows = [width * focal[..., 1], zero, one * width / 2, zero, height * focal[..., 0], one * height / 2,
            zero, zero, one]  # fmt: skip
    K = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return K, invert(rigid_from(rotation_from_quaternion(encoding[..., 3:7]), encoding[..., :3]))


def load_vggt(where: str) -> VggtNetwork:
    """The released size, from a file, a folder or a hub id in the cache.

    Raises:
        UserError: the package or the weights cannot be had, or the weights do not fit.
    """
    try:
        from vggt.models.vggt import VGGT
    except ImportError as error:
        raise UserError(
            f"vggt:{where} needs the package vggt ({error}); pip install git+https://github.com/facebookresearch/vggt"
        ) from error
    tensors = read_weights(weight_files(where))
    rest = {name: value for name, value in tensors.items() if name.startswith(NOT_RUN)}
    network = VGGT(enable_point=False, enable_track=False)
    load_exactly(network, {name: value for name, value in tensors.items() if name not in rest}, where)
    return VggtNetwork(network, rest=rest)
