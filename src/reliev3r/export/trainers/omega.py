"""VGGT-Omega's unified scenes (training/README.md and training/data/datasets/unified.py of commit 299be1f)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reliev3r.core.files import atomic_path, write_json
from reliev3r.export.trainers.covisibility import covisibility, ranking
from reliev3r.export.trainers.exr import write_exr
from reliev3r.export.trainers.scene import TrainingScene, write_image, write_mask

CENTRE = 0.5
"""Its loader lifts the pixels' centres at (column + 0.5, row + 0.5) (data/dataset_util.py)."""
MASKS = "masks"
"""What ``mask_path`` of its dataset is to be."""
LIST = "scenes.txt"
"""What ``sequence_list_file`` of its dataset is to be."""
_MOST_NEIGHBOURS = 256
"""Of a view in ``ranking.npy``: the file does not grow with the square of the views."""


def write_scene(scene: TrainingScene, folder: Path, files: Sequence[str]) -> None:
    """Images, depth, masks of what is confident, cameras and the ranking of neighbours; confidence beside them."""
    for index, file in enumerate(files):
        write_image(folder / "images" / f"{file}.jpg", scene.images[index])
        write_exr(folder / "depths" / f"{file}.exr", scene.depth[index])
        write_exr(folder / "confidence" / f"{file}.exr", scene.confidence[index])
        write_mask(folder / MASKS / f"{file}.png", scene.confident[index])
    write_json(folder / "image_names.json", [f"{file}.jpg" for file in files])
    cam_from_world = np.linalg.inv(scene.world_from_cam)
    np.save(folder / "cam_from_worlds.npy", cam_from_world[:, :3].astype(np.float32))
    np.save(folder / "intrinsics.npy", scene.K_with_centre(CENTRE).astype(np.float32))
    order = ranking(covisibility(scene.depth, scene.K, scene.world_from_cam))
    np.save(folder / "ranking.npy", order[:, :_MOST_NEIGHBOURS].astype(np.int64))


def write_index(root: Path, names: Sequence[str]) -> None:
    """The allowlist. Its dataset takes every line; its curation takes one that starts with "#" for a comment."""
    with atomic_path(root / LIST) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf8")
