"""Everything as plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reliev3r.files import atomic_path
from reliev3r.reconstruction import Reconstruction


def write_npz(reconstruction: Reconstruction, path: Path | str) -> None:
    """Write a compressed ``.npz``, readable with ``numpy.load(path, allow_pickle=False)``; corner-convention pixels.

    depth, conf [v, h, w] float32; image [v, h, w, 3] uint8; K [v, 3, 3] in pixels of these maps; K_original and
    regions [v, 4] (left, top, width, height) in pixels of the original images; world_from_cam [v, 4, 4] (OpenCV axes);
    names, image_files [v].
    """
    prediction = reconstruction.prediction
    arrays = {
        "depth": prediction.depth.numpy(),
        "conf": prediction.conf.numpy(),
        "image": reconstruction.image.numpy(),
        "K": prediction.K.numpy(),
        "K_original": reconstruction.K_original.numpy(),
        "regions": reconstruction.regions.numpy(),
        "world_from_cam": prediction.world_from_cam.numpy(),
        "names": np.array(reconstruction.names),
        "image_files": np.array(reconstruction.image_files),
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
