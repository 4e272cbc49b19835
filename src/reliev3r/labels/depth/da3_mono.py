"""Depth Anything 3's monocular network (Lin et al. 2025) through its own package: depth, and where the sky is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from reliev3r.core.errors import UserError, first_line
from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.expert_weights import OneFileExpert, fill, read_state, to_tensor, weights_file

INSTALL = (
    "pip install addict einops omegaconf && pip install --no-deps "
    "git+https://github.com/ByteDance-Seed/Depth-Anything-3@2c21ea849ceec7b469a3e62ea0c0e270afc3281a"
)
_MODEL_ID = "depth-anything/DA3MONO-LARGE"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
_PATCH = 14
_SKY = 0.3
"""Upstream's threshold: what its sky head gives this or more is sky."""


@dataclass(frozen=True, kw_only=True)
class Da3Mono(OneFileExpert):
    """Depth itself, not disparity, up to a factor and an offset: the paper aligns it by both (section 4).

    Upstream gives the sky the 99th percentile of the other depths; here it is invalid.
    """

    weights: str | None = None
    """``model.safetensors``, or the folder it lies in; None: DA3MONO-LARGE of the Hugging Face hub (Apache-2.0)."""
    device: str = "cpu"
    long_side: int = 504
    """Of the network's input, in pixels, as upstream has it."""
    ambiguity: Ambiguity = "scale+shift"

    def _find(self) -> Path:
        return weights_file("da3-mono", self.weights, _MODEL_ID, "model.safetensors")

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        return {"name": "da3-mono", "version": 1, "weights_sha256": self._hash, "long_side": self.long_side}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing but the image."""
        return []

    @torch.inference_mode()
    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth at the network's resolution (``long_side`` on the long side)."""
        scale = self.long_side / max(image.shape[:2])
        height, width = (max(1, round(side * scale / _PATCH)) * _PATCH for side in image.shape[:2])
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        pixels = to_tensor(resized, mean=_MEAN, std=_STD).to(self.device)
        devices = [pixels.device] if pixels.is_cuda else []
        with torch.random.fork_rng(devices=devices):  # upstream draws at random which depths the sky's is taken from
            output = self._model(pixels[None])
        depth, sky = (output[name][0, 0].float().cpu().numpy() for name in ("depth", "sky"))
        return DepthMap.from_values(np.where(sky < _SKY, depth, 0))

    def _load(self, file: Path) -> torch.nn.Module:
        os.environ.setdefault("DA3_LOG_LEVEL", "WARN")  # it prints at every forward pass
        try:
            from depth_anything_3.cfg import create_object, load_config
            from depth_anything_3.registry import MODEL_REGISTRY

            network: torch.nn.Module = create_object(load_config(MODEL_REGISTRY["da3mono-large"]))
        except ImportError as error:
            raise UserError(f"da3-mono needs its package ({first_line(error)}): {INSTALL}") from error
        state = read_state(file)
        fill(network, {name.removeprefix("model."): value for name, value in state.items()}, file)
        return network
