"""COLMAP models: cameras and images at original resolution, points triangulated from the tracks."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from reliev3r.core.files import atomic_directory
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.export.points import coloured_points
from reliev3r.geometry.triangulate import consistent_points, reprojection_errors
from reliev3r.sfm.bundle_pycolmap import build_model, shared_cameras

_log = logging.getLogger(__name__)
_DENSE_POINTS = 100_000  # start for splats where there are no tracks
_GENEROUS, _LEAST_ANGLE = 6.0, math.radians(0.1)
"""Observations beyond this many median residuals are outliers, but never within that angle: as ``sfm.bundle_pycolmap``
adjusts."""


@dataclass(frozen=True, kw_only=True)
class ColmapSummary:
    """What was written."""

    points: int
    observations: int
    mean_reprojection_px: float
    """Mean over points of the mean over their observations, in original pixels, as COLMAP defines it; 0 if none."""


def write_colmap(
    reconstruction: Reconstruction,
    tracks: Tracks | None,
    folder: Path | str,
    *,
    images: Sequence[str] | None = None,
    max_angle_deg: float = 1.0,
    min_parallax_deg: float = 0.5,
) -> ColmapSummary:
    """Write a binary COLMAP model (PINHOLE, original resolution) into ``folder``, by custom ``.../sparse/0``.

    ``tracks`` [v, m] are in original pixels. Every observation becomes a 2D point of its image; those within
    ``max_angle_deg`` of the point triangulated from their track (less where most agree far better), in front of the
    camera and with ``min_parallax_deg`` among them are linked to a 3D point. Image names are those of ``images`` (by
    default the capture's files), relative to the ``images`` folder. Without tracks, or where none is consistent, the
    points are the confident pixels' without observations.
    """
    names = [relative_to_images(file) for file in images or reconstruction.image_files]
    camera_of = shared_cameras(reconstruction.K_original, reconstruction.sizes)
    K, world_from_cam = reconstruction.K_original[camera_of], reconstruction.prediction.world_from_cam.double()
    if tracks is None:
        tracks = Tracks(uv=torch.zeros(len(names), 0, 2), weight=torch.zeros(len(names), 0))
    points, kept = _triangulated(tracks, K, world_from_cam, math.radians(max_angle_deg), math.radians(min_parallax_deg))
    colours = track_colours(reconstruction, tracks, kept)
    model = build_model(
        names, reconstruction.sizes, K, world_from_cam, tracks, points, kept, camera_of=camera_of, colours=colours
    )
    if not model.num_points3D() and reconstruction.predicts_depth:
        _add_dense_points(model, reconstruction)
    model.update_point_3d_errors()
    with atomic_directory(folder) as temporary:
        model.write(str(temporary))
    error, _ = reprojection_errors(points, tracks, K, world_from_cam)
    used = kept.any(0)
    per_point = (error * kept).sum(0)[used] / kept.sum(0)[used]
    mean = per_point.mean().item() if len(per_point) else 0.0
    return ColmapSummary(points=model.num_points3D(), observations=int(kept.sum()), mean_reprojection_px=mean)


def _triangulated(
    tracks: Tracks, K: Tensor, world_from_cam: Tensor, max_angle: float, min_parallax: float
) -> tuple[Tensor, Bool[Tensor, "v m"]]:
    """Points and the observations that agree, outliers told by how well the others do."""
    points, kept = consistent_points(tracks, K, world_from_cam, max_angle=max_angle, min_parallax=min_parallax)
    if not kept.any():
        return points, kept
    error, _ = reprojection_errors(points, tracks, K, world_from_cam)
    typical = float((error / K[:, 0, 0, None])[kept].median())
    tight = max(_LEAST_ANGLE, _GENEROUS * typical)
    if tight >= max_angle:
        return points, kept
    return consistent_points(tracks, K, world_from_cam, max_angle=tight, min_parallax=min_parallax)


def relative_to_images(file: str) -> str:
    """A frame's file as COLMAP and splatting tools name it: without the leading ``images/``."""
    return file.removeprefix("images/")


def track_colours(reconstruction: Reconstruction, tracks: Tracks, kept: Bool[Tensor, "v m"]) -> UInt8[Tensor, "m 3"]:
    """Mean colour of each track over its kept observations; black where there is none."""
    height, width = reconstruction.image.shape[1:3]
    to_map = torch.tensor([width, height]) / reconstruction.regions[:, None, 2:]
    pixels = ((tracks.uv - reconstruction.regions[:, None, :2]) * to_map).floor().long()
    column, row = pixels[..., 0].clamp(0, width - 1), pixels[..., 1].clamp(0, height - 1)
    view = torch.arange(len(column))[:, None].expand_as(column)
    colours = reconstruction.image[view, row, column].double() * kept[..., None]
    return (colours.sum(0) / kept.sum(0).clamp_min(1)[:, None]).round().to(torch.uint8)


def _add_dense_points(model: Any, reconstruction: Reconstruction) -> None:
    import pycolmap

    _log.warning("COLMAP model: no consistent tracks, so its points are confident pixels without 2D observations")
    points, colours = coloured_points(reconstruction, max_points=_DENSE_POINTS)
    for xyz, colour in zip(points.double().numpy(), colours.numpy(), strict=True):
        model.add_point3D(xyz, pycolmap.Track(), colour)
