"""Which observations agree with cameras, and which cameras they hold in place: one standard for all who ask."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.triangulate import consistent_points, triangulate, triangulation_angles, world_rays
from reliev3r.sfm.track_graph import connected_parts

MIN_OBSERVATIONS = 12
"""A view with fewer consistent observations is not adjusted: six parameters deserve a few residuals each."""
MIN_SHARE = 1 / 3
"""Of a view's observations: some agree with any camera by chance."""
ENOUGH_LONG = 100
"""Observations of points that three views or more see: with these a view needs none that two alone see."""
_MIN_PARALLAX = math.radians(0.5)
FLOOR_ANGLE = math.radians(0.1)
"""Observations within this angle are never called outliers: about the noise of feature detectors."""
_GENEROUS = 6.0
"""Outlier threshold as a multiple of the median residual. Most tracks have two views, and their residual (half of the
epipolar distance) is 2.5 times smaller than that of a long track under the same noise; hence so generous."""
_CEILING_ANGLE = math.radians(20)
_JUDGED_TRACKS = 5000


class NotAdjusted(Exception):
    """Why there is no solution."""


def median_angle(tracks: Tracks, K: Tensor, world_from_cam: Tensor) -> float:
    """Median residual angle (radians) of the observations, false ones included; of a part of very many tracks."""
    count = tracks.weight.shape[1]
    tracks = tracks.select_tracks(torch.arange(0, count, max(1, count // _JUDGED_TRACKS)))
    rays = world_rays(tracks.to(torch.float64), K, world_from_cam)
    centres = world_from_cam[:, :3, 3]
    points = triangulate(rays, centres, tracks.weight.double())
    return triangulation_angles(points, rays, centres)[tracks.visible].median().item()


def outlier_angle(residual: float) -> float:
    """From which angle (radians) on observations are outliers, under cameras of a median ``residual``."""
    return min(max(FLOOR_ANGLE, _GENEROUS * residual), _CEILING_ANGLE)


def usable_observations(
    tracks: Tracks, K: Tensor, world_from_cam: Tensor, residual: float
) -> tuple[Tensor, Bool[Tensor, "v m"], list[list[int]]]:
    """Points, observations to adjust on, and the connected parts of the views that have enough of them."""
    points, kept = consistent_points(
        tracks, K, world_from_cam, max_angle=outlier_angle(residual), min_parallax=_MIN_PARALLAX
    )
    while True:  # leaving out a view may leave its neighbours with too little
        poor = (kept.sum(1) < MIN_OBSERVATIONS) & kept.any(1)
        if not poor.any():
            break
        kept = kept & ~poor[:, None]
        kept = kept & (kept.sum(0) >= 2)
    parts = [part for part in connected_parts(kept, min_shared=1) if len(part) > 1]
    if not parts:
        raise NotAdjusted(f"no view has {MIN_OBSERVATIONS} track observations that agree with the cameras")
    return points, kept, parts


def confirmed(tracks: Tracks) -> Tracks:
    """Without the tracks [v, m] of two views, where both views have :data:`ENOUGH_LONG` observations of longer ones.

    A match along the epipolar line agrees with any two cameras, right or wrong; a third view tells. COLMAP triangulates
    no track of two views by default. Here views that have little else keep theirs, and so do all where views would fall
    apart without.
    """
    seen = tracks.visible
    rich = seen[:, seen.sum(0) > 2].sum(1) >= ENOUGH_LONG
    doubtful = (seen.sum(0) == 2) & ((seen & rich[:, None]).sum(0) == 2)
    fewer = tracks.select_tracks((~doubtful).nonzero()[:, 0])
    return fewer if connected_parts(fewer.visible) == connected_parts(seen) else tracks


def held_views(tracks: Tracks, K: Float[Tensor, "v 3 3"], world_from_cam: Float[Tensor, "v 4 4"]) -> Bool[Tensor, " v"]:
    """Views whose cameras the tracks [v, m] hold in place: enough observations agree with one set of cameras.

    What agrees is judged against the median residual, as for adjustment, so poor cameras are no reason; a view that
    no track ties, or ties to a few others only, is one, as is one where most tracks disagree: some agree with any
    camera by chance. All ``False`` where no view has enough.
    """
    tracks = tracks.select_tracks((tracks.visible.sum(0) >= 2).nonzero()[:, 0])
    held = torch.zeros(len(K), dtype=torch.bool)
    if tracks.weight.shape[1] == 0:
        return held
    K, cameras = K.double(), world_from_cam.double()
    try:
        _, kept, _ = usable_observations(tracks, K, cameras, median_angle(tracks, K, cameras))
    except NotAdjusted:
        return held
    held[connected_parts(kept)[0]] = True
    return held & (kept.sum(1) >= (MIN_SHARE * tracks.visible.sum(1)).clamp_min(MIN_OBSERVATIONS))
