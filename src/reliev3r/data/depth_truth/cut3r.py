"""Scenes as CUT3R's scripts leave them: ``rgb/``, ``depth/*.npy``, ``cam/*.npz`` (intrinsic, pose), masks.

Poses are world-from-camera in OpenCV axes; depth is z, COLMAP's dense stereo for DL3DV. As CUT3R's loader of DL3DV has
it, the sky mask and the outlier mask are taken out, and so is what lies beyond the 98th percentile of a map. Scenes of
``reliev3r export-labels`` say that they are pseudo-labels, and where they count pixels from; the folders of CUT3R's
scripts have COLMAP's K, which counts from the corner.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from reliev3r.core.arrays import ARRAY_ERRORS, read_npz
from reliev3r.core.errors import UserError
from reliev3r.data.depth_truth.stored import StoredDepth, StoredScene
from reliev3r.data.images import image_size
from reliev3r.data.pseudo_labels import read_note
from reliev3r.data.readers._depth import known, read_npy
from reliev3r.data.readers._layout import existing, files_in
from reliev3r.data.readers._scene import checked_pose, matrix

MASKS = ("sky_mask", "outlier_mask")
FURTHEST = 98
"""Percentile."""


def read_scene(folder: Path) -> StoredScene:
    """The maps below ``folder``, or ``folder``/dense.

    Raises:
        UserError: no cameras there, or damaged ones.
    """
    folder = folder if (folder / "cam").is_dir() else folder / "dense"
    note = read_note(folder.parent)
    names, shift = ({}, np.zeros((3, 3))) if note is None else (note.names, note.corner_shift)
    masks = [name for name in MASKS if (folder / name).is_dir()]
    frames = {}
    for file in files_in(folder / "cam", "*.npz"):
        camera = _camera(file)
        frames[names.get(file.stem, file.stem)] = StoredDepth(
            K=matrix(camera["intrinsic"], f"{file}: intrinsic", (3, 3)) + shift,
            size=image_size(existing(folder / "rgb" / f"{file.stem}.png")),
            world_from_cam=checked_pose(matrix(camera["pose"], f"{file}: pose"), str(file)),
            read=functools.partial(_read, folder, file.stem, masks),
        )
    without = f"{' and '.join(name for name in masks)} taken out" if masks else "no masks"
    made = "from a folder that CUT3R's scripts processed (DL3DV: COLMAP's dense stereo)"
    caveat = f"depth: {made}; {without}" if note is None else f"{note.caveat}; {without}"
    return StoredScene(folder=folder, frames=frames, caveats=(f"{caveat}, and the furthest 2 % of each map",))


def _camera(file: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(file, ("intrinsic", "pose"))
    except ARRAY_ERRORS as error:
        raise UserError(f"{file}: not a readable .npz with intrinsic and pose; process the scene again") from error


def _read(folder: Path, name: str, masks: list[str]) -> Float[np.ndarray, "h w"]:
    file = folder / "depth" / f"{name}.npy"
    depth = known(read_npy(file), file)
    for mask in masks:
        stored = cv2.imread(str(existing(folder / mask / f"{name}.png")), cv2.IMREAD_GRAYSCALE)
        if stored is None or stored.shape != depth.shape:
            raise UserError(f"{folder / mask / name}.png: not a readable mask of the size of {file}")
        depth[stored >= 127] = 0
    if (depth > 0).any():
        depth[depth > np.percentile(depth[depth > 0], FURTHEST)] = 0
    return depth
