"""TartanAir V2: its own layout (left front camera), and the "WB" (wide baseline) sets prepared for map-anything.

Its own: as V1, but 640 x 640 and depth as the bytes of float32 in the four channels of a PNG. WB: poses in OpenCV axes,
K for each frame, depth (metres) in OpenEXR; K's pixel convention is not documented and taken for corners.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from reliev3r.data.images import image_size
from reliev3r.data.lenses import pinhole
from reliev3r.data.readers._depth import SKY, known, read_exr, read_npy, read_packed_png
from reliev3r.data.readers._layout import Layout, files_in
from reliev3r.data.readers._scene import Shot, scene_of
from reliev3r.data.readers.tartanair import ned_scene
from reliev3r.data.truth import Scene, checked_pose

_K, _SIZE = pinhole(320, 320, 320, 320), (640, 640)


def _is_wide_baseline(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in ("images", "depth", "camera_params", "poses"))


_LAYOUT = Layout(
    is_scene=lambda folder: (folder / "pose_lcam_front.txt").is_file() or _is_wide_baseline(folder), depth=4
)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """The left front camera of one trajectory, or one WB scene; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    if _is_wide_baseline(folder):
        return _wide_baseline(name, folder, views)
    return ned_scene(
        name,
        folder,
        files_in(folder / "image_lcam_front", "*_lcam_front.png"),
        folder / "pose_lcam_front.txt",
        depth_folder=folder / "depth_lcam_front",
        suffix="_depth.png",
        read=read_packed_png,
        calibration=(_K, _SIZE),
        views=views,
    )


def _wide_baseline(name: str, folder: Path, views: int | None) -> Scene:
    def shot(image: Path) -> Shot:
        pose_file = folder / "poses" / f"{image.stem}.npy"
        K = read_npy(folder / "camera_params" / f"{image.stem}.npy", (3, 3)).astype(np.float64)
        pose = read_npy(pose_file, (4, 4)).astype(np.float64)
        depth_file = folder / "depth" / f"{image.stem}.exr"
        return Shot(
            name=image.stem,
            image=image,
            K=K,
            world_from_cam=checked_pose(pose, str(pose_file)),
            depth=functools.partial(_exr_depth, depth_file, image),
        )

    shots = [shot(image) for image in files_in(folder / "images", "*.png")]
    return scene_of(
        name, folder, shots, views=views, metric=True, ordered=False, K_source="camera_params of TartanAirV2-WB"
    )


def _exr_depth(file: Path, image: Path) -> np.ndarray:
    return known(
        read_exr(file), file, size=image_size(image, upright=False), below=SKY
    )  # K would not fit an image of another size
