"""VGGT-Omega's unified scenes: ``images/``, ``depths/*.exr``, ``image_names.json``, cameras as two arrays.

Poses are camera-from-world in OpenCV axes, K counts pixels from the corner, depth is z on the image's own pixels
(training/README.md of VGGT-Omega). Scenes of ``reliev3r export-labels`` say that they are pseudo-labels; their masks of
what is confident are applied.
"""

from __future__ import annotations

import functools
import glob
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.core.files import inside, read_json
from reliev3r.data.depth_truth.stored import StoredDepth, StoredScene
from reliev3r.data.images import image_size
from reliev3r.data.pseudo_labels import read_note
from reliev3r.data.readers._depth import known, read_exr, read_npy
from reliev3r.data.readers._layout import existing
from reliev3r.data.readers._scene import checked_pose

MASKS = "masks"
"""Where ``export-labels`` puts them; those of a dataset have any name, which its configuration knows."""


def read_scene(folder: Path) -> StoredScene:
    """The maps of the scene in ``folder``.

    Raises:
        UserError: not such a scene, or damaged files.
    """
    file = existing(folder / "image_names.json")
    images = read_json(file)
    if not isinstance(images, list) or not images:
        raise UserError(f"{file}: must list the names of the images; restore the file")
    cam_from_world = read_npy(folder / "cam_from_worlds.npy", (len(images), 3, 4)).astype(np.float64)
    intrinsics = read_npy(folder / "intrinsics.npy", (len(images), 3, 3)).astype(np.float64)
    note = read_note(folder)
    names, shift = ({}, np.zeros((3, 3))) if note is None else (note.names, note.corner_shift)
    frames = {}
    for index, image in enumerate(images):
        place = inside(folder / "images", image, f"{file}: image {index}")
        pose = checked_pose(np.vstack([cam_from_world[index], [0, 0, 0, 1]]), f"{folder}: image {image}")
        frames[names.get(place.stem, place.stem)] = StoredDepth(
            K=intrinsics[index] + shift,
            size=image_size(existing(place)),
            world_from_cam=np.linalg.inv(pose),
            read=functools.partial(_read, folder, place.stem, note is not None),
        )
    caveat = _of_dataset(folder, images[0]) if note is None else note.caveat
    return StoredScene(folder=folder, frames=frames, caveats=(caveat,))


def _of_dataset(folder: Path, image: str) -> str:
    """The caveat of a scene that is not ours. Whether its masks hold is for a configuration that is not in it."""
    own = "depth: the dataset's own, from a scene of VGGT-Omega's layout"
    masks = sorted(file.parent.name for file in folder.glob(f"*/{glob.escape(Path(image).stem)}.png"))
    masks = [name for name in masks if name not in ("images", "depths")]
    return f"{own}; also where {' and '.join(masks)} may mask it out" if masks else own


def _read(folder: Path, stem: str, masked: bool) -> Float[np.ndarray, "h w"]:
    file = folder / "depths" / f"{stem}.exr"
    depth = known(read_exr(file), file)
    if masked:
        mask = cv2.imread(str(existing(folder / MASKS / f"{stem}.png")), cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != depth.shape:
            raise UserError(f"{folder / MASKS / stem}.png: not a readable mask of the size of {file}")
        depth[mask == 0] = 0
    return depth
