"""TartanAir V1: rendered trajectories with exact depth and poses.

Cameras have NED axes (x forward, y right, z down); depth is z in metres. Every image is 640 x 480 with a field of view
of 90 degrees: the principal point (320, 240) is the image's middle, so it is in corner convention.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.data.lenses import pinhole, scaled_K
from reliev3r.data.readers._depth import SKY, known, read_npy
from reliev3r.data.readers._layout import Layout, files_in, pose_rows, same_count
from reliev3r.data.readers._scene import NED_FROM_OPENCV, Shot, scene_of
from reliev3r.data.truth import Scene

_K, _SIZE = pinhole(320, 320, 320, 240), (640, 480)

# downloads unpack to ENV/ENV/Easy/P000, and people move the folders up
_LAYOUT = Layout(is_scene=lambda folder: (folder / "pose_left.txt").is_file(), depth=4)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """The left camera of one trajectory; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    images = files_in(folder / "image_left", "*_left.png")
    return ned_scene(
        name,
        folder,
        images,
        folder / "pose_left.txt",
        depth_folder=folder / "depth_left",
        suffix="_depth.npy",
        read=read_npy,
        calibration=(_K, _SIZE),
        views=views,
    )


def ned_scene(
    name: str,
    folder: Path,
    images: list[Path],
    pose_file: Path,
    *,
    depth_folder: Path,
    suffix: str,
    read: Callable[[Path], Float[np.ndarray, "h w"]],
    calibration: tuple[Float[np.ndarray, "3 3"], tuple[int, int]],
    views: int | None,
) -> Scene:
    """A trajectory of either version: a pose (x y z qx qy qz qw, NED axes) for each image.

    ``read`` reads the map that lies in ``depth_folder``, if there is one, and is named as the image with ``suffix``.

    Raises:
        UserError: as many poses as images there are not, or any of them is damaged.
    """
    poses = pose_rows(pose_file, first=0)
    same_count(images, poses, pose_file)
    K, size = scaled_K(*calibration, images[0])

    has_depth = depth_folder.is_dir()

    def depth(file: Path) -> np.ndarray:
        return known(read(file), file, size=size, below=SKY)

    shots = [
        Shot(
            name=image.stem,
            image=image,
            K=K,
            world_from_cam=pose @ NED_FROM_OPENCV,
            depth=functools.partial(depth, depth_folder / f"{image.stem}{suffix}") if has_depth else None,
            stored_size=size,
        )
        for image, pose in zip(images, poses)
    ]
    return scene_of(
        name,
        folder,
        shots,
        views=views,
        metric=True,
        ordered=True,
        K_source="TartanAir's fixed camera",
        caveats=(f"depth of {SKY:g} m and more is sky and counts as unknown" if has_depth else "no depth downloaded",),
    )
