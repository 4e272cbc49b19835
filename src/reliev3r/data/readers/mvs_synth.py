"""MVS-Synth: frames of a video game, with exact cameras and z-depth (EXR; the sky is infinite).

``extrinsic`` is camera-from-world for OpenCV camera axes and a left-handed world, which is mirrored here. The principal
point is the middle (width / 2, height / 2) of the image, so it is in corner convention.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.images import image_size
from reliev3r.data.lenses import pinhole
from reliev3r.data.readers._depth import known, read_exr
from reliev3r.data.readers._layout import Layout, existing, files_in
from reliev3r.data.readers._scene import REFLECTION, Shot, matrix, scene_of
from reliev3r.data.truth import Scene, checked_pose

_LAYOUT = Layout(
    is_scene=lambda folder: all((folder / part).is_dir() for part in ("images", "depths", "poses")), depth=2
)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One sequence; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    shots = [_shot(folder, image) for image in files_in(folder / "images", "*.png")]
    caveats = (
        "lengths are in the game's unit, not metres (map-anything divides by 10)",
        "the sky is infinite and counts as unknown; people and cars move",
    )
    return scene_of(
        name, folder, shots, views=views, metric=False, ordered=True, K_source="poses of MVS-Synth", caveats=caveats
    )


def _shot(folder: Path, image: Path) -> Shot:
    file = existing(folder / "poses" / f"{image.stem}.json")
    content = read_json(file)
    try:
        K = pinhole(*(float(content[key]) for key in ("f_x", "f_y", "c_x", "c_y")))
        cam_from_mirrored = matrix(content["extrinsic"], str(file))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: needs numbers f_x, f_y, c_x, c_y and extrinsic; restore it") from error
    return Shot(
        name=image.stem,
        image=image,
        K=K,
        world_from_cam=checked_pose(_inverse(cam_from_mirrored), str(file)),
        depth=functools.partial(_depth, folder / "depths" / f"{image.stem}.exr", image),
    )


def _inverse(cam_from_mirrored: np.ndarray) -> np.ndarray:
    if not np.isfinite(cam_from_mirrored).all() or abs(np.linalg.det(cam_from_mirrored)) < 1e-9:
        return np.full((4, 4), np.nan)
    return REFLECTION @ np.linalg.inv(cam_from_mirrored)


def _depth(file: Path, image: Path) -> np.ndarray:
    return known(
        read_exr(file), file, size=image_size(image, upright=False)
    )  # K would not fit an image of another size
