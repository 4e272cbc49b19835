"""nerfstudio's ``transforms.json``: OpenGL cameras, lenses shared or per frame, optional depth maps.

Pixels have (0, 0) at the corner, as ours. The world is that of ``applied_transform`` undone, so that it is the one of
the tool that solved the cameras (COLMAP's, for DL3DV). Masks are not read, which is told.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.core.files import inside, read_json
from reliev3r.data.image_folder import natural
from reliev3r.data.images import IMAGE_SUFFIXES
from reliev3r.data.lenses import Lens, Rectification, lens_of, number
from reliev3r.data.readers._depth import known, read_npy, read_png16
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers._scene import OPENGL_FROM_OPENCV, Shot, frame_names, matrix, scene_of
from reliev3r.data.truth import Scene, checked_pose

logger = logging.getLogger(__name__)

FILE = "transforms.json"
CAVEATS = ("nerfstudio's files do not say whether lengths are metres: the scale counts as unknown",)

_LAYOUT = Layout(is_scene=lambda folder: (folder / FILE).is_file())
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; lenses with distortion are rectified."""
    folder = _LAYOUT.folder(root, name)
    shots = read_shots(folder / FILE, lambda file: _found(inside(folder, file, f"{folder / FILE}: file_path")))
    return scene_of(
        name, folder, shots, views=views, metric=False, ordered=False, K_source=FILE, caveats=CAVEATS
    )  # fmt: skip


def read_shots(
    file: Path,
    image_of: Callable[[str], Path],
    *,
    size: tuple[int, int] | None = None,
    lists: tuple[str, ...] = ("frames",),
) -> list[Shot]:
    """Every frame of a ``transforms.json``, in natural order of its image's path.

    ``image_of`` finds an image by the file's ``file_path``. ``size`` (width, height) is that of smaller copies of the
    images, to which the intrinsics are scaled. ``lists`` are the file's lists of frames.

    Raises:
        UserError: the file or a frame is malformed, the lens is unknown, two frames have one name.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise UserError(f'{file}: has no list "frames"; it is not a nerfstudio file')
    entries = [entry for key in lists for entry in content.get(key) or []]
    if any(not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str) for entry in entries):
        raise UserError(f'{file}: a frame has no "file_path"; restore the file')
    entries = [{**entry, "file_path": entry["file_path"].replace("\\", "/")} for entry in entries]  # Windows'
    shared = {key: value for key, value in content.items() if key not in lists}
    if any(entry.get("mask_path") for entry in [content, *entries]):
        logger.warning("%s: its masks (mask_path) are not read: nothing is left out of the images", file)
    undo = _undo_applied(shared, file)
    entries.sort(key=lambda entry: [natural(part) for part in entry["file_path"].split("/")])
    names = frame_names([entry["file_path"] for entry in entries], file)
    rectified = functools.cache(Lens.rectification)  # one map for all frames of a lens
    shots = []
    for name, entry in zip(names, entries, strict=True):
        where = f"{file}: frame {entry['file_path']}"
        image = image_of(entry["file_path"])
        own_angle = "camera_angle_x" in entry and "fl_x" not in entry
        common = {key: value for key, value in shared.items() if not (own_angle and key in ("fl_x", "fl_y"))}
        lens = lens_of({**common, **entry}, where, image, size)
        with np.errstate(invalid="ignore"):  # frames that were not solved may hold infinities
            pose = undo @ matrix(entry.get("transform_matrix"), where) @ OPENGL_FROM_OPENCV
        depth = None
        if entry.get("depth_file_path"):
            unit = number(shared, "depth_unit_scale_factor", str(file), 1e-3)  # nerfstudio's default: millimetres
            if unit <= 0:
                raise UserError(f"{file}: depth_unit_scale_factor must be above 0, not {unit:g}")
            depth = functools.partial(
                _depth,
                inside(file.parent, entry["depth_file_path"], where),
                unit,
                (lens.width, lens.height),
                rectified(lens),
            )
        shots.append(
            Shot(
                name=name,
                image=image,
                K=lens.K,
                world_from_cam=checked_pose(pose, where),
                depth=depth,
                stored_size=(lens.width, lens.height),
                rectification=rectified(lens),
            )
        )  # fmt: skip
    return shots


def _undo_applied(shared: dict[str, Any], file: Path) -> Float[np.ndarray, "4 4"]:
    if shared.get("applied_transform") is None:
        return np.eye(4)
    applied = matrix(shared["applied_transform"], f"{file}: applied_transform")
    if not np.isfinite(applied).all():
        raise UserError(f"{file}: applied_transform is not finite; restore the file")
    return np.linalg.inv(checked_pose(applied, f"{file}: applied_transform"))


def _found(path: Path) -> Path:
    """The path, with an image's suffix where the file leaves it out (Blender's exports do)."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    return next((p for s in sorted(IMAGE_SUFFIXES) if (p := path.with_name(path.name + s)).is_file()), path)


def _depth(
    file: Path, unit: float, stored: tuple[int, int], rectification: Rectification | None
) -> Float[np.ndarray, "h w"]:
    """z-depth of the rectified image, in the unit of the poses."""
    values = read_npy(file) if file.suffix == ".npy" else read_png16(file)
    depth = known(values.astype(np.float32) * np.float32(unit), file)
    if rectification is None:
        return depth
    if depth.shape != stored[::-1]:  # LiDAR maps are smaller than the image whose pixels the lens is known in
        depth = cv2.resize(depth, stored, interpolation=cv2.INTER_NEAREST)
    return rectification.values(depth)
