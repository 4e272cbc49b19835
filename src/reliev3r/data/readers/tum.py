"""TUM RGB-D: a Kinect with poses by motion capture.

Poses are world-from-camera in OpenCV axes; depth is z, registered to the colour image, 5000 units a metre. Calibrations
are OpenCV's (pixel centres at integers), by the set that the folder's name tells: those of freiburg1 and freiburg2 have
distortion, which is taken out of images and depth alike; others get the ROS default that the authors recommend.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.core.files import inside
from reliev3r.data.lenses import Rectification, brown_rectification, pinhole, scaled_K
from reliev3r.data.readers._depth import known, read_png16
from reliev3r.data.readers._layout import Layout, pose_rows, text_rows
from reliev3r.data.readers._scene import Shot, scene_of
from reliev3r.data.truth import Scene

_SIZE = (640, 480)
_CALIBRATIONS = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), None),
}
"""(fx, fy, cx, cy) and (k1, k2, p1, p2, k3), from the dataset's page on intrinsic calibration."""
_ROS_DEFAULT = ((525.0, 525.0, 319.5, 239.5), None)
_TOLERANCE = 0.02
"""Seconds between an image and the depth map or pose that counts as its own, as the dataset's own tool has it."""
_PER_METRE = 5000

_LAYOUT = Layout(
    is_scene=lambda folder: all((folder / part).is_file() for part in ("rgb.txt", "groundtruth.txt")), depth=2
)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One sequence; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    images = _listed(folder / "rgb.txt")
    maps = _listed(folder / "depth.txt") if (folder / "depth.txt").is_file() else {}
    pose_file = folder / "groundtruth.txt"
    poses = dict(zip(_times(pose_file), pose_rows(pose_file, first=1)))
    which, K, size, rectification = _calibration(folder, next(iter(images.values())))
    map_of, pose_of = _nearest(list(images), list(maps)), _nearest(list(images), list(poses))
    shots = []
    for time, image in images.items():
        map_time, pose_time = map_of.get(time), pose_of.get(time)
        file = None if map_time is None else maps[map_time]
        shots.append(
            Shot(
                name=image.stem,
                image=image,
                K=K,
                world_from_cam=None if pose_time is None else poses[pose_time],
                depth=None if file is None else functools.partial(_depth, file, size, rectification),
                stored_size=size,
                rectification=rectification,
            )
        )
    caveats = (
        "depth is a Kinect's: noisy, with holes, some metres at most; the image and its map differ by up to 20 ms",
        "the pose is the motion capture's nearest in time, within 20 ms",
    )
    return scene_of(
        name, folder, shots, views=views, metric=True, ordered=True, K_source=f"TUM's {which}", caveats=caveats
    )


def _calibration(
    folder: Path, image: Path
) -> tuple[str, Float[np.ndarray, "3 3"], tuple[int, int], Rectification | None]:
    """(what it is, K of the pinhole image, size of the stored one, how to make the former of the latter)."""
    found = [key for key in _CALIBRATIONS if key in folder.resolve().name]
    which = found[0] if found else "ROS default calibration"
    (fx, fy, cx, cy), distortion = _CALIBRATIONS.get(which, _ROS_DEFAULT)
    K, size = scaled_K(pinhole(fx, fy, cx + 0.5, cy + 0.5), _SIZE, image)
    if distortion is None:
        return which, K, size, None
    rectification, K = brown_rectification(K, distortion, size)
    return which, K, size, rectification


def _times(file: Path) -> list[float]:
    try:
        times = [float(row[0]) for row in text_rows(file)]
    except ValueError as error:
        raise UserError(f"{file}: a line does not begin with a time in seconds; restore it") from error
    if not np.isfinite(times).all():
        raise UserError(f"{file}: a line begins with a time that is not finite; restore it")
    return times


def _listed(file: Path) -> dict[float, Path]:
    """Files by their time, in its order, from lines "time path"."""
    rows = text_rows(file)
    if not rows or any(len(row) < 2 for row in rows):
        raise UserError(f"{file}: needs lines of a time and a path; restore it from the dataset")
    times = _times(file)
    if len(set(times)) < len(times):
        raise UserError(f"{file}: two lines have the same time; restore it from the dataset")
    return dict(sorted((time, inside(file.parent, row[1], str(file))) for time, row in zip(times, rows, strict=True)))


def _nearest(times: list[float], others: list[float]) -> dict[float, float]:
    """The nearest of the other times to each, where it is within the tolerance."""
    if not others:
        return {}
    from scipy.spatial import KDTree

    gaps, indices = KDTree(np.array(others)[:, None]).query(np.array(times)[:, None])
    return {time: others[index] for time, gap, index in zip(times, gaps, indices) if gap <= _TOLERANCE}


def _depth(file: Path, size: tuple[int, int], rectification: Rectification | None) -> Float[np.ndarray, "h w"]:
    depth = known(read_png16(file) / _PER_METRE, file, size=size)
    return depth if rectification is None else rectification.values(depth)
