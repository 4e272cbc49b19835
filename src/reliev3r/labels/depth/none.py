"""No depth expert: training on tracks alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import DepthMap
from reliev3r.types import Ambiguity


@dataclass(frozen=True, kw_only=True)
class NoDepth:
    """Depth maps without a valid pixel."""

    ambiguity: Ambiguity = "scale"

    def fingerprint(self) -> dict[str, Any]:
        """Its name."""
        return {"name": "none"}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing."""
        return []

    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """One invalid pixel, which covers the image like any map."""
        return DepthMap.from_values(np.zeros((1, 1), np.float32))
