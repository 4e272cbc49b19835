"""What a reconstruction looks like: its confident pixels as coloured points, and as a scene with the cameras."""

from __future__ import annotations

import colorsys
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from reliev3r.core.files import atomic_path
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.export.cameras import upright_from_world
from reliev3r.geometry.camera import transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import depth_edges
from reliev3r.geometry.statistics import main_part

_log = logging.getLogger(__name__)
_FEWEST = 100
_SMALLEST_SHARE = 0.1
"""Where the edge filter leaves less than this of the confident pixels, it fits the maps badly and is not used."""
_GRAZING = math.tan(math.radians(85))


def coloured_points(
    reconstruction: Reconstruction,
    *,
    keep: float = 0.8,
    edge_rtol: float = 0.05,
    max_points: int = 1_000_000,
) -> tuple[Float[Tensor, "n 3"], UInt8[Tensor, "n 3"]]:
    """World points of the most confident pixels with their colours; never empty.

    ``keep`` and ``edge_rtol`` are those of :func:`shown_pixels`. At most ``max_points`` are drawn, evenly at random
    with a fixed seed, in the order of the pixels.
    """
    index = shown_pixels(reconstruction.prediction, keep=keep, edge_rtol=edge_rtol)
    if len(index) > max_points:
        generator = torch.Generator().manual_seed(0)
        index = index[torch.randperm(len(index), generator=generator)[:max_points].sort().values]
    points = reconstruction.prediction.points_world
    return points.reshape(-1, 3)[index], reconstruction.image.reshape(-1, 3)[index]


def shown_pixels(prediction: Prediction, *, keep: float, edge_rtol: float = 0.05) -> Int[Tensor, " n"]:
    """The most confident pixels, as places in the flattened maps; never empty.

    ``keep`` is the share of pixels to keep, by confidence over all views together (a percentile, so that it means the
    same for every model); pixels that float between surfaces (:func:`floating_pixels` with ``edge_rtol``) are left out.
    Where this leaves next to nothing, the most confident pixels are given all the same, with a warning.
    """
    confident = _most_confident(prediction.conf, keep)
    chosen = confident & ~floating_pixels(prediction, rtol=edge_rtol)
    if int(chosen.sum()) < min(chosen.numel(), max(_FEWEST, _SMALLEST_SHARE * int(confident.sum()))):
        chosen = _most_confident(prediction.conf, max(keep, _FEWEST / chosen.numel()))
        _log.warning("almost every pixel lies at a depth edge: points are exported without the edge filter")
    return chosen.flatten().nonzero()[:, 0]


def floating_pixels(prediction: Prediction, *, rtol: float) -> Bool[Tensor, "v h w"]:
    """Pixels at a step of the depth or on a ramp across one, told from slanted surfaces at any resolution.

    Inverse depth is linear over the image of a plane, however slanted: a second difference above ``rtol`` of it is a
    step. A network's blurred step is a ramp, known by its slope: a surface seen at more than 85 degrees.
    """
    inverse = 1 / prediction.depth
    kink = torch.zeros_like(inverse, dtype=torch.bool)
    for axis in (1, 2):
        size = inverse.shape[axis] - 2
        if size > 0:
            before, here, after = (inverse.narrow(axis, start, size) for start in (0, 1, 2))
            kink.narrow(axis, 1, size).logical_or_((before + after - 2 * here).abs() > rtol * here)
    pixel_angle = 1 / float(prediction.K[:, 0, 0].mean())
    return kink | depth_edges(prediction.depth, rtol=max(rtol, 2 * pixel_angle * _GRAZING))


def _most_confident(conf: Tensor, keep: float) -> Bool[Tensor, "v h w"]:
    """Pixels at or above the confidence of the last of the best ``keep``; a constant map is kept whole."""
    count = min(conf.numel(), max(1, round(keep * conf.numel())))
    return conf >= conf.flatten().kthvalue(conf.numel() - count + 1).values


def write_ply(reconstruction: Reconstruction, path: Path | str, *, keep: float = 0.8) -> int:
    """Write the confident points (x, y, z, colour), in the reconstruction's own world frame; returns their number."""
    import trimesh

    points, colours = coloured_points(reconstruction, keep=keep)
    cloud = trimesh.PointCloud(points.numpy(), colors=colours.numpy())
    with atomic_path(path) as temporary:
        temporary.write_bytes(cloud.export(file_type="ply"))
    return len(points)


def view_colours(count: int) -> UInt8[np.ndarray, "count 3"]:
    """RGB colours that run through the hues from red to violet in the order of the views."""
    hues = np.linspace(0, 0.83, count)
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(h, 0.85, 0.9)] for h in hues], dtype=np.uint8)


def write_glb(reconstruction: Reconstruction, path: Path | str, *, keep: float = 0.8) -> int:
    """Write the confident points and one coloured frustum per camera; returns the number of points.

    glTF is y-up with the viewer looking along -z, so everything is turned by
    :func:`~reliev3r.export.cameras.upright_from_world`; its inverse is stored as ``world_from_gltf`` (16 numbers, row
    by row) in the scene's extras, so that coordinates can be taken back. The frustum of frame NAME is the mesh
    ``camera NAME``; its apex is the camera's centre.
    """
    import trimesh

    world_from_cam = reconstruction.prediction.world_from_cam.double()
    gltf_from_world = upright_from_world(world_from_cam)
    points, colours = coloured_points(reconstruction, keep=keep)
    points_gltf = transform(gltf_from_world, points.double())
    scene = trimesh.Scene(metadata={"world_from_gltf": invert(gltf_from_world).flatten().tolist()})
    scene.add_geometry(trimesh.PointCloud(points_gltf.numpy(), colors=colours.numpy()), geom_name="points")

    gltf_from_cam = (gltf_from_world @ world_from_cam).numpy()
    size = frustum_size(gltf_from_cam[:, :3, 3], points_gltf.numpy())
    corners = _corner_rays(reconstruction)
    for name, pose, rays, colour in zip(
        reconstruction.names, gltf_from_cam, corners, view_colours(len(corners)), strict=True
    ):
        frustum = _frustum(rays * size, thickness=0.02 * size)
        frustum.apply_transform(pose)
        frustum.visual = trimesh.visual.ColorVisuals(frustum, face_colors=[*colour, 255])
        scene.add_geometry(frustum, geom_name=f"camera {name}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(scene.export(file_type="glb"))
    return len(points)


def frustum_size(centres: np.ndarray, points: np.ndarray) -> float:
    """A length at which cameras are seen in the scene without hiding it: by their spacing, bounded by the scene's."""
    points = main_part(points)
    centres = main_part(centres, np.median(points, axis=0))
    extent = float(np.linalg.norm(np.percentile(points, 90, axis=0) - np.percentile(points, 10, axis=0)))
    spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).mean())
    return float(np.clip(0.25 * spread, 0.02 * extent, 0.08 * extent)) or 0.08


def pixel_size(reconstruction: Reconstruction) -> float:
    """The side of a pixel of the maps at the median depth, in the scene's unit."""
    prediction = reconstruction.prediction
    known = prediction.depth[prediction.depth.isfinite()]
    return float(known.median() / prediction.K[:, 0, 0].mean()) if len(known) else 0.0


def _corner_rays(reconstruction: Reconstruction) -> Float[np.ndarray, "v 4 3"]:
    """Rays (z = 1, OpenCV axes) through the corners of the original images, clockwise from the top left."""
    K = reconstruction.K_original.numpy()
    corners = np.array([[[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]] for w, h in reconstruction.sizes], dtype=float)
    return corners @ np.linalg.inv(K).transpose(0, 2, 1)


def _frustum(corners: Float[np.ndarray, "4 3"], *, thickness: float) -> Any:
    """Eight edges of a pyramid with its apex at the origin, as thin bars (viewers draw lines one pixel wide)."""
    import trimesh

    apex = np.zeros(3)
    ends = [(apex, corner) for corner in corners] + [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    bars = [trimesh.creation.cylinder(radius=thickness, segment=segment, sections=4) for segment in ends]
    return trimesh.util.concatenate(bars)
