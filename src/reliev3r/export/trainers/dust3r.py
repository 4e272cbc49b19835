"""Processed folders of the DUSt3R family, as CUT3R's loader of DL3DV (``DL3DV_Multi``, commit 8bc15dc) reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reliev3r.export.trainers.exr import write_exr
from reliev3r.export.trainers.scene import TrainingScene, write_image, write_mask

CENTRE = 0.0
"""The family lifts pixel (column, row) as it is counted (dust3r/utils/geometry.py: depthmap_to_camera_coordinates)."""
GROUP = "scenes"
"""The loader wants scenes two folders deep."""


def write_scene(scene: TrainingScene, folder: Path, files: Sequence[str]) -> None:
    """``dense``/{rgb, depth, cam, sky_mask, outlier_mask}; confidence beside them.

    No pixel is called sky: the loader would take it for infinitely far. What is not confident is an outlier.
    """
    dense, K = folder / "dense", scene.K_with_centre(CENTRE).astype(np.float32)
    for part in ("depth", "cam"):
        (dense / part).mkdir(parents=True)
    for index, file in enumerate(files):
        write_image(dense / "rgb" / f"{file}.png", scene.images[index])
        np.save(dense / "depth" / f"{file}.npy", scene.depth[index])
        pose = scene.world_from_cam[index].astype(np.float32)
        np.savez(dense / "cam" / f"{file}.npz", intrinsic=K[index], pose=pose)
        write_mask(dense / "sky_mask" / f"{file}.png", np.zeros_like(scene.confident[index]))
        write_mask(dense / "outlier_mask" / f"{file}.png", ~scene.confident[index])
        write_exr(dense / "confidence" / f"{file}.exr", scene.confidence[index])


def write_index(root: Path, names: Sequence[str]) -> None:
    """Nothing: the loader takes all folders that it finds below its ``ROOT``."""
