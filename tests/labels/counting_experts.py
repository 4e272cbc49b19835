"""Stand-ins for experts that count their calls."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reliev3r.core.types import Ambiguity, Tracks
from reliev3r.labels.expert import DepthMap


@dataclass
class CountingDepth:
    """Depth = the frame's brightness + ``value``; remembers which frames it was asked for."""

    value: float = 1.0
    ambiguity: Ambiguity = "scale"
    calls: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    fail_at: str = ""

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "counting", "value": self.value}

    def inputs(self, frame, capture) -> list[Path]:
        return [self.files[frame.name]] if frame.name in self.files else []

    def predict(self, image, frame, capture) -> DepthMap:
        if frame.name == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(frame.name)
        return DepthMap.from_values(np.full((15, 20), self.value + image.mean()))


@dataclass
class CountingTracks:
    """Two tracks over all views."""

    value: float = 1.0
    calls: int = 0
    visible: bool = True

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "counting", "value": self.value}

    def track(self, capture, progress=None) -> Tracks:
        self.calls += 1
        views = len(capture.frames)
        uv = torch.tensor([[10.0, 12.0], [30.0, 5.0]]).expand(views, 2, 2) + torch.arange(views)[:, None, None]
        return Tracks(uv=uv, weight=torch.full((views, 2), float(self.visible)))
