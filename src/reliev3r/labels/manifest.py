"""What ``manifest.json`` of a folder of labels must look like: whoever wrote it can write its checksum, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np

from reliev3r.core.cameras_json import refuse_same_names, refuse_unwritable_name
from reliev3r.core.errors import UserError
from reliev3r.core.files import inside
from reliev3r.core.types import Ambiguity

_HASH = re.compile(r"[0-9a-f]{64}")


def checked_manifest(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    """The manifest, whose entries are of the types that all readers count on and whose names stay in its folder.

    Raises:
        UserError: names the entry.
    """
    frames, files, experts = (manifest.get(name) for name in ("frames", "files", "experts"))
    source = manifest.get("K_source")
    _require(isinstance(frames, list) and len(frames) >= 2 and all(map(_is_frame, frames)), path, "frames")
    _require(isinstance(files, dict) and all(map(_is_file, files.values())), path, "files")
    named = isinstance(experts, dict) and all(_is_named(experts.get(kind)) for kind in ("depth", "tracks"))
    _require(named, path, "experts")
    _require(manifest.get("ambiguity") in get_args(Ambiguity), path, "ambiguity")
    _require(source is None or isinstance(source, str), path, "K_source")
    names = [frame["name"] for frame in manifest["frames"]]
    refuse_same_names(names, path)
    for name in (*names, *manifest["files"]):
        refuse_unwritable_name(name, path)
        inside(path.parent, name, str(path))
    return manifest


def _require(right: bool, path: Path, entry: str) -> None:
    if not right:
        raise UserError(f'{path}: damaged (its "{entry}" is not what reliev3r writes); run `reliev3r label` again')


def _is_frame(frame: Any) -> bool:
    """A name of one part, an image with its size and bytes, K and lens where they are known."""
    if not isinstance(frame, dict) or not isinstance(frame.get("image"), str) or not isinstance(frame.get("name"), str):
        return False
    sizes = [frame.get(name) for name in ("width", "height", "image_bytes")]
    known = all(isinstance(size, int) and not isinstance(size, bool) and 0 < size < 2**40 for size in sizes)
    plain = re.fullmatch(r"[^/\\]+", frame["name"]) is not None and frame["name"] not in (".", "..")
    lens = frame.get("lens")
    named = plain and _is_hash(frame.get("image_sha256"))
    return known and named and _is_K(frame.get("K")) and (lens is None or isinstance(lens, dict))


def _is_K(value: Any) -> bool:
    if value is None:
        return True
    try:
        K = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return K.shape == (3, 3) and bool(np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0)


def _is_file(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and _is_hash(entry.get("sha256"))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_named(expert: Any) -> bool:
    return isinstance(expert, dict) and isinstance(expert.get("name"), str)
