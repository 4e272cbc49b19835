"""Views whose cameras are wrong, placed anew by the points of the others, and one more adjustment with them.

Bundle adjustment follows slopes: a view that starts 20 degrees off may end in a wrong minimum that most of its tracks
contradict. Its matches with points that other views hold say where it is, whatever the start (COLMAP's absolute pose:
P3P within LO-RANSAC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.radial import undistorted
from reliev3r.geometry.rigid import invert, rigid_from
from reliev3r.sfm.bundle_pycolmap import Bundle, adjust_bundle
from reliev3r.sfm.held_views import (
    MIN_OBSERVATIONS,
    MIN_SHARE,
    NotAdjusted,
    held_views,
    median_angle,
    outlier_angle,
    usable_observations,
)


@dataclass(frozen=True, kw_only=True)
class PlacedBundle:
    """An adjustment and what it was made on."""

    bundle: Bundle
    tracks: Tracks
    """Those of :func:`trusted` for ``seen``: of the bundle's points and ``kept``."""
    seen: Bool[Tensor, " v"]
    """Views whose observations count: all but those that were guesses and could not be placed."""
    placed: Bool[Tensor, " v"]


def trusted(tracks: Tracks, views: Bool[Tensor, " v"]) -> Tracks:
    """The tracks as ``views`` alone see them; those that fewer than two of them see are gone."""
    weight = tracks.weight * views[:, None]
    return Tracks(uv=tracks.uv, weight=weight).select_tracks(((weight > 0).sum(0) >= 2).nonzero()[:, 0])


def place_views(
    tracks: Tracks, bundle: Bundle, sizes: Sequence[tuple[int, int]], guessed: Bool[Tensor, " v"]
) -> PlacedBundle:
    """Place the views that ``bundle`` does not hold, and adjust again where that holds them.

    ``tracks`` [v, m] in original pixels; ``bundle`` was adjusted on what views other than the ``guessed`` see of them.
    Placed is what the points of held views are seen by as views are held (``sfm.held_views``: enough observations, and
    a share of all), first alone and then after adjustment; any other view stays as it was.
    """
    before = PlacedBundle(
        bundle=bundle, tracks=trusted(tracks, ~guessed), seen=~guessed, placed=torch.zeros_like(guessed)
    )
    cameras, placed = _placed(undistorted(tracks, bundle.K, bundle.radial), bundle, ~guessed)
    while placed.any():
        seen = ~guessed | placed
        own = trusted(tracks, seen)
        start = torch.where(placed[:, None, None], cameras, bundle.world_from_cam)
        try:
            adjusted = adjust_bundle(own, bundle.K, start, sizes, radial=bundle.radial, near=True)
        except NotAdjusted:
            break
        held = held_views(undistorted(own, bundle.K, bundle.radial), bundle.K, adjusted.world_from_cam)
        if held[placed].all():
            return PlacedBundle(bundle=adjusted, tracks=own, seen=seen, placed=placed)
        placed = placed & held
    return before


def _placed(
    tracks: Tracks, bundle: Bundle, seen: Bool[Tensor, " v"]
) -> tuple[Float[Tensor, "v 4 4"], Bool[Tensor, " v"]]:
    """Cameras with those of views that could be placed, and which these are; ``tracks`` of pinhole images."""
    K, cameras = bundle.K, bundle.world_from_cam.clone()
    own = trusted(tracks, seen)
    held = held_views(own, K, cameras) & seen
    placed = torch.zeros_like(held)
    if held.sum() < 2 or held.all():
        return cameras, placed
    residual = median_angle(trusted(own, held), K, cameras)
    while True:  # a view that was placed has points for others
        known = Tracks(uv=tracks.uv, weight=tracks.weight * held[:, None])
        points, kept, _ = usable_observations(known, K, cameras, residual)
        new = torch.zeros_like(held)
        for view in (~held).nonzero()[:, 0].tolist():
            both = tracks.visible[view] & kept.any(0)
            camera = _absolute_pose(tracks.uv[view, both], points[both], K[view], outlier_angle(residual))
            if camera is not None:
                cameras[view], new[view] = camera, True
        if not new.any():
            return cameras, placed
        held, placed = held | new, placed | new


def _absolute_pose(
    uv: Float[Tensor, "n 2"], points: Float[Tensor, "n 3"], K: Float[Tensor, "3 3"], max_angle: float
) -> Float[Tensor, "4 4"] | None:
    """World-from-camera of a pinhole image that sees world ``points`` at ``uv``; None where too few of them agree."""
    import pycolmap

    least = max(MIN_OBSERVATIONS, MIN_SHARE * len(uv))
    if len(uv) < least:
        return None
    width, height = (2 * K[:2, 2]).ceil().int().tolist()  # COLMAP asks for a size and does not use it
    params = [K[row, column].item() for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))]
    camera = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=params)
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error, options.ransac.random_seed = max_angle * params[0], 0
    found = pycolmap.estimate_and_refine_absolute_pose(uv.double().numpy(), points.double().numpy(), camera, options)
    if found is None or found["num_inliers"] < least:
        return None
    cam_from_world = torch.from_numpy(found["cam_from_world"].matrix())
    return invert(rigid_from(cam_from_world[:, :3], cam_from_world[:, 3]))
