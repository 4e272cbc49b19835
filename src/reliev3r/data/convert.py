"""Any scene as a capture folder of our own, which every verb takes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image

from reliev3r.core.cameras_json import CAMERAS_JSON, PosedEntry, write_frames
from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_directory, link_or_copy
from reliev3r.core.progress import Progress
from reliev3r.data.images import is_turned
from reliev3r.data.masks import MASKS, read_mask
from reliev3r.data.truth import Scene, TruthSource

logger = logging.getLogger(__name__)

FURTHEST = 65.535
"""Metres that a 16-bit PNG of millimetres can hold."""
_FAR = 40.0  # where the far end of a scene of unknown unit is put: what lies further still has room


def convert_scene(scene: Scene, out: Path, *, truth: bool = True, progress: Progress | None = None) -> Path:
    """Write ``out``/{images/, cameras.json, depth/, masks/}; images and masks are hard links, images
    are written anew as PNG where they are rectified or turned. Masks of rectified images are left out, and told.

    ``cameras.json`` keeps K, the order in time and, of rectified images, the lenses that they were taken through.
    Depth beyond 65.5 m is unknown in the copy. A scene whose unit is unknown is scaled, poses and depth alike, so that
    its depth fits; ``cameras.json`` then says ``"metric": false`` and by which ``"scale"``. Without ``truth`` neither
    poses nor depth are written.

    Raises:
        UserError: ``out`` is not empty, or a file of the scene cannot be read; nothing is left behind then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an empty folder; choose another or remove it")
    source = scene.truth if truth else None
    with atomic_directory(out) as folder:
        (folder / "images").mkdir()
        scale = 1.0 if source is None else _scale(source, scene.capture.names)
        frames, cut = [], 0
        for index, frame in enumerate(scene.capture.frames):
            if progress:
                progress(index, len(scene.capture.frames), frame.name)
            image, pose, depth_file = _write_image(scene, index, folder), None, None
            if frame.mask is not None and frame.rectification is None:
                read_mask(frame.mask, (frame.width, frame.height))
                (folder / MASKS).mkdir(exist_ok=True)
                link_or_copy(frame.mask, folder / MASKS / f"{frame.name}.png")
            if source is not None:
                pose = source.camera(frame.name).world_from_cam.numpy().copy()
                pose[:3, 3] *= scale
                depth = source.depth(frame.name)
                if depth is not None:
                    depth_file = f"depth/{frame.name}.png"
                    cut += _write_depth(depth * scale, folder / depth_file)
            frames.append(
                PosedEntry(
                    name=frame.name, image=image, width=frame.width, height=frame.height, K=frame.K,
                    world_from_cam=pose, depth=depth_file,
                )
            )  # fmt: skip
        unit: dict[str, Any] = {} if source is None else {"metric": source.metric, "scale": scale}
        write_frames(
            folder / CAMERAS_JSON, frames, source=scene.name, caveats=list(scene.caveats), **unit, **_about(scene)
        )  # fmt: skip
    if masked := sum(frame.mask is not None and frame.rectification is not None for frame in scene.capture.frames):
        logger.warning("%s: %d masks are not in the copy: their images were rectified; draw them anew", out, masked)
    if cut:
        logger.warning("%s: %d depth values beyond %.1f m are unknown in the copy", out, cut, FURTHEST)
    if progress:
        progress(len(scene.capture.frames), len(scene.capture.frames), "")
    return out


def _about(scene: Scene) -> dict[str, Any]:
    """What is said about all frames together, truth apart."""
    lenses = [frame.rectification.lens for frame in scene.capture.frames if frame.rectification is not None]
    told: dict[str, Any] = {"ordered": True} if scene.capture.ordered else {}
    if lenses:
        told["rectified_from"] = [lens for index, lens in enumerate(lenses) if lens not in lenses[:index]]
    return told


def _scale(source: TruthSource, names: tuple[str, ...]) -> float:
    """1 where lengths are metres or there is no depth, else what puts the far end of the scene at ``_FAR``."""
    if source.metric:
        return 1.0
    maps = (source.depth(name) for name in names)
    ends = [float(np.quantile(depth[depth > 0], 0.99)) for depth in maps if depth is not None and (depth > 0).any()]
    return _FAR / max(ends) if ends else 1.0


def _write_image(scene: Scene, index: int, folder: Path) -> str:
    frame = scene.capture.frames[index]
    if frame.rectification is None and not (frame.as_stored and is_turned(frame.path)):  # a copy keeps its EXIF
        file = f"images/{frame.name}{frame.path.suffix.lower()}"
        link_or_copy(frame.path, folder / file)
    else:
        file = f"images/{frame.name}.png"
        Image.fromarray(scene.capture.image(index)).save(folder / file, compress_level=1)  # a quarter of the time
    return file


def _write_depth(depth: Float[np.ndarray, "h w"], file: Path) -> int:
    """Write metres as 16-bit millimetres; how many values were too large."""
    fits = depth < FURTHEST
    file.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(file), np.where(fits, np.rint(depth * 1000), 0).astype(np.uint16))
    return int((~fits).sum())
