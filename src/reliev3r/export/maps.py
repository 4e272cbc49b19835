"""Depth and confidence of each frame, as arrays for programs and pictures for people."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from reliev3r.core.files import atomic_directory, atomic_path, write_json
from reliev3r.core.reconstruction import Reconstruction

COLOUR_MAPS = {"depth": cv2.COLORMAP_TURBO, "conf": cv2.COLORMAP_VIRIDIS}
_NOTHING = 128  # grey: neither map contains it


def colour_map(
    values: np.ndarray, low: float, high: float, *, kind: str, valid: np.ndarray | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a map [h, w] on a linear scale from ``low`` to ``high`` (clipped); grey where not ``valid``."""
    known = np.isfinite(values) if valid is None else np.isfinite(values) & valid
    unit = np.where(known, (values - low) / max(high - low, 1e-12), 0.0)
    picture = cv2.applyColorMap((unit.clip(0, 1) * 255).round().astype(np.uint8), COLOUR_MAPS[kind])
    picture[~known] = _NOTHING
    return np.ascontiguousarray(picture[..., ::-1])


def depth_picture(depth: np.ndarray, near: float, far: float) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a depth map, logarithmic from ``near`` (blue) to ``far`` (red); grey where not positive."""
    known = np.isfinite(depth) & (depth > 0)
    logarithm = np.log(np.where(known, depth, 1.0))
    return colour_map(logarithm, float(np.log(near)), float(np.log(far)), kind="depth", valid=known)


def depth_scale(depth: Tensor) -> tuple[float, float]:
    """(near, far) z-depth at the ends of the colour scale: 2nd and 98th percentile over all views."""
    near, far = np.percentile(depth.numpy(), [2, 98])
    return float(near), float(far)


def data_uri(picture: UInt8[np.ndarray, "h w 3"], *, quality: int = 82) -> str:
    """A picture as a JPEG ``data:`` address."""
    ok, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def write_maps(reconstruction: Reconstruction, folder: Path | str) -> None:
    """Write ``NAME.depth.npy``, ``NAME.conf.npy`` (float32 [h, w]), a PNG of each, and ``maps.json``, into ``folder``.

    Depth is z in the reconstruction's unit, confidence lies in (0, 2). ``maps.json`` gives for each frame the part
    (left, top, width, height) of the original image that its maps cover, in pixels with (0, 0) at the corner, and K in
    pixels of the maps, and says how fine they were predicted (``upsampled_from``; absent where they are as predicted).
    A depth of 0 is unknown. The pictures share one colour scale each, its ends given there too: depth turbo on a
    logarithmic scale (blue is near), confidence viridis (yellow is sure). The folder is replaced as a whole.
    """
    prediction = reconstruction.prediction
    scales = {"depth": depth_scale(prediction.depth), "conf": (0.0, 2.0)}
    with atomic_directory(folder) as temporary:
        for i, name in enumerate(reconstruction.names):
            depth, conf = prediction.depth[i].numpy(), prediction.conf[i].numpy()
            pictures = {
                "depth": depth_picture(depth, *scales["depth"]),
                "conf": colour_map(conf, 0.0, 2.0, kind="conf"),
            }
            for kind, values in (("depth", depth), ("conf", conf)):
                target = temporary / f"{name}.{kind}.npy"
                target.parent.mkdir(parents=True, exist_ok=True)  # a frame's name may hold folders
                np.save(target, values, allow_pickle=False)
                cv2.imwrite(str(target.with_suffix(".png")), pictures[kind][..., ::-1])
        told = {
            "size": list(prediction.depth.shape[-2:]),
            **reconstruction.meta.get("maps", {}),
            "colour_scales": scales,
            "regions": dict(zip(reconstruction.names, reconstruction.regions.tolist(), strict=True)),
            "K": dict(zip(reconstruction.names, prediction.K.double().tolist(), strict=True)),
        }
        write_json(temporary / "maps.json", told)


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
