"""Point cloud as binary PLY."""

from __future__ import annotations

from pathlib import Path

from reliev3r.export.points import coloured_points
from reliev3r.files import atomic_path
from reliev3r.reconstruction import Reconstruction


def write_ply(reconstruction: Reconstruction, path: Path | str, *, keep: float = 0.8) -> int:
    """Write the confident points (x, y, z, colour), in the reconstruction's own world frame; returns their number."""
    import trimesh

    points, colours = coloured_points(reconstruction, keep=keep)
    cloud = trimesh.PointCloud(points.numpy(), colors=colours.numpy())
    with atomic_path(path) as temporary:
        temporary.write_bytes(cloud.export(file_type="ply"))
    return len(points)
