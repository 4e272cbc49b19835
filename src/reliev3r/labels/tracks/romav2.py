"""RoMa v2 (Edstedt et al. 2025, arXiv:2511.15706) through romav2: dense matches on DINOv3's features.

romav2 needs torchvision, which has to fit the installed torch, and einops; DINOv3 comes from Meta's repository. Without
fused-local-corr, a compiled extra, it needs more memory.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8

from reliev3r.core.errors import UserError, first_line
from reliev3r.labels.expert_weights import (
    OneFileExpert,
    checkpoint_file,
    read_state,
    rgb_tensor,
    same_device,
    without_download,
)
from reliev3r.labels.tracks.matcher import PointMatches
from reliev3r.labels.tracks.roma import matches_on_grid

INSTALL = (
    "pip install einops torchvision && pip install --no-deps romav2==2.0.1 "
    "git+https://github.com/facebookresearch/dinov3@adc254450203739c8149213a7a69d8d905b4fcfa"
)
FILE = "romav2.0.1.pt"
_SOURCE = f"https://github.com/Parskatt/RoMaV2/releases/download/v2.0.1/{FILE} (MIT; DINOv3 in it: DINOv3 License)"
_VITL16: dict[str, Any] = {
    "patch_size": 16, "pos_embed_rope_base": 100, "pos_embed_rope_normalize_coords": "separate",
    "pos_embed_rope_rescale_coords": 2, "pos_embed_rope_dtype": "fp32", "layerscale_init": 1e-5,
    "norm_layer": "layernormbf16", "ffn_layer": "mlp", "n_storage_tokens": 4, "mask_k_bias": True,
}  # fmt: skip
"""As ``dinov3_vitl16`` of DINOv3's folder ``hub`` has it, which its package leaves out."""


@dataclass(frozen=True, kw_only=True)
class RomaV2Matcher(OneFileExpert):
    """A regular grid of each image looked up in the dense warp to the other, where they overlap.

    As published ("precise"), in both directions; its own sampling is random and is not used.
    """

    name: ClassVar[str] = "romav2"

    weights: str | None = None
    """``romav2.0.1.pt``, or the folder it lies in; None: torch.hub's cache. It holds DINOv3's weights, too."""
    device: str = "cpu"
    coarse: int = 800
    """Side of the squares that the images are stretched to, a multiple of 16."""
    fine: int = 1280
    """The same of the second, finer pass, a multiple of 4."""
    overlap: float = 0.5
    """Least probability that a point is seen in the other image."""
    matches: int = 3000
    """Of a pair at most, evenly over the grids."""
    cell: float = 3.0
    """Points of an image within a cell of this many working pixels are one keypoint."""

    def _find(self) -> Path:
        return checkpoint_file(self.name, self.weights, [FILE], _SOURCE)

    def _load(self, file: Path) -> torch.nn.Module:
        RoMaV2, vit_large = self._import()
        state = read_state(file)
        with without_download(
            "RoMaV2",
            file,
            self.device,
            load=lambda *_, **__: _of_its_own_class(vit_large(**_VITL16)),
            load_state_dict_from_url=lambda *_, **__: state,
        ):
            network: torch.nn.Module = RoMaV2(RoMaV2.Cfg(setting="precise"))
        for name in ("H", "W"):
            setattr(network, f"{name}_lr", self.coarse)
            setattr(network, f"{name}_hr", self.fine)
        return network

    def _import(self) -> tuple[Any, Any]:
        try:
            with _compiler_as_it_was():
                from dinov3.models.vision_transformer import vit_large
                from romav2 import RoMaV2
                from romav2.device import device
        except (ImportError, RuntimeError) as error:  # the latter: of a torchvision of another torch
            raise UserError(f"{self.name} needs its packages ({first_line(error)}): {INSTALL}") from error
        logging.getLogger("romav2").setLevel(logging.WARNING)  # it tells of itself on stdout
        same_device(self.name, device, self.device)
        return RoMaV2, vit_large

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        settings = {name: getattr(self, name) for name in ("coarse", "fine", "overlap", "matches", "cell")}
        return {"weights_sha256": self._hash, **settings}

    @torch.inference_mode()
    def match_images(self, first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h2 w2 3"]) -> PointMatches:
        """Matches on a regular grid, of either image, where the two overlap; none that leaves an image."""
        model = self._model
        with _exact_float32(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*CUDA is not available")  # upstream asks for it on the CPU, too
            found = model.match(rgb_tensor(first).to(self.device), rgb_tensor(second).to(self.device))
        there, back = found["warp_AB"][0].float(), found["warp_BA"][0].float()
        places = _pixel_centres(there)
        warp = torch.cat([torch.cat([places, there], -1), torch.cat([back, places], -1)], dim=1)
        overlap = torch.cat([found["overlap_AB"][0, ..., 0], found["overlap_BA"][0, ..., 0]], dim=1).float()
        inside = warp.abs().amax(-1) <= 1 - 1 / len(warp)  # upstream's rule; both maps are squares
        return matches_on_grid(
            warp.cpu().numpy(),
            torch.where(inside, overlap, 0).cpu().numpy(),
            first,
            second,
            least=self.overlap,
            most=self.matches,
        )


def _pixel_centres(warp: torch.Tensor) -> torch.Tensor:
    """Where the entries of a warp [h, w, 2] lie themselves, in the same measure: -1 and 1 are the edges."""
    y, x = ((torch.arange(n, device=warp.device) + 0.5) / n * 2 - 1 for n in warp.shape[:2])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _of_its_own_class(network: torch.nn.Module) -> torch.nn.Module:
    """The same network.

    romav2 replaces ``forward`` of DINOv3's class by one that asks the network at hand: in a class that others share,
    the one that was built last would answer for all.
    """
    network.__class__ = type("Dinov3", (type(network),), {})
    return network


@contextlib.contextmanager
def _compiler_as_it_was() -> Iterator[None]:
    """DINOv3 changes how torch compiles as it is imported."""
    import torch._dynamo.config as config

    kept = {name: getattr(config, name) for name in ("automatic_dynamic_shapes", "accumulated_cache_size_limit")}
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(config, name, value)


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Upstream refuses to run with less precise products of matrices."""
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept)
