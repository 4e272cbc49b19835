"""What an expert is: a source of pseudo-labels that sees images, never ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from reliev3r.data.capture import Capture, Frame
from reliev3r.types import Ambiguity, Tracks

Progress = Callable[[int, int, str], None]
"""(done, total, what)"""


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthMap:
    """Depth of one frame, of any resolution; it covers the whole upright image."""

    depth: Float[np.ndarray, "h w"]
    """z-depth, float32; positive and finite where ``valid``."""
    valid: Bool[np.ndarray, "h w"]

    @staticmethod
    def from_values(depth: np.ndarray) -> DepthMap:
        """A map whose pixels are valid where they are positive and finite."""
        valid = np.isfinite(depth) & (depth > 0)
        return DepthMap(depth=np.where(valid, depth, 1).astype(np.float32), valid=valid)


@runtime_checkable
class DepthExpert(Protocol):
    """A monocular depth expert."""

    @property
    def ambiguity(self) -> Ambiguity:
        """What its depth leaves open."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Name, version, checkpoint hash and settings as JSON scalars: labels are remade when it changes."""
        ...

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Files beside the image that the frame's depth is made from; the frame is done again when they change.

        Raises:
            UserError: one is missing.
        """
        ...

    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth of one upright RGB image."""
        ...


@runtime_checkable
class TrackExpert(Protocol):
    """A source of sparse correspondences."""

    def fingerprint(self) -> dict[str, Any]:
        """Name, version, checkpoint hash and settings as JSON scalars: labels are remade when it changes."""
        ...

    def track(self, capture: Capture, progress: Progress | None = None) -> Tracks:
        """Tracks [v, m] over the frames of a capture, uv in pixels of the upright originals (corner convention)."""
        ...
