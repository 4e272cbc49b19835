"""7-Scenes: sequences of a Kinect (first version), poses by KinectFusion.

Poses are world-from-camera in OpenCV axes, depth is z in millimetres (0 and 65535 unknown). The authors give a focal
length of 585 pixels and the middle of the image, (320, 240), as the principal point: corner convention.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from reliev3r.data.lenses import pinhole, scaled_K
from reliev3r.data.readers._depth import known, read_png16
from reliev3r.data.readers._layout import Layout, files_in
from reliev3r.data.readers._scene import Shot, read_matrix, scene_of
from reliev3r.data.truth import Scene, checked_pose

_K, _SIZE = pinhole(585, 585, 320, 240), (640, 480)
_UNKNOWN = 65535

_LAYOUT = Layout(is_scene=lambda folder: (folder / "frame-000000.color.png").is_file(), depth=2)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One sequence; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    images = files_in(folder, "frame-*.color.png")
    K, size = scaled_K(_K, _SIZE, images[0])
    caveats = (
        "depth is that of the infrared camera and not registered to the colour image (some centimetres beside it)",
        "one approximate calibration for colour and depth; poses by KinectFusion",
    )
    return scene_of(
        name,
        folder,
        [_shot(image, K, size) for image in images],
        views=views,
        metric=True,
        ordered=True,
        K_source="7-Scenes' nominal calibration",
        caveats=caveats,
    )


def _shot(image: Path, K: np.ndarray, size: tuple[int, int]) -> Shot:
    frame = image.name.removesuffix(".color.png")
    pose_file = image.with_name(f"{frame}.pose.txt")
    return Shot(
        name=frame,
        image=image,
        K=K,
        world_from_cam=checked_pose(read_matrix(pose_file), str(pose_file)),
        depth=functools.partial(_depth, image.with_name(f"{frame}.depth.png"), size),
        stored_size=size,
    )


def _depth(file: Path, size: tuple[int, int]) -> np.ndarray:
    stored = read_png16(file)
    return known(np.where(stored == _UNKNOWN, 0, stored) / 1000, file, size=size)
