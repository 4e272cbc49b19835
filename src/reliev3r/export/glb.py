"""Scene for viewers: point cloud and cameras as one GLB file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from reliev3r.core.files import atomic_path
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.points import coloured_points, view_colours
from reliev3r.geometry.camera import transform
from reliev3r.geometry.rigid import invert


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
    size = _frustum_size(gltf_from_cam[:, :3, 3], points_gltf.numpy())
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


def _frustum_size(centres: np.ndarray, points: np.ndarray) -> float:
    """A length at which cameras are seen in the scene without hiding it: by their spacing, bounded by the scene's."""
    extent = float(np.linalg.norm(np.percentile(points, 90, axis=0) - np.percentile(points, 10, axis=0)))
    spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).mean())
    return float(np.clip(0.25 * spread, 0.02 * extent, 0.08 * extent)) or 1.0


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
