"""z-depth of a triangle mesh from a camera, by a z-buffer; kept in the user's cache, never beside the dataset."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path
from reliev3r.data.video import user_cache
from reliev3r.geometry.rigid import invert

NEAR = 0.02
"""Surfaces nearer than this, in the mesh's unit, are not seen."""
LONG_SIDE = 640
"""Pixels of the rendered maps; those of ScanNet++'s images carry no more than the mesh has."""
_CELLS = 1 << 22  # pixels tested at a time


def depth_of_mesh(
    mesh: Path, K: Float[np.ndarray, "3 3"], world_from_cam: Float[np.ndarray, "4 4"], size: tuple[int, int]
) -> Float[np.ndarray, "h w"]:
    """Depth in metres of a mesh file (PLY) in metres, float32, 0 where there is none, at ``LONG_SIDE`` or less.

    ``K`` is in pixels of an image of ``size`` (width, height). Made once and kept, in millimetres.

    Raises:
        UserError: the mesh is missing or unreadable.
    """
    if not mesh.is_file():
        raise UserError(f"{mesh}: not found; download the scene's mesh, true depth is rendered from it")
    scale = min(1.0, LONG_SIDE / max(size))
    width, height = round(size[0] * scale), round(size[1] * scale)
    K = np.diag([width / size[0], height / size[1], 1.0]) @ K
    stat = mesh.stat()
    key = f"{stat.st_size} {stat.st_mtime_ns} {width} {height} {K.tolist()} {world_from_cam.tolist()}"
    file = user_cache(mesh) / "depth" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.png"
    kept = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if file.is_file() else None
    if kept is None or kept.shape != (height, width) or kept.dtype != np.uint16:
        vertices, faces = _triangles(mesh, stat.st_mtime_ns)
        depth = render_depth(
            vertices, faces, torch.from_numpy(K), torch.from_numpy(np.array(world_from_cam)), (height, width)
        )
        kept = np.where(depth.numpy() < 65.5, np.rint(depth.numpy() * 1000), 0).astype(np.uint16)
        with atomic_path(file) as temporary:
            cv2.imwrite(str(temporary), kept)
    return kept.astype(np.float32) / 1000


def render_depth(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    K: Float[Tensor, "3 3"],
    world_from_cam: Float[Tensor, "4 4"],
    size: tuple[int, int],
) -> Float[Tensor, "h w"]:
    """z-depth at the pixels' centres of the nearest triangle, 0 where there is none; all float64, ``size`` (h, w).

    A triangle with corners A (columns, camera frame) meets the ray r where A b = z r, so b / z = A^-1 r: the ray hits
    inside where that is not negative, at z = 1 / its sum (Olano and Greer 1997). Nothing has to be clipped.
    """
    height, width = size
    cam_from_world = invert(world_from_cam)
    local = vertices @ cam_from_world[:3, :3].mT + cam_from_world[:3, 3]
    corners = local[faces]
    corners = corners[(corners[..., 2] > NEAR).any(-1) & ~_beside(corners, K, size)]
    low, high = _boxes(corners, K, size)
    seen = (low < high).all(-1)
    corners, low, high = corners[seen], low[seen], high[seen]
    rows = torch.stack([torch.linalg.cross(corners[:, i - 2], corners[:, i - 1]) for i in range(3)], dim=1)
    determinant = (rows[:, 0] * corners[:, 0]).sum(-1)
    solid = determinant.abs() > 1e-15  # seen edge-on: no pixel
    inverse, low, high = rows[solid] / determinant[solid, None, None], low[solid], high[solid]
    depth = torch.full((height * width,), torch.inf, dtype=vertices.dtype)
    side = (high - low).amax(-1)
    reach = 1
    while len(side) and reach < 2 * max(size):  # triangles of like extent together
        group = ((side <= reach) & (side > reach // 2)).nonzero()[:, 0]
        for part in group.split(max(1, _CELLS // reach**2)):
            _draw(depth, inverse[part], low[part], high[part], reach, K, width)
        reach *= 2
    return torch.where(depth.isfinite(), depth, 0.0).view(height, width)


def _beside(corners: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether all corners lie beyond one side of the viewing pyramid, whose planes go through the camera's centre."""
    x, y, z = corners.unbind(-1)
    u, v = K[0, 0] * x + K[0, 2] * z, K[1, 1] * y + K[1, 2] * z
    sides = (u < 0, u > size[1] * z, v < 0, v > size[0] * z)
    return torch.stack([side.all(-1) for side in sides]).any(0)


def _boxes(corners: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """First and last + 1 pixel (column, row) that a triangle can touch; the whole image where it passes the camera."""
    limit = torch.tensor([size[1], size[0]])
    z = corners[..., 2:].clamp_min(NEAR)
    uv = corners[..., :2] / z * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
    passes = (corners[..., 2] <= NEAR).any(-1, keepdim=True)
    low = torch.where(passes, 0.0, uv.amin(1) - 0.5).floor()
    high = torch.where(passes, limit.to(uv), uv.amax(1) + 0.5).ceil()
    return low.clamp_min(0).minimum(limit).long(), high.clamp_min(0).minimum(limit).long()


def _draw(depth: Tensor, inverse: Tensor, low: Tensor, high: Tensor, reach: int, K: Tensor, width: int) -> None:
    """Lower ``depth`` [h * w] to that of triangles whose boxes are at most ``reach`` pixels long."""
    step = torch.arange(reach)
    column = (low[:, 0, None] + step)[:, None, :].expand(-1, reach, reach)
    row = (low[:, 1, None] + step)[:, :, None].expand(-1, reach, reach)
    inside = (column < high[:, 0, None, None]) & (row < high[:, 1, None, None])
    x = (column + 0.5 - K[0, 2]) / K[0, 0]
    y = (row + 0.5 - K[1, 2]) / K[1, 1]
    weights = [inverse[:, i, :, None, None] for i in range(3)]
    shares = [each[:, 0] * x + each[:, 1] * y + each[:, 2] for each in weights]
    total = shares[0] + shares[1] + shares[2]
    border = -1e-9 * total.abs()  # a ray through a common edge must not slip between two triangles
    inside &= (shares[0] >= border) & (shares[1] >= border) & (shares[2] >= border) & (total > 0)
    z = 1 / total[inside]
    place = (row * width + column)[inside][z > NEAR]
    depth.scatter_reduce_(0, place, z[z > NEAR], "amin")


@functools.lru_cache(maxsize=1)  # a scene's frames come one after the other
def _triangles(mesh: Path, changed: int) -> tuple[Tensor, Tensor]:
    import trimesh

    try:
        loaded: Any = trimesh.load(mesh, process=False, force="mesh")
        vertices, faces = np.array(loaded.vertices, np.float64), np.array(loaded.faces, np.int64)
    except Exception as error:  # trimesh's loaders raise whatever they trip over
        raise UserError(f"{mesh}: not a readable triangle mesh ({error}); download it again") from error
    if not len(faces) or not np.isfinite(vertices).all():
        raise UserError(f"{mesh}: has no triangles, or corners that are not finite; download it again")
    return torch.from_numpy(vertices), torch.from_numpy(faces)
