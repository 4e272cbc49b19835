"""Aria Synthetic Environments (public release): walks through rendered rooms, seen by Project Aria's fisheye camera.

Images lie on their side, and depth is the length of the ray in millimetres (0 and 65535 unknown). Both are resampled to
one upright pinhole camera; z is made of the lengths there. ``trajectory.csv`` holds world-from-device; the camera's
place on the device and its lens are the same in all scenes.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.data.images import image_size
from reliev3r.data.lenses import Rectification, turned_fisheye_rectification
from reliev3r.data.readers._depth import known, read_png16, z_of_range
from reliev3r.data.readers._layout import Layout, files_in, pose_rows, same_count
from reliev3r.data.readers._scene import Shot, pose_from_quaternion, scene_of
from reliev3r.data.truth import Scene

_SIZE = 704
_LENS = (
    *(297.6375381033778, 357.6599197217746, 349.1922497127481),
    *(0.3650890375644368, -0.1738082418112771, -0.7534945484033189),
    *(2.434788882752295, -2.57786220300886, 0.8788483538598834),
    *(0.0008005198595407136, -0.000294237814554143, 0.0, 0.0, 0.0, 0.0),
)
"""FISHEYE624 in pixels of 704 x 704 images, centres at integers: the constants of ``get_ase_rgb_calibration`` in
facebookresearch/projectaria_tools."""
_DEVICE_FROM_CAMERA = pose_from_quaternion(
    (0.32640934382849085, 0.029274992008313648, 0.033361059956531547, 0.9441858687689326),
    (-0.007530096566173914, -0.01090854984158026, -0.003598063315542823),
)
"""From the same place, which calls it ``T_Camera_Device`` and hands it on as device-from-camera."""
_STORED_FROM_UPRIGHT = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64)
"""Upright, x points along -y of the stored image, y along its x."""
_FOCAL = 320.0
"""Of the pinhole, in pixels of 704: its corners lie within the 1 radian for which the lens is calibrated."""
_UNKNOWN = 65535

_LAYOUT = Layout(is_scene=lambda folder: (folder / "trajectory.csv").is_file() and (folder / "rgb").is_dir(), depth=2)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One walk; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    images = files_in(folder / "rgb", "vignette*.jpg")
    size = image_size(images[0], upright=False)
    if size[0] != size[1]:
        raise UserError(f"{images[0]}: is {size[0]}x{size[1]}, not square as ASE's images; restore the dataset's own")
    rectification, K = turned_fisheye_rectification(_LENS, size[0], _SIZE, _FOCAL)
    trajectory = folder / "trajectory.csv"
    devices = pose_rows(trajectory, first=3, separator=",", skip=1)
    same_count(images, devices, trajectory)
    has_depth = (folder / "depth").is_dir()
    shots = []
    for image, world_from_device in zip(images, devices):
        file = folder / "depth" / f"depth{image.stem.removeprefix('vignette')}.png"
        shots.append(
            Shot(
                name=image.stem,
                image=image,
                K=K,
                world_from_cam=world_from_device @ _DEVICE_FROM_CAMERA @ _STORED_FROM_UPRIGHT,
                depth=functools.partial(_depth, file, size, rectification, K) if has_depth else None,
                stored_size=size,
                rectification=rectification,
            )
        )
    caveats = ("images and depth are resampled from a fisheye lens to a pinhole of 95 degrees",)
    return scene_of(
        name,
        folder,
        shots,
        views=views,
        metric=True,
        ordered=True,
        K_source="ASE's calibration",
        caveats=caveats if has_depth else (*caveats, "no depth (ASE's test split has none)"),
    )


def _depth(
    file: Path, size: tuple[int, int], rectification: Rectification, K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "h w"]:
    stored = read_png16(file)
    distance = known(np.where(stored == _UNKNOWN, 0, stored) / 1000, file, size=size)
    return z_of_range(rectification.values(distance), K)
