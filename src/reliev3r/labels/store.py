"""Labels on disk: a plain, versioned folder. Every part says what it was made from, so that it can be reused.

``manifest.json`` (written last, so a folder without one is unfinished), ``depth/NAME.npz``, ``tracks.npz``. A part
holds its arrays and, under "key", JSON that names all it depends on; parts of an interrupted run stay usable. Any
frame's depth and any view's tracks can be read alone. docs/label-store.md describes the layout.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, UInt16
from torch import Tensor

from reliev3r.core.arrays import ARRAY_ERRORS, read_npz
from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path, file_hash, read_sealed
from reliev3r.core.types import Ambiguity, Tracks
from reliev3r.data.capture import Capture
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.manifest import checked_manifest

FORMAT = "reliev3r-labels/2"

Check = Literal["hash", "size", "none"]
"""How far stored bytes are compared with the manifest before they are used: all of them, their number, not at all.

Whatever the choice, the archives' own CRC-32 covers everything that is read.
"""

_SEEN = np.dtype([("track", "<i4"), ("uv", "<f4", (2,)), ("weight", "<f4")])  # one observation, 16 bytes
_LEVELS = 65534  # of 16-bit log-depth; code 0 is "invalid"
_MOST_LOG = 104.0  # the logarithm of whatever float32 can say, and of the smallest it knows


@dataclass(frozen=True, kw_only=True)
class CaptureLabels:
    """The labels of one capture; depth maps stay on disk until they are asked for."""

    folder: Path
    names: tuple[str, ...]
    """Frames, in the order of the capture and of the tracks' view axis."""
    tracks: Tracks
    """[v, m] in pixels of the upright original images."""
    ambiguity: Ambiguity
    """Of the depth maps."""
    fingerprints: dict[str, Any]
    """Of the experts, as JSON: {"depth": ..., "tracks": ...}."""
    files: dict[str, dict[str, Any]]
    """{"sha256": ..., "bytes": ...} of every file in the folder but the manifest."""
    check: Check = "hash"
    """Of the depth maps as they are read."""

    def depth(self, index: int) -> DepthMap:
        """The depth map of a frame, at the expert's resolution.

        Raises:
            UserError: missing or damaged.
        """
        return read_depth(_intact(self.folder, depth_file(self.names[index]), self.files, self.check))[0]


_MOST_TRACKS = 100_000_000
_FARTHEST = 1e6
"""Pixels from an image's corner at which no track lies."""


def depth_file(name: str) -> str:
    """Where the depth of a frame lies in the folder."""
    return f"depth/{name}.npz"


def load_labels(folder: Path | str, capture: Capture, *, check: Check = "hash") -> CaptureLabels:
    """The stored labels of a capture's frames (all or some of those that were labelled together).

    Only these frames' part of the tracks is read; ``check`` "size" or "none" keeps it at that, where the default reads
    all images and the tracks once more for their hashes. Tracks that fewer than two of the frames see are left out.

    Raises:
        UserError: no labels, unfinished, of another format version, damaged, or made from other images.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    stored = {frame["name"]: index for index, frame in enumerate(manifest["frames"])}
    for frame in capture.frames:
        if frame.name not in stored:
            raise UserError(f"{folder}: has no labels of frame {frame.name}; run `reliev3r label` again")
        entry = manifest["frames"][stored[frame.name]]
        if not _same(frame.path, {"sha256": entry["image_sha256"], "bytes": entry["image_bytes"]}, check):
            raise UserError(f"{frame.path}: has changed since it was labelled; run `reliev3r label` again")
    path = _intact(folder, "tracks.npz", manifest["files"], check)
    return CaptureLabels(
        folder=folder,
        names=capture.names,
        tracks=read_view_tracks(path, [stored[name] for name in capture.names]),
        ambiguity=manifest["ambiguity"],
        fingerprints=manifest["experts"],
        files=manifest["files"],
        check=check,
    )


def refuse_other_images(folder: Path, capture: Capture) -> None:
    """Training that goes on must see the images that it began with: other ones would be learnt from without a word.

    Raises:
        UserError: frames were added, are gone or were replaced since ``folder`` was labelled; says which.
    """
    try:
        frames = read_manifest(folder)["frames"]
    except UserError:
        return  # not finished: the labels are made anew, and training with them
    before = {frame["name"]: frame["image_sha256"] for frame in frames}
    now = {frame.name: frame.path for frame in capture.frames}
    changes = {
        "added": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
        "replaced": [name for name in now if name in before and file_hash(now[name]) != before[name]],
    }
    told = [
        f"{what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" for what, names in changes.items() if names
    ]
    if told:
        raise UserError(
            f"{capture.root}: its images changed since the run began ({'; '.join(told)}); restore them, or begin a new "
            "run with another --out"
        )


def load_tracks(folder: Path | str) -> Tracks:
    """The stored tracks of all labelled frames, in original pixels.

    Raises:
        UserError: no labels, unfinished, of another format version or damaged.
    """
    folder = Path(folder)
    return read_tracks(_intact(folder, "tracks.npz", read_manifest(folder)["files"], "hash"))[0]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest.

    Raises:
        UserError: missing, damaged or of another format version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"{folder}: holds no finished labels (no manifest.json); run `reliev3r label` (again)")
    return checked_manifest(read_sealed(path, FORMAT), path)


def write_depth(path: Path, depth: DepthMap, key: dict[str, Any]) -> None:
    """Store a map as 16-bit log-depth: relative error at most log(farthest / nearest) / 131068 (5e-5 for 1:1000)."""
    code, limits = encode_depth(depth)
    fov = {} if depth.fov is None else {"fov": np.array(depth.fov)}
    _write(path, key, code=code, limits=limits, **fov)


def read_depth(path: Path) -> tuple[DepthMap, dict[str, Any]]:
    """A stored map and its key.

    Raises:
        UserError: damaged.
    """
    arrays, key = _read(path, ("code", "limits"), optional=("fov",))
    code, limits, fov = arrays["code"], arrays["limits"], arrays.get("fov")
    shaped = code.dtype == np.uint16 and code.ndim == 2 and code.size > 0 and limits.shape == (2,)
    known = shaped and limits.dtype.kind == "f" and bool((np.abs(limits) <= _MOST_LOG).all())
    angle = fov is None or (fov.shape == () and fov.dtype.kind in "fiu" and 0 < float(fov) < math.pi)
    if not known or not angle:
        raise UserError(f"{path}: is no depth map of format {FORMAT}; run `reliev3r label` again")
    return dataclasses.replace(decode_depth(code, limits), fov=None if fov is None else float(fov)), key


def write_tracks(path: Path, tracks: Tracks, key: dict[str, Any]) -> None:
    """Store tracks as one array of observations a view, uncompressed: each can be read alone, or mapped into memory."""
    seen = tracks.visible.numpy()
    arrays = {_view_member(view): _observations(tracks, view, seen[view]) for view in range(len(seen))}
    shape = np.array(seen.shape, np.int64)
    with atomic_path(path) as temporary:
        np.savez(temporary, key=_as_array(key), shape=shape, **arrays)  # type: ignore[arg-type]


def read_tracks(path: Path) -> tuple[Tracks, dict[str, Any]]:
    """Stored tracks and their key.

    Raises:
        UserError: damaged.
    """
    header, key = _read(path, ("shape",))
    views, count = _stored_shape(header["shape"], path)
    return _dense(_read_observations(path, range(views)), np.arange(count)), key


def _stored_shape(shape: np.ndarray, path: Path) -> tuple[int, int]:
    """(views, tracks); the former must be those that the file has, the latter fit into memory."""
    with zipfile.ZipFile(path) as archive:
        members = sum(name.startswith("view") for name in archive.namelist())
    whole = shape.shape == (2,) and shape.dtype.kind in "iu"
    if not whole or int(shape[0]) != members or not 0 <= int(shape[1]) <= _MOST_TRACKS:
        raise UserError(f"{path}: announces {shape.tolist()} views and tracks, which it does not hold; label it again")
    return int(shape[0]), int(shape[1])


def read_view_tracks(path: Path, views: Sequence[int]) -> Tracks:
    """The tracks [len(views), m] that at least two of the views see, in the stored order; reads no other view.

    Raises:
        UserError: damaged.
    """
    observations = _read_observations(path, views)
    track, count = np.unique(np.concatenate([seen["track"] for seen in observations]), return_counts=True)
    return _dense(observations, track[count >= 2])


def _view_member(view: int) -> str:
    return f"view{view:05d}"


def _read_observations(path: Path, views: Sequence[int]) -> list[np.ndarray]:
    arrays, _ = _read(path, tuple(_view_member(view) for view in views))
    for array in arrays.values():
        if array.dtype != _SEEN or array.ndim != 1:
            raise UserError(f"{path}: holds no tracks of format {FORMAT}; run `reliev3r label` again")
        possible = (array["weight"] >= 0) & (array["weight"] <= 1) & (np.abs(array["uv"]) < _FARTHEST).all(-1)
        if not possible.all() or not (np.diff(array["track"], prepend=-1) > 0).all():  # numbers ascend from 0
            raise UserError(f"{path}: holds tracks that no images have; run `reliev3r label` again")
    return [arrays[_view_member(view)] for view in views]


def _observations(tracks: Tracks, view: int, seen: np.ndarray) -> np.ndarray:
    track = np.nonzero(seen)[0]
    result = np.zeros(len(track), _SEEN)
    result["track"] = track
    result["uv"], result["weight"] = tracks.uv[view].numpy()[track], tracks.weight[view].numpy()[track]
    return result


def _dense(observations: list[np.ndarray], chosen: Int[np.ndarray, " m"]) -> Tracks:
    """Tracks of the stored numbers ``chosen`` (ascending) from the observations of each view."""
    uv = np.zeros((len(observations), len(chosen), 2), np.float32)
    weight = np.zeros((len(observations), len(chosen)), np.float32)
    for view, seen in enumerate(observations):
        kept = seen[np.isin(seen["track"], chosen)]
        column = np.searchsorted(chosen, kept["track"])
        uv[view, column], weight[view, column] = kept["uv"], kept["weight"]
    return Tracks(uv=torch.from_numpy(uv), weight=torch.from_numpy(weight))


def encode_depth(depth: DepthMap) -> tuple[UInt16[np.ndarray, "h w"], Float[np.ndarray, "2"]]:
    """16-bit codes, 0 where invalid and else linear in log-depth, and the two ends of log-depth."""
    code = np.zeros(depth.valid.shape, np.uint16)
    if not depth.valid.any():
        return code, np.zeros(2)
    log = np.log(depth.depth[depth.valid].astype(np.float64))
    low, high = log.min(), log.max()
    step = max(high - low, 1e-12) / _LEVELS
    code[depth.valid] = 1 + np.rint((log - low) / step).astype(np.uint16)
    return code, np.array([low, high])


def decode_depth(code: UInt16[np.ndarray, "h w"], limits: Float[np.ndarray, "2"]) -> DepthMap:
    """The map of :func:`encode_depth`."""
    valid = code > 0
    step = max(limits[1] - limits[0], 1e-12) / _LEVELS
    depth = np.where(valid, np.exp(limits[0] + step * (code.astype(np.float64) - 1)), 1)
    return DepthMap(depth=depth.astype(np.float32), valid=valid)


def decode_depths(
    code: Int[Tensor, "v h w"], limits: Float64[Tensor, "v 2"]
) -> tuple[Float[Tensor, "v h w"], Bool[Tensor, "v h w"]]:
    """(depth, valid) of several maps of :func:`encode_depth`, in float32: five times as fast."""
    low = limits[:, 0, None, None].float()
    step = ((limits[:, 1] - limits[:, 0]).clamp_min(1e-12) / _LEVELS)[:, None, None].float()
    valid = code > 0
    return torch.where(valid, torch.addcmul(low, step, code - 1).exp_(), 1.0), valid


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says about a file."""
    return {"sha256": file_hash(path), "bytes": path.stat().st_size}


def read_key(path: Path) -> dict[str, Any]:
    """What a part says that it was made from.

    Raises:
        UserError: missing, damaged, or not a part of labels.
    """
    return _read(path, ())[1]


def _write(path: Path, key: dict[str, Any], **arrays: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, key=_as_array(key), **arrays)  # type: ignore[arg-type]


def _as_array(key: dict[str, Any]) -> np.ndarray:
    return np.array(json.dumps(key, sort_keys=True))


def _read(
    path: Path, names: tuple[str, ...], *, optional: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        arrays = read_npz(path, (*names, "key"), optional=optional)  # which verifies the archive's checksums
        key = json.loads(str(arrays.pop("key")))
        if not isinstance(key, dict):
            raise ValueError("its key is no object")
        return arrays, key
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: missing or damaged ({error}); run `reliev3r label` again") from error


def _intact(folder: Path, file: str, files: dict[str, dict[str, Any]], check: Check) -> Path:
    """The path of a part that is what the manifest says, as far as ``check`` goes."""
    path = folder / file
    if file not in files or not _same(path, files[file], check):
        raise UserError(f"{path}: missing or damaged (it is not what the manifest says); run `reliev3r label` again")
    return path


def _same(path: Path, entry: dict[str, Any], check: Check) -> bool:
    """Whether a file is there and is the one that a manifest means."""
    if not path.is_file():
        return False
    if check != "none" and path.stat().st_size != entry["bytes"]:
        return False
    return check != "hash" or file_hash(path) == entry["sha256"]
