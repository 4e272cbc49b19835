"""MapAnything's WAI scenes: ``scene_meta.json``, pinhole images, depth of its own or by MVSAnywhere, confidence, masks.

The file is nerfstudio's with OpenCV axes (world-from-camera; MapAnything's data_processing/README.md). Its modalities
name the key under which each frame has a path. As MapAnything trains and evaluates on DL3DV, MVSAnywhere's depth counts
where its confidence is above 0.25 and MoGe-2's mask is set. Scenes of ``reliev3r export-labels`` say that they are
pseudo-labels, and where they count pixels from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.depth_truth.stored import StoredDepth, StoredScene
from reliev3r.data.images import read_image
from reliev3r.data.lenses import pinhole
from reliev3r.data.pseudo_labels import read_note
from reliev3r.data.readers._depth import known, read_exr
from reliev3r.data.readers._layout import existing
from reliev3r.data.readers._scene import checked_pose, matrix

FILE, DISTORTED = "scene_meta.json", "scene_meta_distorted.json"
CONFIDENT = 0.25
"""Of MVSAnywhere's confidence, as MapAnything's loader of DL3DV has it."""
_MEASURED, _PREDICTED = ("depth", "rendered_depth"), "pred_depth/mvsanywhere"
_CONFIDENCE, _MASK = "depth_confidence/mvsanywhere", "pred_mask/moge2"


def read_scene(folder: Path) -> StoredScene:
    """The maps of the scene whose ``scene_meta.json`` lies in ``folder``.

    Raises:
        UserError: no such file, a malformed one, a lens that is no pinhole, or no depth among its modalities.
    """
    file = existing(folder / FILE)
    content = read_json(file)
    try:
        modalities = content["frame_modalities"]
        keys = {name: _key(modalities, name) for name in (*_MEASURED, _PREDICTED, _CONFIDENCE, _MASK)}
        entries = {str(entry["frame_name"]): entry for entry in content["frames"]}
        shared = {key: value for key, value in content.items() if key != "frames"}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a WAI scene ({error} is missing); restore it") from error
    name = next((name for name in (*_MEASURED, _PREDICTED) if keys[name]), None)
    if name is None:
        raise UserError(f"{file}: has no depth; known modalities: {', '.join((*_MEASURED, _PREDICTED))}")
    masks = {mask: keys[mask] for mask in (_CONFIDENCE, _MASK)} if name == _PREDICTED else {}
    note = read_note(folder)
    shift = _crop_of(folder, shared) if note is None else note.corner_shift
    names = {} if note is None else note.names
    frames = {}
    for frame, entry in entries.items():
        where = f"{file}: frame {frame}"
        if not entry.get(keys[name]):
            continue
        camera = {**shared, **entry}
        K, size = _camera(camera, where)
        paths = {mask: _inside(folder, entry[key], where) for mask, key in masks.items() if key and entry.get(key)}
        frames[names.get(frame, frame)] = StoredDepth(
            K=K + shift,
            size=size,
            world_from_cam=checked_pose(matrix(entry.get("transform_matrix"), where), where),
            read=_reader(_inside(folder, entry[keys[name]], where), paths),
        )
    return StoredScene(folder=folder, frames=frames, caveats=(_caveat(name, masks) if note is None else note.caveat,))


def _caveat(name: str, masks: dict[str, str | None]) -> str:
    if name != _PREDICTED:
        return "depth: the dataset's own, from a WAI scene"
    limits = f"where its confidence is above {CONFIDENT}" if masks[_CONFIDENCE] else "all of it: it has no confidence"
    sky = "MoGe-2's mask taken out" if masks[_MASK] else "no mask of the sky"
    return f"depth: MVSAnywhere's (a network's, given the poses), from a WAI scene; {limits}; {sky}"


def _key(modalities: dict[str, Any], name: str) -> str | None:
    """Under which key a frame has the path of a modality ("kind" or "kind/maker"); None where there is none."""
    found: Any = modalities
    for part in name.split("/"):
        if isinstance(found, dict) and "frame_key" in found:
            break  # one maker only, not nested
        found = (found or {}).get(part)
    return found["frame_key"] if isinstance(found, dict) and "frame_key" in found else None


def _camera(entry: dict[str, Any], where: str) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
    if entry.get("camera_model") != "PINHOLE":
        raise UserError(f"{where}: its lens is {entry.get('camera_model')}; run MapAnything's undistortion first")
    try:
        K = pinhole(*(float(entry[key]) for key in ("fl_x", "fl_y", "cx", "cy")))
        return K, (int(entry["w"]), int(entry["h"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: needs numbers fl_x, fl_y, cx, cy, w, h; restore the file") from error


def _crop_of(folder: Path, shared: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
    """What has to be added to K where the undistortion cropped the images and left the principal point where it was.

    MapAnything's script (commit f7ebafb) takes OpenCV's K of *all* source pixels, crops the images to the valid part,
    and states the former. The file of the distorted images, which it leaves behind, tells by how much.
    """
    shift = np.zeros((3, 3))
    if not (folder / DISTORTED).is_file():
        return shift
    lens = read_json(folder / DISTORTED)
    try:
        if lens["camera_model"] != "OPENCV":
            return shift
        K = pinhole(*(float(lens[key]) for key in ("fl_x", "fl_y", "cx", "cy"))).astype(np.float32)
        bent = np.array([float(lens.get(key, 0)) for key in ("k1", "k2", "p1", "p2", "k3")], np.float32)
        size = (int(lens["w"]), int(lens["h"]))
        whole, (left, top, width, height) = cv2.getOptimalNewCameraMatrix(K, bent, size, 1, size)
        stated = [float(shared[key]) for key in ("cx", "cy", "w", "h")]
    except (KeyError, TypeError, ValueError):
        return shift  # intrinsics of each frame: nothing is known of them
    if np.allclose(stated, [whole[0, 2], whole[1, 2], width, height], atol=0.5):
        shift[:2, 2] = [-left, -top]
    return shift


def _inside(folder: Path, path: Any, where: str) -> Path:
    pure = PurePosixPath(str(path))
    if pure.is_absolute() or ".." in pure.parts:
        raise UserError(f"{where}: {path} lies outside the scene; restore the file")
    return folder / pure


def _reader(file: Path, masks: dict[str, Path]) -> Callable[[], Float[np.ndarray, "h w"]]:
    return functools.partial(_read, file, masks)


def _read(file: Path, masks: dict[str, Path]) -> Float[np.ndarray, "h w"]:
    depth = known(read_exr(file), file)
    if _CONFIDENCE in masks:
        depth = depth * _like(read_exr(masks[_CONFIDENCE]) > CONFIDENT, depth)
    if _MASK in masks:
        depth = depth * _like(read_image(existing(masks[_MASK]))[..., 0] > 127, depth)
    return depth


def _like(mask: Bool[np.ndarray, "h w"], depth: Float[np.ndarray, "h2 w2"]) -> Bool[np.ndarray, "h2 w2"]:
    """At the depth's resolution: both cover the same image."""
    return cv2.resize(mask.astype(np.uint8), depth.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
