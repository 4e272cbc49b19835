"""Depth Pro (Bochkovskii et al. 2024) through transformers: the paper's main depth expert."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional

from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.expert_weights import WITHOUT, load_pretrained, to_tensor, weights_folder, weights_hash

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class DepthPro:
    """Metric depth, of which only the shape is trusted (as in the paper): one factor per view is left open.

    The library's image processor needs torchvision; its steps are done here: normalisation by mean and deviation 0.5,
    then bilinear resizing to the square input (1536 pixels for the published checkpoint).
    """

    weights: str | None = None
    """Folder with config.json and safetensors; None: apple/DepthPro-hf of the Hugging Face hub (Apple's licence)."""
    device: str = "cpu"
    ambiguity: Ambiguity = "scale"

    @cached_property
    def _folder(self) -> Path:
        return weights_folder("depth-pro", self.weights, "apple/DepthPro-hf", download=True, instead=WITHOUT)

    @cached_property
    def _model(self) -> Any:
        return load_pretrained("DepthProForDepthEstimation", self._folder, device=self.device)

    @cached_property
    def _hash(self) -> str:
        return weights_hash(self._folder)

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash."""
        return {"name": "depth-pro", "version": 2, "weights_sha256": self._hash}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing but the image."""
        return []

    @torch.inference_mode()
    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth in metres at the image's resolution (at most the network's), and the horizontal field of view."""
        config = self._model.config
        side = round(config.patch_size / min(config.scaled_images_ratios))
        pixels = to_tensor(image, mean=_HALF, std=_HALF).to(self.device)
        pixels = functional.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        output = self._model(pixel_values=pixels)
        # predicted_depth is the inverse depth of a camera whose focal length is its width ("canonical").
        inverse = output.predicted_depth.float()
        fov = None
        if output.field_of_view is not None:
            fov = math.radians(float(output.field_of_view[0]))
            inverse = inverse * 2 * math.tan(fov / 2)
        size = (min(image.shape[0], side), min(image.shape[1], side))
        inverse = functional.interpolate(inverse[None], size=size, mode="bilinear", align_corners=False)[0, 0]
        return DepthMap.from_values((1 / inverse.clamp(1e-4, 1e4)).cpu().numpy(), fov=fov)
