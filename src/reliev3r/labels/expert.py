"""What an expert is: a source of pseudo-labels that sees images, never ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from reliev3r.core.progress import Progress
from reliev3r.core.types import Ambiguity, Tracks
from reliev3r.data.capture import Capture, Frame
from reliev3r.geometry.camera import focal_from_fov, fov_from_focal


@dataclass(frozen=True, kw_only=True)
class ExpertInfo:
    """What a user must know before asking for an expert; ``reliev3r experts`` lists it."""

    name: str
    """As it is asked for, with its arguments, for instance ``moge-2[:FILE or DIR]``."""
    kind: Literal["depth", "tracks", "fov"]
    licence: str
    """Of the code and of the weights."""
    weights: str
    """What has to be there besides the code, or "none"."""
    looked_for: str
    """Where the weights are looked for."""
    install: str = ""
    """The command that installs the package, or "" where nothing is to be installed."""
    package: str = ""
    """Import name of the optional package, or ""."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthMap:
    """Depth of one frame, of any resolution; it covers the whole upright image."""

    depth: Float[np.ndarray, "h w"]
    """z-depth, float32; positive and finite where ``valid``."""
    valid: Bool[np.ndarray, "h w"]
    fov: float | None = None
    """Horizontal field of view of the upright image in radians, where the expert predicts it."""

    @staticmethod
    def from_values(depth: np.ndarray, *, fov: float | None = None) -> DepthMap:
        """A map whose pixels are valid where they are positive and finite; no lens has under 2 or over 170 degrees."""
        valid = np.isfinite(depth) & (depth > 0)
        if fov is not None and not _is_fov(fov):
            fov = None
        return DepthMap(depth=np.where(valid, depth, 1).astype(np.float32), valid=valid, fov=fov)

    def lens(self, frame: Frame) -> LensGuess | None:
        """The pinhole of the field of view."""
        return None if self.fov is None else LensGuess.of(frame, focal_from_fov(self.fov, frame.width))


def _is_fov(radians: float) -> bool:
    """No lens has under 2 or over 170 degrees."""
    return math.radians(2) < radians < math.radians(170)


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


@dataclass(frozen=True, kw_only=True)
class LensGuess:
    """What one image says about the lens it was taken through: square pixels, centred principal point."""

    focal: float
    """In pixels of the upright image."""
    k1: float = 0.0
    """Of COLMAP's SIMPLE_RADIAL: the ray (x, y, 1) is seen at (1 + k1 r^2) (x, y). 0: a pinhole."""

    @staticmethod
    def of(frame: Frame, focal: float, k1: float = 0.0) -> LensGuess | None:
        """The guess, unless no lens is like it.

        None are under 2 or over 170 degrees, nor bend a corner by a third or more: at -1/3 the image would fold.
        """
        if not (math.isfinite(focal) and focal > 0 and math.isfinite(k1)):
            return None
        corner = math.hypot(frame.width, frame.height) / 2 / focal
        possible = _is_fov(fov_from_focal(focal / frame.width)) and abs(k1) * corner**2 < 1 / 3
        return LensGuess(focal=focal, k1=k1) if possible else None


@runtime_checkable
class LensExpert(Protocol):
    """An expert in the lens of a single image."""

    def fingerprint(self) -> dict[str, Any]:
        """Name, version, checkpoint hash and settings as JSON scalars."""
        ...

    def lens(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> LensGuess | None:
        """Of one upright RGB image; None where it cannot tell."""
        ...


@dataclass(frozen=True, kw_only=True)
class LensOfDepth:
    """A depth expert, asked for its field of view alone."""

    expert: DepthExpert

    def fingerprint(self) -> dict[str, Any]:
        """The expert's."""
        return self.expert.fingerprint()

    def lens(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> LensGuess | None:
        """A pinhole; None where the expert predicts none."""
        return self.expert.predict(image, frame, capture).lens(frame)


@runtime_checkable
class TrackExpert(Protocol):
    """A source of sparse correspondences."""

    def fingerprint(self) -> dict[str, Any]:
        """Name, version, checkpoint hash and settings as JSON scalars: labels are remade when it changes."""
        ...

    def track(self, capture: Capture, progress: Progress | None = None) -> Tracks:
        """Tracks [v, m] over the frames of a capture, uv in pixels of the upright originals (corner convention)."""
        ...


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
