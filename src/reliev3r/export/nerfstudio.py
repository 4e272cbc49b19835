"""Cameras as nerfstudio's ``transforms.json``."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from reliev3r.files import write_json
from reliev3r.reconstruction import Reconstruction


def write_transforms(
    reconstruction: Reconstruction, path: Path | str, *, capture: Path | str | None = None, points: str | None = None
) -> None:
    """Write ``transforms.json``: OpenGL camera axes (x right, y up, z backward), intrinsics per frame, corner pixels.

    ``file_path`` of each frame is relative to the written file when the ``capture`` folder is given, else to that
    folder. ``points`` names a PLY beside the file, in the reconstruction's world frame, for splats to start from.
    """
    opengl_from_opencv = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    world_from_gl = reconstruction.prediction.world_from_cam.double() @ opengl_from_opencv
    K = reconstruction.K_original
    frames = []
    for i, (file, (width, height)) in enumerate(zip(reconstruction.image_files, reconstruction.sizes, strict=True)):
        located = file if capture is None else os.path.relpath(Path(capture) / file, Path(path).parent)
        frames.append(
            {
                "file_path": Path(located).as_posix(),
                "w": width,
                "h": height,
                "fl_x": K[i, 0, 0].item(),
                "fl_y": K[i, 1, 1].item(),
                "cx": K[i, 0, 2].item(),
                "cy": K[i, 1, 2].item(),
                "transform_matrix": world_from_gl[i].tolist(),
            }
        )
    ply = {} if points is None else {"ply_file_path": points}
    write_json(path, {"camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, **ply, "frames": frames})
