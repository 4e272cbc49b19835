"""RoMa (Edstedt et al. 2024) through romatch: dense matches, the most robust and the slowest.

romatch needs torchvision, which has to fit the installed torch. ``pip install romatch`` brings much else; the model
itself needs torchvision, einops, kornia, loguru, numpy, opencv and pillow only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.expert_weights import checkpoint_file, joint_hash, read_state, require
from reliev3r.labels.tracks.matcher import PointMatches

INSTALL = "pip install romatch, with the torchvision of your torch"
ROMA, DINO = ("roma_outdoor.pth", "roma_indoor.pth"), ("dinov2_vitl14_pretrain.pth",)


@dataclass(frozen=True, kw_only=True)
class RomaMatcher:
    """A regular grid of each image looked up in the dense warp to the other, where it is certain."""

    name: ClassVar[str] = "roma"

    weights: str
    """Folder with roma_outdoor.pth (or roma_indoor.pth) and dinov2_vitl14_pretrain.pth."""
    device: str = "cpu"
    coarse: int = 560
    """Side of the network's first input, a multiple of 14."""
    fine: int = 864
    """Side of its second, finer pass, a multiple of 8."""
    certainty: float = 0.5
    matches: int = 3000
    """Of a pair at most, evenly over the grids."""
    cell: float = 3.0
    """Points of an image within a cell of this many working pixels are one keypoint."""

    @cached_property
    def _files(self) -> tuple[Path, Path]:
        roma = checkpoint_file(self.name, self.weights, ROMA, "github.com/Parskatt/RoMa (MIT)")
        return roma, checkpoint_file(
            self.name, str(roma.parent), DINO, "github.com/facebookresearch/dinov2 (Apache-2.0)"
        )

    @cached_property
    def _hash(self) -> str:
        return joint_hash(self._files)

    @cached_property
    def _model(self) -> Any:
        romatch = require("romatch", self.name, INSTALL)
        roma, dino = (read_state(path) for path in self._files)
        return romatch.roma_outdoor(  # its indoor twin differs in the weights only
            device=torch.device(self.device),
            weights=roma,
            dinov2_weights=dino,
            coarse_res=self.coarse,
            upsample_res=self.fine,
            amp_dtype=torch.float32 if self.device == "cpu" else torch.float16,
            use_custom_corr=False,  # a compiled extra that only saves time
        )

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        settings = {name: getattr(self, name) for name in ("coarse", "fine", "certainty", "matches", "cell")}
        return {"weights_sha256": self._hash, **settings}

    @torch.inference_mode()
    def match_images(self, first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h2 w2 3"]) -> PointMatches:
        """Certain matches on a regular grid, of either image (romatch's own sampling is random)."""
        warp, certainty = self._model.match(
            Image.fromarray(first), Image.fromarray(second), device=torch.device(self.device)
        )
        certain = certainty[0].float().cpu().numpy()
        return matches_on_grid(
            warp[0].float().cpu().numpy(), certain, first, second, least=self.certainty, most=self.matches
        )


def matches_on_grid(
    warp: Float[np.ndarray, "h w 4"],
    certainty: Float[np.ndarray, "h w"],
    first: UInt8[np.ndarray, "h1 w1 3"],
    second: UInt8[np.ndarray, "h2 w2 3"],
    *,
    least: float,
    most: int,
) -> PointMatches:
    """Every so many places of a dense warp, where its certainty is above ``least``: ``most`` at most, evenly spread.

    ``warp``: of the first image (x, y), then of the second, each from -1 at its left or upper edge to 1 at the other,
    as both RoMas have it; the pixels are ours, corner convention.
    """
    stride = max(1, int(np.sqrt(warp.shape[0] * warp.shape[1] / (4 * most))))
    places = slice(stride // 2, None, stride)
    warp, certainty = warp[places, places].reshape(-1, 4), certainty[places, places].ravel()
    keep = evenly_spaced(np.nonzero(certainty > least)[0].tolist(), most)
    uv = [_pixels(warp[keep, :2], first), _pixels(warp[keep, 2:], second)]
    return PointMatches(first=uv[0], second=uv[1], confidence=certainty[keep].astype(np.float64))


def _pixels(normalised: np.ndarray, image: np.ndarray) -> np.ndarray:
    return (normalised.astype(np.float64) + 1) / 2 * [image.shape[1], image.shape[0]]
