"""SuperPoint (DeTone et al. 2018) and LightGlue (Lindenberger et al. 2023) through transformers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from reliev3r.labels.tracks.matcher import Features, IndexMatches, TransformersMatcher


@dataclass(frozen=True, kw_only=True)
class SuperPointLightGlueMatcher(TransformersMatcher):
    """Each image is detected once; LightGlue then sees the stored keypoints of a pair."""

    name: ClassVar[str] = "superpoint-lightglue"
    grey: ClassVar[bool] = False
    model_id: ClassVar[str] = "ETH-CVG/lightglue_superpoint"
    model_class: ClassVar[str] = "LightGlueForKeypointMatching"
    processor: ClassVar[tuple[str, str]] = (
        "transformers.models.superpoint.image_processing_pil_superpoint",
        "SuperPointImageProcessorPil",
    )

    features: int = 2048
    """Keypoints an image, the strongest."""
    confidence: float = 0.1
    """Least score of a match."""

    @cached_property
    def _model(self) -> Any:
        return self._load()

    @cached_property
    def _detector(self) -> Any:
        return self._model.keypoint_detector

    @cached_property
    def _processor(self) -> Any:
        return self._new_processor(do_resize=False, do_grayscale=True)

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        return {"weights_sha256": self._hash, "features": self.features, "confidence": self.confidence}

    @torch.inference_mode()
    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Features:
        """SuperPoint's keypoints."""
        height, width = (side // 8 * 8 for side in image.shape[:2])  # cells of 8 pixels; a rest is not looked at
        pixels = self._processor(image[:height, :width], return_tensors="pt")["pixel_values"].to(self.device)
        found = self._detector(pixel_values=pixels)
        strongest = found.scores[0].argsort(descending=True, stable=True)[: self.features]
        # Normalised by the size; the library's post-processing would round them to int.
        uv = (found.keypoints[0, strongest] * found.keypoints.new_tensor([width, height])).double().cpu().numpy()
        descriptor = found.descriptors[0, strongest].float().cpu().numpy()
        return Features(uv=uv + 0.5, descriptor=descriptor, size=(image.shape[1], image.shape[0]))

    @torch.inference_mode()
    def match(self, a: Features, b: Features) -> IndexMatches:
        """LightGlue's matches."""
        width, height = (max(sides) for sides in zip(a.size, b.size))
        self._model.keypoint_detector = _Stored(a, b, (width, height)).to(self.device)
        try:
            found = self._model(pixel_values=torch.zeros(1, 2, 1, height, width, device=self.device))
        finally:
            self._model.keypoint_detector = self._detector
        # [1, 2, n] or, where the checkpoint neither stops early nor prunes, [2, n]; row 0 speaks for the first image.
        second = found.matches.reshape(2, -1)[0, : len(a.uv)].cpu().numpy()
        score = found.matching_scores.reshape(2, -1)[0, : len(a.uv)].double().cpu().numpy()
        first = np.nonzero((second >= 0) & (second < len(b.uv)) & (score > self.confidence))[0]
        sure = np.ones(len(first), dtype=bool)
        return IndexMatches(first=first, second=second[first], doubt=1 - score[first], sure=sure)


class _Stored(torch.nn.Module):
    """Takes the place of LightGlue's detector and answers with keypoints that were found before."""

    def __init__(self, a: Features, b: Features, size: tuple[int, int]) -> None:
        super().__init__()
        count = max(len(a.uv), len(b.uv))
        keypoints, mask = torch.zeros(2, count, 2), torch.zeros(2, count, dtype=torch.int)
        descriptors = torch.zeros(2, count, a.descriptor.shape[1])
        for row, features in enumerate((a, b)):
            # A smaller image lies in the middle of the common size: LightGlue measures from there.
            centred = features.uv - 0.5 + (np.array(size) - features.size) / 2
            keypoints[row, : len(features.uv)] = torch.from_numpy(centred / size).float()
            descriptors[row, : len(features.uv)] = torch.from_numpy(features.descriptor)
            mask[row, : len(features.uv)] = 1
        for name, value in {"keypoints": keypoints, "descriptors": descriptors, "mask": mask}.items():
            self.register_buffer(name, value)

    def forward(self, pixel_values: Tensor) -> tuple[Any, ...]:
        """Keypoints, scores (not read), descriptors, mask, in the order of SuperPoint's output."""
        return self.keypoints, self.mask, self.descriptors, self.mask
