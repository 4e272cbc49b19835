"""MapAnything's WAI scenes, as its loader of DL3DV (``DL3DVWAI``) reads them: predicted depth with a confidence.

Layout and keys follow data_processing/README.md and mapanything/datasets/wai/dl3dv.py of commit f7ebafb. The loader
asks for depth, confidence and mask under the names of MVSAnywhere and MoGe-2; those names are aliases here, and the
files are called what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reliev3r.core.files import atomic_path, write_json
from reliev3r.data.pseudo_labels import NOTICE
from reliev3r.export.trainers.covisibility import covisibility
from reliev3r.export.trainers.exr import write_exr
from reliev3r.export.trainers.scene import TrainingScene, write_image, write_mask

CENTRE = 0.0
"""MapAnything lifts pixel (column, row) as it is counted (utils/geometry.py: depthmap_to_camera_frame)."""
LISTS = "metadata"
"""What ``dataset_metadata_dir`` of the loader is to be."""
COVISIBILITY = "covisibility/v0_mvsa_based"
"""Where the loader of DL3DV looks for it, whatever it was made from."""
_MODALITIES = {
    "image": {"frame_key": "image", "format": "image"},
    "pred_depth": {"mvsanywhere": {"frame_key": "reliev3r_depth", "format": "depth"}},
    "depth_confidence": {"mvsanywhere": {"frame_key": "reliev3r_confidence", "format": "scalar"}},
    "pred_mask": {"moge2": {"frame_key": "reliev3r_mask", "format": "binary"}},
}


def write_scene(scene: TrainingScene, folder: Path, files: Sequence[str]) -> None:
    """``scene_meta.json``, images, depth, confidence, mask and the pairwise covisibility."""
    frames = []
    for index, file in enumerate(files):
        paths = {
            "image": f"images/{file}.jpg",
            "reliev3r_depth": f"reliev3r/depth/{file}.exr",
            "reliev3r_confidence": f"reliev3r/confidence/{file}.exr",
            "reliev3r_mask": f"reliev3r/mask/{file}.png",
        }
        write_image(folder / paths["image"], scene.images[index])
        write_exr(folder / paths["reliev3r_depth"], scene.depth[index])
        write_exr(folder / paths["reliev3r_confidence"], scene.confidence[index])
        write_mask(folder / paths["reliev3r_mask"], scene.depth[index] > 0)
        K = scene.K_with_centre(CENTRE)[index]
        pinhole = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
        frames.append(
            {
                "frame_name": file, "file_path": paths["image"], **paths,
                "transform_matrix": scene.world_from_cam[index].tolist(),
                **{key: float(value) for key, value in pinhole.items()},
            }
        )  # fmt: skip
    shares = covisibility(scene.depth, scene.K, scene.world_from_cam).astype("<f4")
    name = f"pairwise_covisibility--{len(files)}x{len(files)}.npy"  # the loader takes the shape from the name
    (folder / COVISIBILITY).mkdir(parents=True)
    np.save(folder / COVISIBILITY / name, shares)
    width, height = scene.size
    write_json(
        folder / "scene_meta.json",
        {
            "scene_name": scene.name, "dataset_name": "reliev3r_pseudo_labels", "version": "0.1", "notice": NOTICE,
            "shared_intrinsics": False, "camera_model": "PINHOLE", "camera_convention": "opencv",
            "w": width, "h": height, "frames": frames,
            "scene_modalities": {
                "pairwise_covisibility": {"scene_key": f"{COVISIBILITY}/{name}", "format": "mmap"}
            },
            "frame_modalities": _MODALITIES,
        },
    )  # fmt: skip


def write_index(root: Path, names: Sequence[str]) -> None:
    """The list of scenes that the loader of DL3DV looks for: its ``dataset_metadata_dir`` is ``root``/metadata."""
    with atomic_path(root / LISTS / "train" / "dl3dv_scene_list_train.npy") as temporary:
        np.save(temporary, np.array(names, dtype=np.str_), allow_pickle=False)
