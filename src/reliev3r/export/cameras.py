"""Cameras as other programs want them: our ``cameras.json``, nerfstudio's ``transforms.json``, an upright frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.cameras_json import PosedEntry, write_frames
from reliev3r.core.files import write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.geometry.rigid import rigid_from
from reliev3r.geometry.statistics import main_part


def upright_from_world(world_from_cam: Float[Tensor, "v 4 4"]) -> Float[Tensor, "4 4"]:
    """Rigid motion into glTF's axes: x right, y up, z towards the viewer who stands behind the first camera.

    Up is the mean "up" of all cameras (people hold cameras level far more often than not), -z the first camera's
    viewing direction without its vertical part, the origin the mean camera centre without lost ones
    (``main_part``). Lengths are unchanged. Float64.
    """
    cameras = world_from_cam.double()
    up = -cameras[:, :3, 1].mean(0)
    if up.norm() < 0.1:  # cameras rolled every way: no common up
        up = -cameras[0, :3, 1]
    up = up / up.norm()
    forward = cameras[0, :3, 2]
    if torch.linalg.cross(forward, up).norm() < 0.1:  # looks straight up or down: its own up side is "ahead" then
        forward = -cameras[0, :3, 1]
    back = -(forward - (forward @ up) * up)
    back = back / back.norm()
    rotation = torch.stack([torch.linalg.cross(up, back), up, back])
    origin = torch.from_numpy(main_part(cameras[:, :3, 3].numpy())).mean(0)
    return rigid_from(rotation, -(rotation @ origin))


def write_cameras(reconstruction: Reconstruction, path: Path | str, *, images: Sequence[str] | None = None) -> None:
    """Write the predicted cameras in the format of a capture's own ``cameras.json``, and the reconstruction's meta.

    ``images`` are the frames' files relative to the written one; by default those of the capture, relative to it.
    """
    K, world_from_cam = reconstruction.K_original.numpy(), reconstruction.prediction.world_from_cam.double().numpy()
    frames = [
        PosedEntry(name=name, image=file, width=width, height=height, K=K[i], world_from_cam=world_from_cam[i])
        for i, (name, file, (width, height)) in enumerate(
            zip(reconstruction.names, images or reconstruction.image_files, reconstruction.sizes, strict=True)
        )
    ]
    write_frames(Path(path), frames, predicted=True, meta=reconstruction.meta)


def write_transforms(
    reconstruction: Reconstruction,
    path: Path | str,
    *,
    images: Sequence[str] | None = None,
    points: str | None = None,
) -> None:
    """Write ``transforms.json``: OpenGL camera axes (x right, y up, z backward), intrinsics per frame, corner pixels.

    ``images`` are the frames' files relative to the written one (``export.images`` puts them there); by default those
    of the capture, relative to it, which is right only where EXIF turns none of them. ``points`` names a PLY beside
    the file, in the reconstruction's world frame, for splats to start from.
    """
    opengl_from_opencv = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    world_from_gl = reconstruction.prediction.world_from_cam.double() @ opengl_from_opencv
    K = reconstruction.K_original
    frames = []
    for i, (file, (width, height)) in enumerate(
        zip(images or reconstruction.image_files, reconstruction.sizes, strict=True)
    ):
        frames.append(
            {
                "file_path": Path(file).as_posix(),
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
