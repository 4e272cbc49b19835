"""Labels on disk: a plain, versioned folder. Every part says what it was made from, so that it can be reused.

``manifest.json`` (written last, so a folder without one is unfinished), ``depth/NAME.npz``, ``tracks.npz``. A part
holds its arrays and, under "key", JSON that names all it depends on; parts of an interrupted run stay usable.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt16

from reliev3r.data.capture import Capture
from reliev3r.errors import UserError
from reliev3r.files import atomic_path, file_hash, read_json
from reliev3r.labels.expert import DepthMap
from reliev3r.types import Ambiguity, Tracks

FORMAT = "reliev3r-labels/1"

_LEVELS = 65534  # of 16-bit log-depth; code 0 is "invalid"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, json.JSONDecodeError)


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
    hashes: dict[str, str]
    """SHA-256 of every file in the folder."""

    def depth(self, index: int) -> DepthMap:
        """The depth map of a frame, at the expert's resolution.

        Raises:
            UserError: missing or damaged.
        """
        file = depth_file(self.names[index])
        return read_depth(_intact(self.folder, file, self.hashes))[0]


def depth_file(name: str) -> str:
    """Where the depth of a frame lies in the folder."""
    return f"depth/{name}.npz"


def load_labels(folder: Path | str, capture: Capture) -> CaptureLabels:
    """The stored labels of a capture's frames (all or some of those that were labelled together).

    Raises:
        UserError: no labels, unfinished, of another format version, damaged, or made from other images.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    stored = {frame["name"]: index for index, frame in enumerate(manifest["frames"])}
    for frame in capture.frames:
        if frame.name not in stored:
            raise UserError(f"{folder}: has no labels of frame {frame.name}; run `reliev3r label` again")
        if file_hash(frame.path) != manifest["frames"][stored[frame.name]]["image_sha256"]:
            raise UserError(f"{frame.path}: has changed since it was labelled; run `reliev3r label` again")
    tracks = load_tracks(folder).select_views([stored[name] for name in capture.names])
    seen_twice = torch.nonzero(tracks.visible.sum(0) >= 2)[:, 0]
    return CaptureLabels(
        folder=folder,
        names=capture.names,
        tracks=tracks.select_tracks(seen_twice),
        ambiguity=manifest["ambiguity"],
        fingerprints=manifest["experts"],
        hashes=manifest["files"],
    )


def load_tracks(folder: Path | str) -> Tracks:
    """The stored tracks of all labelled frames, in original pixels.

    Raises:
        UserError: no labels, unfinished, of another format version or damaged.
    """
    folder = Path(folder)
    return read_tracks(_intact(folder, "tracks.npz", read_manifest(folder)["files"]))[0]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest.

    Raises:
        UserError: missing or of another format version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"{folder}: holds no finished labels (no manifest.json); run `reliev3r label` (again)")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: not of format {FORMAT}; label again into another folder")
    return manifest


def write_depth(path: Path, depth: DepthMap, key: dict[str, Any]) -> None:
    """Store a map as 16-bit log-depth: relative error at most log(farthest / nearest) / 131068 (5e-5 for 1:1000)."""
    code, limits = encode_depth(depth)
    _write(path, key, code=code, limits=limits)


def read_depth(path: Path) -> tuple[DepthMap, dict[str, Any]]:
    """A stored map and its key.

    Raises:
        UserError: damaged.
    """
    arrays, key = _read(path, ("code", "limits"))
    return decode_depth(arrays["code"], arrays["limits"]), key


def write_tracks(path: Path, tracks: Tracks, key: dict[str, Any]) -> None:
    """Store tracks as a list of observations, sorted by view."""
    view, track = np.nonzero(tracks.visible.numpy())
    uv, weight = tracks.uv.numpy()[view, track], tracks.weight.numpy()[view, track]
    shape = np.array(tracks.weight.shape, np.int64)
    _write(path, key, shape=shape, view=view.astype(np.int32), track=track.astype(np.int32), uv=uv, weight=weight)


def read_tracks(path: Path) -> tuple[Tracks, dict[str, Any]]:
    """Stored tracks and their key.

    Raises:
        UserError: damaged.
    """
    arrays, key = _read(path, ("shape", "view", "track", "uv", "weight"))
    views, count = arrays["shape"].tolist()
    uv = np.zeros((views, count, 2), np.float32)
    weight = np.zeros((views, count), np.float32)
    uv[arrays["view"], arrays["track"]] = arrays["uv"]
    weight[arrays["view"], arrays["track"]] = arrays["weight"]
    return Tracks(uv=torch.from_numpy(uv), weight=torch.from_numpy(weight)), key


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


def _write(path: Path, key: dict[str, Any], **arrays: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, key=np.array(json.dumps(key, sort_keys=True)), **arrays)  # type: ignore[arg-type]


def _read(path: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as content:  # the archive's checksums are verified as it is read
            return {name: content[name] for name in names}, json.loads(str(content["key"]))
    except _DAMAGE as error:
        raise UserError(f"{path}: missing or damaged ({error}); run `reliev3r label` again") from error


def _intact(folder: Path, file: str, hashes: dict[str, str]) -> Path:
    """The path of a part whose bytes are those that the manifest names."""
    path = folder / file
    if not path.is_file() or file_hash(path) != hashes.get(file):
        raise UserError(
            f"{path}: missing or damaged (its hash differs from the manifest's); run `reliev3r label` again"
        )
    return path
