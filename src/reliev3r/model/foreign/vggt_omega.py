"""VGGT-Omega (facebookresearch/vggt-omega): cameras of its camera head, z-depth of its dense head, up to scale.

``baselines/adapters/vggt_omega.py`` reads the same outputs in NumPy, in an interpreter that has no reliev3r. Who
changes one changes the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import ray_map
from reliev3r.model.foreign.base import ForeignNetwork, assembled, load_exactly
from reliev3r.model.foreign.vggt import cameras
from reliev3r.model.weights.files import read_weights, weight_files

NOT_RUN = "text_alignment_head."
"""Of the checkpoint whose registers are aligned with language; it was trained on smaller images."""
IMAGE_SIZE, IMAGE_SIZE_OF_TEXT = 512, 256
WIDTH = 1024
"""Of the released networks; nothing wider is built, whatever a file says."""


class VggtOmegaNetwork(ForeignNetwork):
    """Upstream's module, without the head for text."""

    system, prefix = "VGGT-Omega", "vggt-omega"
    terms = (
        "FAIR Noncommercial Research License v1, that of the weights which it began with: noncommercial research only, "
        "and whoever gets these weights must get a copy of that license"
    )
    patch_size = 16
    image_size = IMAGE_SIZE

    def predict_batch(self, views: Views) -> Prediction:
        """As :class:`ForeignNetwork` says.

        Upstream's ``forward`` runs these three parts too, in half precision wherever there is CUDA. Here the caller
        says in which, and the heads work in float32 as upstream's do.
        """
        parts: Any = self.network
        tokens, start = parts.aggregator(views.image.contiguous())
        with torch.autocast(views.image.device.type, enabled=False):
            encoding = parts.camera_head(tokens, patch_token_start=start)
            depth, conf = parts.dense_head(tokens, images=views.image, patch_token_start=start)
            K, world_from_cam = cameras(encoding, *views.size)
            return assembled(
                views, depth=depth[..., 0], rays=ray_map(K, *views.size), world_from_cam=world_from_cam,
                logit=(conf - 1).clamp_min(1e-6).log(),  # conf = 1 + exp(logit)
            )  # fmt: skip

    def trunk(self) -> nn.ModuleList:
        """Blocks within frames and between frames in turns."""
        parts: Any = self.network.aggregator
        return nn.ModuleList(block for pair in zip(parts.frame_blocks, parts.inter_frame_blocks) for block in pair)


def load_vggt_omega(where: str) -> VggtOmegaNetwork:
    """A released network, from a file or a folder with one; its width is read off the weights.

    Raises:
        UserError: the package or the weights cannot be had, or the weights do not fit.
    """
    try:
        from vggt_omega.models import VGGTOmega
    except ImportError as error:
        raise UserError(
            f"vggt-omega:{where} needs the package vggt_omega ({error}); "
            "pip install --no-deps git+https://github.com/facebookresearch/vggt-omega"
        ) from error
    if not Path(where).exists():
        raise UserError(
            f"{where}: not found; ask for access at https://huggingface.co/facebook/VGGT-Omega, run `hf download "
            "facebook/VGGT-Omega vggt_omega_1b_512.pt --local-dir DIR`, and name that file"
        )
    tensors = read_weights(weight_files(where))
    rest = {name: value for name, value in tensors.items() if name.startswith(NOT_RUN)}
    network = VGGTOmega(embed_dim=_width(tensors, where))
    load_exactly(network, {name: value for name, value in tensors.items() if name not in rest}, where)
    wrapped = VggtOmegaNetwork(network, rest=rest)
    wrapped.image_size = IMAGE_SIZE_OF_TEXT if rest else IMAGE_SIZE
    return wrapped


def _width(tensors: dict[str, Tensor], where: str) -> int:
    token = tensors.get("aggregator.camera_token")
    width = 0 if token is None or token.ndim == 0 else token.shape[-1]
    if not 64 <= width <= WIDTH or width % 64:
        raise UserError(f"{where}: holds no VGGT-Omega weights (aggregator.camera_token is missing or of another size)")
    return width
