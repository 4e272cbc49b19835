"""A *simulated* depth expert for synthetic captures: the true depth, made worse on purpose."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from reliev3r.core.errors import UserError
from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import DepthMap


@dataclass(frozen=True, kw_only=True)
class SimulatedDepth:
    """For tests and the demo only: it looks at ground truth, so every number made with it must say so."""

    seed: int = 0
    ambiguity: Ambiguity = "scale"

    def fingerprint(self) -> dict[str, Any]:
        """That it is simulated, and how."""
        from reliev3r.synthetic.experts import DepthNoise

        noise = dataclasses.asdict(DepthNoise())
        return {"name": "simulated expert (degraded ground truth)", "version": 1, "seed": self.seed, **noise}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """The true depth map of the rendered frame.

        Raises:
            UserError: the capture is not synthetic.
        """
        if not capture.synthetic:
            raise UserError(f"{capture.root}: the simulated depth expert works on synthetic captures only")
        path = capture.root / "depth" / f"{frame.name}.png"
        if not path.is_file():
            raise UserError(f"{path}: not found; render the capture again with `reliev3r synth`")
        return [path]

    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Degraded depth at the image's resolution."""
        from reliev3r.synthetic.experts import DepthNoise, simulate_depth_map

        path = self.inputs(frame, capture)[0]
        millimetres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if millimetres is None or millimetres.shape != (frame.height, frame.width):
            raise UserError(f"{path}: unreadable or of another size than its image; render the capture again")
        valid = torch.from_numpy(millimetres > 0)
        depth = torch.where(valid, torch.from_numpy(millimetres.astype(np.float32) / 1000), 1.0)
        degraded = simulate_depth_map(depth, valid, DepthNoise(), name=frame.name, seed=self.seed)
        return DepthMap.from_values(torch.where(valid, degraded, 0.0).numpy())
