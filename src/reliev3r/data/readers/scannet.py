"""ScanNet-style folders, as ScanNet's own exporter writes them: color/, depth/, pose/, intrinsic/.

Poses are world-from-camera in OpenCV axes, -inf where tracking was lost; depth is z in millimetres, at a resolution and
with intrinsics of its own. The calibrations are OpenCV's: pixel centres at integers.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.data.images import image_size
from reliev3r.data.lenses import pinhole
from reliev3r.data.readers._depth import known, read_png16
from reliev3r.data.readers._layout import Layout, existing, files_in
from reliev3r.data.readers._scene import Shot, read_matrix, scene_of
from reliev3r.data.truth import Scene, checked_pose

_LAYOUT = Layout(
    is_scene=lambda folder: all((folder / part).is_dir() for part in ("color", "pose", "intrinsic")), depth=2
)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One scan; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    images = [file for suffix in ("jpg", "png") for file in folder.joinpath("color").glob(f"*.{suffix}")]
    images = files_in(folder / "color", f"*{images[0].suffix}" if images else "*.jpg")
    K, size = _intrinsics(folder / "intrinsic" / "intrinsic_color.txt"), image_size(images[0], upright=False)
    depth_file = folder / "intrinsic" / "intrinsic_depth.txt"
    depth_K = _intrinsics(depth_file) if depth_file.is_file() else None
    if depth_K is not None:
        _same_camera(folder / "intrinsic")
    shots = [_shot(folder, image, K, depth_K, size) for image in images]
    caveats = ("depth is a sensor's: noisy, with holes, some metres at most",)
    return scene_of(
        name, folder, shots, views=views, metric=True, ordered=True, K_source="intrinsic_color.txt", caveats=caveats
    )


def _shot(
    folder: Path,
    image: Path,
    K: Float[np.ndarray, "3 3"],
    depth_K: Float[np.ndarray, "3 3"] | None,
    size: tuple[int, int],
) -> Shot:
    pose_file = folder / "pose" / f"{image.stem}.txt"
    depth_file = folder / "depth" / f"{image.stem}.png"
    has_depth = depth_file.parent.is_dir()
    return Shot(
        name=image.stem,
        image=image,
        K=K,
        world_from_cam=checked_pose(read_matrix(pose_file), str(pose_file)),
        depth=functools.partial(_depth, depth_file, K, depth_K, size) if has_depth else None,
        stored_size=size,
    )


def _intrinsics(file: Path) -> Float[np.ndarray, "3 3"]:
    """K in corner convention of the 4 x 4 matrix that ScanNet stores."""
    stored = read_matrix(existing(file))
    if not np.isfinite(stored).all() or stored[0, 0] <= 0 or stored[1, 1] <= 0:
        raise UserError(f"{file}: no intrinsics of a camera; restore it from the dataset")
    return pinhole(stored[0, 0], stored[1, 1], stored[0, 2] + 0.5, stored[1, 2] + 0.5)


def _same_camera(folder: Path) -> None:
    """Refuse a depth camera that is displaced against the colour camera: its maps would have to be warped."""
    for file in (folder / "extrinsic_color.txt", folder / "extrinsic_depth.txt"):
        if file.is_file() and not np.allclose(read_matrix(file), np.eye(4), atol=1e-4):
            raise UserError(f"{file}: not the identity; register depth to colour, then remove intrinsic_depth.txt")


def _depth(
    file: Path, K: Float[np.ndarray, "3 3"], depth_K: Float[np.ndarray, "3 3"] | None, size: tuple[int, int]
) -> Float[np.ndarray, "h w"]:
    """The map on a grid of its own resolution that covers the colour image (nearest neighbour)."""
    depth = known(read_png16(file) / 1000, file)
    if depth_K is None:
        return depth
    height, width = depth.shape
    u = (np.arange(width) + 0.5) * size[0] / width
    v = (np.arange(height) + 0.5) * size[1] / height
    column = (u - K[0, 2]) / K[0, 0] * depth_K[0, 0] + depth_K[0, 2] - 0.5
    row = (v - K[1, 2]) / K[1, 1] * depth_K[1, 1] + depth_K[1, 2] - 0.5
    columns, rows = np.meshgrid(column.astype(np.float32), row.astype(np.float32))
    return cv2.remap(depth, columns, rows, interpolation=cv2.INTER_NEAREST, borderValue=0)
