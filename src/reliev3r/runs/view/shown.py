"""What the viewer shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.export.lens import straightened_capture
from reliev3r.runs.view.glb import Glb


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A scene: the same maps under one or several sets of cameras, and the labels that belong to it."""

    title: str
    versions: Mapping[str, Reconstruction] = field(default_factory=dict)
    """By what they are called, the one to begin with first; all views have a camera."""
    tracks: Tracks | None = None
    """[v, m] in original pixels."""
    heldout: Tracks | None = None
    """The same that training did not see."""
    label_depth: Float[np.ndarray, "v h w"] | None = None
    """The expert's on the grid of the maps, 0 where unknown."""
    known: Bool[np.ndarray, "v h w"] | None = None
    """Pixels that have a depth; None: all."""
    photograph: Callable[[Reconstruction, int], np.ndarray] | None = None
    """The original image of one of the versions' views as RGB, without the lens that refinement found there."""
    glb: Glb | None = None
    """A file instead of all that."""


def originals(capture: Capture) -> Callable[[Reconstruction, int], np.ndarray]:
    """``Shown.photograph`` where all views of the capture are shown."""
    return lambda version, view: straightened_capture(capture, version).image(view)
