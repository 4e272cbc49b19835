"""SIFT (Lowe 2004) through OpenCV: the matcher that needs no weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.labels.tracks.matcher import Features, IndexMatches, match_by_ratio


@dataclass(frozen=True, kw_only=True)
class SiftMatcher:
    """RootSIFT and mutual nearest neighbours.

    Very low contrast is accepted, because what hardly shows is often what ties wide pairs together.
    """

    name: ClassVar[str] = "sift"
    grey: ClassVar[bool] = True

    features: int = 3000
    """Keypoints an image, the strongest."""
    contrast: float = 0.004
    """OpenCV's contrast threshold; a quarter of it where an image gives fewer than 500 keypoints."""
    edge: float = 15.0
    ratio: float = 0.8

    def fingerprint(self) -> dict[str, Any]:
        """Settings and the version of OpenCV."""
        return {"opencv": cv2.__version__, **dataclasses.asdict(self)}

    def detect(self, image: UInt8[np.ndarray, "h w"]) -> Features:
        """Keypoints with RootSIFT descriptors (Arandjelovic & Zisserman 2012)."""
        for contrast in (self.contrast, self.contrast / 4):
            # Precise upscaling: without it OpenCV's keypoints are a quarter of a pixel off.
            sift = cv2.SIFT.create(
                nfeatures=self.features,
                contrastThreshold=contrast,
                edgeThreshold=self.edge,
                enable_precise_upscale=True,
            )
            keypoints, descriptor = sift.detectAndCompute(image, None)
            if len(keypoints) >= 500:
                break
        uv = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2) + 0.5
        descriptor = np.zeros((0, 128), np.float32) if descriptor is None else descriptor
        return Features(uv=uv, descriptor=_root(descriptor), size=(image.shape[1], image.shape[0]))

    def match(self, a: Features, b: Features) -> IndexMatches:
        """Mutual nearest neighbours; sure where the ratio test holds."""
        return match_by_ratio(a, b, self.ratio)


def _root(descriptor: Float[np.ndarray, "n 128"]) -> Float[np.ndarray, "n 128"]:
    return np.sqrt(descriptor / np.maximum(descriptor.sum(1, keepdims=True), 1e-9))
