"""XFeat (Potje et al. 2024) through kornia: the fastest learned matcher on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from reliev3r.labels.expert_weights import checkpoint_file, fill, joint_hash, read_state, require, rgb_tensor
from reliev3r.labels.tracks.aliked import INSTALL
from reliev3r.labels.tracks.matcher import Features, IndexMatches, mutual_neighbours


@dataclass(frozen=True, kw_only=True)
class XFeatMatcher:
    """XFeat's sparse keypoints and mutual nearest neighbours of high similarity, as its authors match them."""

    name: ClassVar[str] = "xfeat"
    grey: ClassVar[bool] = False

    weights: str
    """The authors' xfeat.pt, or its folder."""
    device: str = "cpu"
    features: int = 4096
    detection: float = 0.05
    similarity: float = 0.82
    """Cosine of the descriptors above which a mutual match is sure."""

    @cached_property
    def _file(self) -> Path:
        source = "github.com/verlab/accelerated_features (weights/, Apache-2.0)"
        return checkpoint_file(self.name, self.weights, ["xfeat.pt"], source)

    @cached_property
    def _version(self) -> str:
        return str(require("kornia", self.name, INSTALL).__version__)

    @cached_property
    def _hash(self) -> str:
        return joint_hash([self._file])

    @cached_property
    def _model(self) -> Any:
        model = require("kornia.feature", self.name, INSTALL).XFeat(self.features, self.detection)
        fill(model.net, read_state(self._file), self._file)
        return model.eval().to(self.device)

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash, settings and the version of kornia."""
        settings = {"features": self.features, "detection": self.detection, "similarity": self.similarity}
        return {"kornia": self._version, "weights_sha256": self._hash, **settings}

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Features:
        """Keypoints with unit descriptors."""
        (found,) = self._model.detectAndCompute(rgb_tensor(image).to(self.device))
        size = np.array([image.shape[1], image.shape[0]])
        # It works at multiples of 32 pixels and gives the corner of that pixel, scaled: half of it is missing.
        ratio = size / np.maximum(32, size // 32 * 32)
        uv = found["keypoints"].double().cpu().numpy() + 0.5 * ratio
        return Features(
            uv=uv, descriptor=found["descriptors"].float().cpu().numpy(), size=(image.shape[1], image.shape[0])
        )

    def match(self, a: Features, b: Features) -> IndexMatches:
        """Mutual nearest neighbours; sure where their similarity is high."""
        first, second, doubt = mutual_neighbours(a.descriptor, b.descriptor)
        similarity = (a.descriptor[first] * b.descriptor[second]).sum(1)
        return IndexMatches(first=first, second=second, doubt=doubt, sure=similarity > self.similarity)
