"""MoGe-2 (Wang et al. 2025) through its own package: depth, where it is valid, and the field of view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError, first_line
from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.geometry.camera import fov_from_focal
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.expert_weights import OneFileExpert, weights_file

INSTALL = (
    "pip install --no-deps git+https://github.com/microsoft/MoGe@07444410f1e33f402353b99d6ccd26bd31e469e8 "
    "git+https://github.com/EasternJournalist/utils3d@3fab839f0be9931dac7c8488eb0e1600c236e183"
)
_MODEL_ID = "Ruicheng/moge-2-vitl"
_LEAST = 0.01


@dataclass(frozen=True, kw_only=True)
class MoGe2(OneFileExpert):
    """Metric depth, of which only the shape is trusted: one factor per view is left open.

    The network says which pixels it has no depth for (sky); they are invalid, as is the whole map where it accepts
    less than 1 % of it: upstream then hands back a made-up field of view. It sees the image alone, not its K.
    """

    weights: str | None = None
    """``model.pt``, or the folder it lies in; None: Ruicheng/moge-2-vitl of the Hugging Face hub (MIT)."""
    device: str = "cpu"
    resolution_level: int = 9
    """0 to 9: how many tokens the network works with."""
    long_side: int = 1024
    """Larger images are shrunk before: even at the highest level the network sees no more."""
    ambiguity: Ambiguity = "scale"

    def _find(self) -> Path:
        return weights_file("moge-2", self.weights, _MODEL_ID, "model.pt")

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        settings = {"resolution_level": self.resolution_level, "long_side": self.long_side}
        return {"name": "moge-2", "version": 1, "weights_sha256": self._hash, **settings}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing but the image."""
        return []

    @torch.inference_mode()
    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth in metres at the image's resolution (at most ``long_side``), and the horizontal field of view."""
        shrink = min(1.0, self.long_side / max(image.shape[:2]))
        height, width = (max(1, round(side * shrink)) for side in image.shape[:2])
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        pixels = torch.from_numpy(resized).permute(2, 0, 1).float().to(self.device) / 255
        on_gpu = torch.device(self.device).type == "cuda"
        output = self._model.infer(pixels, resolution_level=self.resolution_level, use_fp16=on_gpu)
        depth = output["depth"].float().cpu().numpy()  # infinite where masked
        fov = fov_from_focal(float(output["intrinsics"][0, 0]))  # K is in widths and heights of the image
        found = DepthMap.from_values(depth, fov=fov)
        return found if found.valid.mean() >= _LEAST else DepthMap.from_values(np.zeros_like(depth))

    def _load(self, file: Path) -> torch.nn.Module:
        try:
            from moge.model.v2 import MoGeModel
        except ImportError as error:
            raise UserError(f"moge-2 needs its package ({first_line(error)}): {INSTALL}") from error
        try:
            checkpoint = read_torch(file)
            model = MoGeModel(**checkpoint["model_config"])
            # Upstream's own loader goes on with random weights where some are missing.
            missing = model.load_state_dict(checkpoint["model"], strict=False).missing_keys
        except Exception as error:  # whatever torch and the model's constructor raise on foreign files
            raise UserError(
                f"{file}: holds no readable MoGe-2 checkpoint ({first_line(error)}); download it again"
            ) from error
        if missing:
            raise UserError(
                f"{file}: lacks {len(missing)} weights of a MoGe-2 network; download the matching checkpoint"
            )
        return model
