"""Label-side camera solve: pseudo cameras from tracks alone, an early teacher for the pose head. Which engine when."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

from jaxtyping import Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig
from reliev3r.sfm.incremental import solve_incrementally
from reliev3r.sfm.mapper import solve_by_mapper

logger = logging.getLogger(__name__)

FEW_VIEWS = 11
"""Up to so many our own engine solves, which few tracks and a wrong focal length do not stop; of more, COLMAP's mapper:
at 12 views it is as exact in a fifth of the time (docs/results/cameras.md)."""


def solve_cameras(
    tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig | None = None, progress: Progress | None = None
) -> CameraSolve | None:
    """Solve cameras and points of one capture from its tracks; ``None`` when no pair of views can start it.

    ``tracks`` [v, m] and ``K`` share their pixels. Views that cannot be tied have ``reached`` False. Deterministic. The
    unit is the geometric mean distance of the points from the cameras that see them. ``progress`` hears how many
    cameras are placed, where there are many.
    """
    config = config or SolveConfig()
    if len(K) > FEW_VIEWS and _has_mapper():
        return solve_by_mapper(tracks, K, config, progress)
    return solve_incrementally(tracks, K, config)


@cache
def _has_mapper() -> bool:
    """Told once a process where it is missing."""
    found = importlib.util.find_spec("pycolmap") is not None
    if not found:
        logger.warning("pycolmap is not installed: cameras of many views are solved the slow way, minutes from 50 on")
    return found
