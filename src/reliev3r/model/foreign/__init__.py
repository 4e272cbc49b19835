"""Networks that can be adapted: our own, and those of others through their installed packages (docs/adapt.md)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn

from reliev3r.errors import UserError
from reliev3r.model.foreign.base import ForeignNetwork
from reliev3r.model.foreign.da3 import load_da3
from reliev3r.model.foreign.mapanything import load_mapanything
from reliev3r.model.foreign.vggt import load_vggt
from reliev3r.model.network import Reliev3R
from reliev3r.model.pretrained import checkpoint_hash, load_network

FOREIGN = {"vggt": load_vggt, "mapanything": load_mapanything, "da3": load_da3}
"""By the prefix of ``--model``: where the weights are -> the network. Their packages are imported when asked for."""


def load_adaptable(spec: str) -> Reliev3R | ForeignNetwork:
    """A pretrained network that maps Views to a Prediction with gradients, in evaluation mode; nothing is downloaded.

    Args:
        spec: a checkpoint's folder, ``pi3:`` or the prefix of another system, and where the weights are.

    Raises:
        UserError: the weights or the system's package cannot be had.
    """
    kind, colon, where = spec.partition(":")
    if colon and kind in FOREIGN:
        return FOREIGN[kind](where).eval()
    return load_network(spec).eval()


def base_hash(spec: str) -> str:
    """SHA-256 of the weights that ``spec`` names.

    Raises:
        UserError: there are none.
    """
    kind, colon, where = spec.partition(":")
    if colon and kind in FOREIGN:
        return checkpoint_hash(f"vggt:{where}")  # any prefix: the files are found in the same way
    if not colon and not (Path(spec) / "model.safetensors").is_file():
        raise UserError(f"{spec}: not found; a checkpoint is a folder with config.json and model.safetensors")
    return checkpoint_hash(spec)


def patch_size(network: nn.Module) -> int:
    """Of which image sizes are multiples."""
    return network.patch_size if isinstance(network, ForeignNetwork) else cast(Reliev3R, network).config.patch_size


def predicts_intrinsics(network: nn.Module) -> bool:
    """Whether the network needs no K."""
    if isinstance(network, ForeignNetwork):
        return True
    config = cast(Reliev3R, network).config
    return config.fov != "none" or config.shape == "point"


def trunk(network: nn.Module) -> nn.ModuleList:
    """The blocks between the encoder and the heads, in order."""
    return network.trunk() if isinstance(network, ForeignNetwork) else cast(Reliev3R, network).decoder


__all__ = (
    "FOREIGN", "ForeignNetwork", "base_hash", "load_adaptable", "patch_size", "predicts_intrinsics", "trunk",
)  # fmt: skip
