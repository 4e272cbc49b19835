"""A COLMAP model and its images. COLMAP's axes and pixel corners are ours; only its poses point the other way."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError, first_line
from reliev3r.core.files import inside
from reliev3r.data.image_folder import natural
from reliev3r.data.known_cameras import MODELS
from reliev3r.data.lenses import Rectification
from reliev3r.data.readers._colmap_files import check_model_files
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers._scene import Shot, frame_names, scene_of
from reliev3r.data.truth import NO_DEPTH, Scene, checked_pose

CAVEATS = ("the true poses are COLMAP's (structure from motion), their scale is arbitrary", NO_DEPTH)

_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
_FAR = -1e6
"""Where a ray that the lens model cannot image lies: outside of every image."""


_LAYOUT = Layout(is_scene=lambda folder: find_model(folder) is not None)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; lenses with distortion are rectified."""
    folder = _LAYOUT.folder(root, name)
    images = folder / "images" if (folder / "images").is_dir() else folder
    model_folder = find_model(folder)
    assert model_folder is not None  # it is a scene
    shots = shots_of(model_folder, images)
    return scene_of(
        name, folder, shots, views=views, metric=False, ordered=False, K_source="the COLMAP model", caveats=CAVEATS
    )


def shots_of(model_folder: Path, images: Path) -> list[Shot]:
    """The images of a model that have a pose, in the natural order of their names, which lie below ``images``.

    Raises:
        UserError: missing or damaged files of the model, a name that leads elsewhere.
    """
    model = read_model(model_folder)
    posed = [image for image in model.images.values() if image.has_pose]
    posed.sort(key=lambda image: [natural(part) for part in image.name.split("/")])
    rectified = functools.cache(lambda camera_id: rectification_of(model.cameras[camera_id]))
    shots = []
    for image, shot_name in zip(posed, frame_names([image.name for image in posed], model_folder), strict=True):
        camera = model.cameras[image.camera_id]
        shots.append(
            Shot(
                name=shot_name,
                image=inside(images, image.name, str(model_folder)),
                K=np.array(camera.calibration_matrix(), np.float64),
                world_from_cam=pose_of(image, f"{model_folder}: image {image.name}"),
                stored_size=(camera.width, camera.height),
                rectification=rectified(image.camera_id),
            )
        )  # fmt: skip
    return shots


def find_model(folder: Path) -> Path | None:
    """The folder of the model of a scene, or None."""
    kinds = (".bin", ".txt")
    return next(
        (
            folder / place
            for place in MODELS
            if any(
                all((folder / place / f"{part}{kind}").is_file() for part in ("cameras", "images")) for kind in kinds
            )
        ),
        None,
    )


def read_model(folder: Path) -> Any:
    """The ``pycolmap.Reconstruction`` in a folder.

    Raises:
        UserError: missing or damaged files.
    """
    import pycolmap

    if not any((folder / f"points3D{kind}").is_file() for kind in (".bin", ".txt")):
        raise UserError(f"{folder}: has no points3D.bin or points3D.txt; restore it (an empty .txt will do)")
    check_model_files(folder)
    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # pycolmap raises what its C++ does
        raise UserError(f"{folder}: not a readable COLMAP model ({first_line(error)}); restore it") from error


def pose_of(image: Any, where: str) -> Float[np.ndarray, "4 4"]:
    """world_from_cam, float64, of an image of a model."""
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().inverse().matrix()
    return checked_pose(pose, where)


def rectification_of(camera: Any) -> Rectification | None:
    """To the pinhole image with the camera's focal lengths, centre and size; None where it is one already."""
    if camera.model.name in _PINHOLES:
        return None
    lens = {"model": camera.model.name, "params": [float(p) for p in camera.params]}
    return Rectification(
        width=camera.width, height=camera.height, lens=lens, stored_uv=lambda: _stored_uv(camera)
    )  # fmt: skip


def _stored_uv(camera: Any) -> Float[np.ndarray, "h w 2"]:
    """Row by row: all rays of a photograph at once would take more memory than the photograph by far."""
    K = camera.calibration_matrix()
    x = (np.arange(camera.width) + 0.5 - K[0, 2]) / K[0, 0]
    uv = np.empty((camera.height, camera.width, 2), np.float32)
    for v in range(camera.height):
        y = np.full_like(x, (v + 0.5 - K[1, 2]) / K[1, 1])
        uv[v] = camera.img_from_cam(np.stack([x, y, np.ones_like(x)], axis=-1))
    return np.nan_to_num(uv, nan=_FAR, posinf=_FAR, neginf=_FAR)
