"""A GLB, ours or of any other program, on the page: its points and its surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.errors import UserError
from reliev3r.export.cloud import WholeScene, whole_scene

_PLAIN = 200
"""Grey of points without colours."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Glb:
    """What is drawn, everything in the file's own frame (y up)."""

    points: Sequence[tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]]
    """Places and colours; corners of lines too."""
    meshes: Sequence[Any]
    """``trimesh.Trimesh``, their materials included."""
    cameras: Float[np.ndarray, "v 3"]
    """Where the frusta are that `export` draws; none in a file of others."""

    @property
    def place(self) -> WholeScene:
        """From where one sees all of it."""
        seen = np.concatenate([xyz for xyz, _ in self.points] or [mesh.vertices for mesh in self.meshes])
        return whole_scene(self.cameras if len(self.cameras) else np.median(seen, axis=0)[None], seen)


def read_glb(path: Path) -> Glb:
    """The points and surfaces of a GLB; what is not finite is left out.

    Raises:
        UserError: no such file, damaged, or nothing in it that could be drawn.
    """
    import trimesh

    if not path.is_file():
        raise UserError(f"{path}: not found")
    try:
        with path.open("rb") as file:
            scene = trimesh.load_scene(file, file_type="glb")
        parts = [(name, _placed(scene, node)) for node, name in _nodes(scene)]
    except Exception as error:  # trimesh raises whatever its parsers do
        raise UserError(f"{path}: not readable as a GLB ({error})") from error
    meshes = [(name, _whole(each)) for name, each in parts if hasattr(each, "faces")]
    meshes = [(name, each) for name, each in meshes if len(each.faces)]
    points = [_points(each) for _, each in parts if not hasattr(each, "faces")]
    points = [each for each in points if len(each[0])]
    if not meshes and not points:
        raise UserError(f"{path}: holds no points and no surfaces")
    cameras = [each.vertices.mean(0) for name, each in meshes if name.startswith("camera ")]
    return Glb(points=points, meshes=[each for _, each in meshes], cameras=np.array(cameras).reshape(-1, 3))


def draw_glb(server: Any, glb: Glb) -> None:
    """Put it on the page of a viser server, with a slider for the size of its points."""
    size = glb.place.extent / 400
    for number, mesh in enumerate(glb.meshes):
        server.scene.add_mesh_trimesh(f"/meshes/{number}", mesh)
    clouds = [
        server.scene.add_point_cloud(
            f"/points/{number}", xyz.astype(np.float32), rgb, point_size=size, point_shape="circle", precision="float32"
        )
        for number, (xyz, rgb) in enumerate(glb.points)
    ]
    if not clouds:
        return
    slider = server.gui.add_slider("Point size", min=-3, max=3, step=0.1, initial_value=0)

    @slider.on_update
    def _(_event: Any) -> None:
        for cloud in clouds:
            cloud.point_size = size * 2**slider.value


def _nodes(scene: Any) -> list[tuple[str, str]]:
    return [(node, scene.graph[node][1]) for node in scene.graph.nodes_geometry]


def _placed(scene: Any, node: str) -> Any:
    pose, name = scene.graph[node]
    geometry = scene.geometry[name].copy()
    geometry.apply_transform(pose)
    return geometry


def _whole(mesh: Any) -> Any:
    """Without faces whose corners are not there or not finite."""
    corners = np.isfinite(mesh.vertices).all(1)
    there = (mesh.faces >= 0) & (mesh.faces < len(corners))
    kept = there.all(1)
    kept[kept] = corners[mesh.faces[kept]].all(1)
    if not kept.all():
        mesh.update_faces(kept)
        mesh.remove_unreferenced_vertices()
    return mesh


def _points(geometry: Any) -> tuple[np.ndarray, np.ndarray]:
    places = np.asarray(geometry.vertices, float).reshape(-1, 3)
    colours = np.asarray(getattr(geometry, "colors", None))
    if colours.ndim != 2 or len(colours) != len(places):
        colours = np.full((len(places), 3), _PLAIN, np.uint8)
    finite = np.isfinite(places).all(1)
    return places[finite], colours[finite, :3].astype(np.uint8)
