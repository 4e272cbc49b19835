"""What other systems' networks have in common once they are wrapped."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from reliev3r.errors import UserError
from reliev3r.files import atomic_path
from reliev3r.geometry.camera import ray_map
from reliev3r.types import Prediction, Views

LEAST_DEPTH = 1e-4
"""Of a sample's median: depth that leaves an activation as 0 has no logarithm."""


class ForeignNetwork(nn.Module, ABC):
    """Another system's network as ``model(views) -> Prediction``, with gradients.

    Its weights keep upstream's names below ``network.``; what is saved is upstream's own file.
    """

    patch_size: int = 14

    def __init__(self, network: nn.Module, *, rest: dict[str, Tensor] | None = None) -> None:
        """``rest``: weights of upstream's file that are not run here, and are written back as they were."""
        super().__init__()
        self.network = network
        self.rest = rest or {}

    @abstractmethod
    def predict_batch(self, views: Views) -> Prediction:
        """Views with exactly one batch dimension, K known or not, to a prediction."""

    @abstractmethod
    def trunk(self) -> nn.ModuleList:
        """The blocks between the encoder and the heads, in order."""

    def forward(self, views: Views) -> Prediction:
        """As :meth:`Reliev3R.forward`: rays come from ``views.K`` where it is known, else from the network.

        Raises:
            ValueError: image size is no multiple of the patch.
        """
        batch, (height, width) = views.image.shape[:-4], views.size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"image size {height}x{width} is no multiple of the patch size {self.patch_size}")
        count = math.prod(batch)
        flat = views.map(lambda x: x.reshape(count, *x.shape[len(batch) :]))
        return self.predict_batch(flat).map(lambda x: x.reshape(*batch, *x.shape[1:]))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``model.safetensors`` with upstream's names, which its code and ``--model`` load."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {**self.rest, **self.network.state_dict()}
        with atomic_path(Path(folder) / "model.safetensors") as temporary:
            save_file({name: value.cpu().contiguous().clone() for name, value in tensors.items()}, temporary)


def assembled(
    views: Views,
    *,
    depth: Float[Tensor, "b v h w"],
    K: Float[Tensor, "b v 3 3"],
    logit: Float[Tensor, "b v h w"],
    world_from_cam: Float[Tensor, "b v 4 4"],
) -> Prediction:
    """float32; ``logit`` of a confidence that means the same from 0 to infinity as ours from 0 to 2."""
    known = K if views.K is None else views.K.float()
    least = LEAST_DEPTH * depth.detach().flatten(1).median(1).values.clamp_min(1e-8)[:, None, None, None]
    return Prediction(
        depth=torch.maximum(depth, least),
        rays=ray_map(known, *views.size),
        conf=2 * torch.sigmoid(logit.clamp(-4, 4)),
        world_from_cam=world_from_cam,
    )


def load_exactly(network: nn.Module, tensors: dict[str, Any], source: str) -> None:
    """Load all of ``tensors``, and every weight of ``network`` from them.

    Raises:
        UserError: a weight is missing, surplus or misshapen; names it.
    """
    expected = network.state_dict()
    for name, value in expected.items():
        if name not in tensors or tensors[name].shape != value.shape:
            raise UserError(f"{source}: {name} is missing or has another shape; are these weights of this system?")
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise UserError(f"{source}: holds {surplus[0]}, which the network has not; are these weights of this system?")
    network.load_state_dict(tensors)
