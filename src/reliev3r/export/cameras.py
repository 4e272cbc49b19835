"""Cameras as ``cameras.json``, the format in which captures themselves carry them."""

from __future__ import annotations

from pathlib import Path

from reliev3r.files import write_json
from reliev3r.geometry.camera import shift_pixel_convention
from reliev3r.reconstruction import Reconstruction

CONVENTION = (
    "OpenCV camera axes (x right, y down, z forward); cam_to_world 4x4, X_w = T X_c, up to one global similarity; "
    "K in pixels of the original image, pixel centres at integer coords"
)


def write_cameras(reconstruction: Reconstruction, path: Path | str) -> None:
    """Write per frame: name, image, width, height, K (original pixels, integer centres), cam_to_world."""
    K = shift_pixel_convention(reconstruction.K_original, -0.5)
    frames = [
        {
            "name": name,
            "image": file,
            "width": width,
            "height": height,
            "K": K[i].tolist(),
            "cam_to_world": reconstruction.prediction.world_from_cam[i].double().tolist(),
        }
        for i, (name, file, (width, height)) in enumerate(
            zip(reconstruction.names, reconstruction.image_files, reconstruction.sizes, strict=True)
        )
    ]
    write_json(path, {"convention": CONVENTION, "meta": reconstruction.meta, "frames": frames})
