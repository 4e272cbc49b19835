"""EfficientLoFTR (Wang et al. 2024) through transformers: semi-dense matches without keypoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from reliev3r.labels.tracks.matcher import PointMatches, TransformersMatcher


@dataclass(frozen=True, kw_only=True)
class EfficientLoftrMatcher(TransformersMatcher):
    """Both images are brought to one size (that of the first, rounded to multiples of 32)."""

    name: ClassVar[str] = "efficientloftr"
    model_id: ClassVar[str] = "zju-community/efficientloftr"
    model_class: ClassVar[str] = "EfficientLoFTRForKeypointMatching"
    processor: ClassVar[tuple[str, str]] = (
        "transformers.models.efficientloftr.image_processing_pil_efficientloftr",
        "EfficientLoFTRImageProcessorPil",
    )

    confidence: float = 0.2
    """Least score of a match."""
    cell: float = 2.0
    """Points of an image within a cell of this many working pixels are one keypoint."""

    @cached_property
    def _model(self) -> Any:
        model = self._load()
        if hasattr(model, "_get_matches_from_scores"):
            model._get_matches_from_scores = _in_rows(model._get_matches_from_scores)
        return model

    @cached_property
    def _processor(self) -> Any:
        return self._new_processor()

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        return {"weights_sha256": self._hash, "confidence": self.confidence, "cell": self.cell}

    @torch.inference_mode()
    def match_images(self, first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h2 w2 3"]) -> PointMatches:
        """The network's mutual matches above the least score."""
        height, width = (max(32, round(side / 32) * 32) for side in first.shape[:2])
        size = {"height": height, "width": width}
        pixels = self._processor([first, second], size=size, return_tensors="pt")["pixel_values"].to(self.device)
        found = self._model(pixel_values=pixels)
        confidence = found.matching_scores[0].amin(0).double().cpu().numpy()
        keep = (found.matches[0].cpu().numpy() >= 0).all(0) & (confidence > self.confidence)
        uv = [
            _pixels(found.keypoints[0, side].double().cpu().numpy()[keep], image.shape, size)
            for side, image in enumerate((first, second))
        ]
        return PointMatches(first=uv[0], second=uv[1], confidence=confidence[keep].clip(0, 1))


def _pixels(
    normalised: Float[np.ndarray, "n 2"], shape: tuple[int, ...], size: dict[str, int]
) -> Float[np.ndarray, "n 2"]:
    """Pixels of an image (corner convention) from shares of the network's input, whose pixel centres are integers."""
    grid = np.array([size["width"], size["height"]])
    image = np.array([shape[1], shape[0]])
    return ((normalised * grid + 0.5) / grid * image).clip(0, image)  # may lie slightly outside


def _in_rows(
    original: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Row k of both images belongs to one match: that of the first image's cell k.

    transformers (5.23 and before) gives for the first image in row k the partner of the second's cell k, and for the
    second image the partner of the first's cell k, and goes on as if row k were a match: a shift comes out doubled.
    """

    def aligned(scores: Tensor) -> tuple[Tensor, Tensor]:
        indices, confidence = original(scores)
        cells = torch.arange(indices.shape[-1], device=indices.device)
        partner = indices[:, 1]
        cells = torch.where(partner >= 0, cells, torch.full_like(cells, -1))
        return torch.stack([cells, partner], dim=1), torch.stack([confidence[:, 1]] * 2, dim=1)

    return aligned
