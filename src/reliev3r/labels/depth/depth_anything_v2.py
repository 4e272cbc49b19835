"""Depth Anything V2 (Yang et al. 2024) through transformers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.expert_weights import WITHOUT, load_pretrained, to_tensor, weights_folder, weights_hash

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
_PATCH = 14


@dataclass(frozen=True, kw_only=True)
class DepthAnythingV2:
    """Relative inverse depth, made depth by 1 / (d / d99 + ``floor``) with d99 the view's 99th percentile.

    The network gives disparity up to a factor *and an offset*. The factor becomes the depth's own; the offset is lost
    in the inversion (no scale and shift of depth undoes it): with a wrong one near and far are compressed against each
    other, the order of depths stays. ``floor`` bounds the far end, at 1 + 1/``floor`` times the near end. Metric
    checkpoints (``depth_estimation_type`` "metric") give depth as it is.
    """

    weights: str | None = None
    """Folder with config.json and safetensors; None: the small checkpoint (Apache-2.0) of the Hugging Face hub."""
    device: str = "cpu"
    short_side: int = 518
    """Of the network's input, in pixels: the resolution it was trained at."""
    floor: float = 0.05

    @property
    def ambiguity(self) -> Ambiguity:
        """Scale and shift, the weakest there is: the true ambiguity is an offset of disparity."""
        return "scale+shift"

    @cached_property
    def _folder(self) -> Path:
        return weights_folder(
            "depth-anything-v2-small", self.weights, "depth-anything/Depth-Anything-V2-Small-hf", download=True,
            instead=WITHOUT,
        )  # fmt: skip

    @cached_property
    def _model(self) -> Any:
        return load_pretrained("DepthAnythingForDepthEstimation", self._folder, device=self.device)

    @cached_property
    def _hash(self) -> str:
        return weights_hash(self._folder)

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        settings = {"short_side": self.short_side, "floor": self.floor}
        return {"name": "depth-anything-v2", "version": 1, "weights_sha256": self._hash, **settings}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing but the image."""
        return []

    @torch.inference_mode()
    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth at the network's resolution (``short_side`` on the short side)."""
        scale = self.short_side / min(image.shape[:2])
        height, width = (max(1, round(side * scale / _PATCH)) * _PATCH for side in image.shape[:2])
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        pixels = to_tensor(resized, mean=_MEAN, std=_STD).to(self.device)
        predicted = self._model(pixel_values=pixels).predicted_depth[0].float().cpu().numpy()
        if self._model.config.depth_estimation_type == "metric":
            return DepthMap.from_values(predicted)
        return DepthMap.from_values(depth_from_disparity(predicted, floor=self.floor))


def depth_from_disparity(disparity: Float[np.ndarray, "h w"], *, floor: float) -> Float[np.ndarray, "h w"]:
    """1 / (d / d99 + ``floor``) of disparity d >= 0; 0 (invalid) everywhere where nothing has disparity."""
    highest = float(np.percentile(disparity, 99))
    if not highest > 0:
        return np.zeros_like(disparity)
    return 1 / (disparity.clip(0) / highest + floor)
