"""One system on one scene: predicted and kept, or loaded again where nothing changed, or failed with its last words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_json, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.evaluation.systems import System
from reliev3r.evaluation.tables import frames_hash

_log = logging.getLogger(__name__)
_LONGEST_WORDS = 400


class PredictionFailed(Exception):
    """A system failed on a scene; the message is one line."""


def cell_folder(out: Path, system: System, scene: str, capture: Capture) -> Path:
    """OUT/predictions/SYSTEM/SCENE/VIEWS-HASH: another list of frames is another folder, under any protocol."""
    return out / "predictions" / _as_folder(system.name) / _as_folder(scene) / _list_name(capture)


def predict_cell(
    system: System, fingerprint: dict[str, Any], scene: str, capture: Capture, out: Path
) -> Reconstruction:
    """The system's reconstruction of the capture: the kept one if system, frames and images are the same as then.

    What the system is (``fingerprint``), the frames and their images are hashed into the manifest. A failure is kept as
    ``failed.json`` for people to read; the next call tries again.

    Raises:
        PredictionFailed: the system failed, in whatever way.
    """
    folder = cell_folder(out, system, scene, capture)
    key = {"system": system.name, "fingerprint": fingerprint, "images": _images_hash(capture)}
    kept = _kept(folder, key)
    if kept is not None:
        return kept
    try:
        result = system.run(capture, folder)
        _check(result, capture)
    except Exception as error:  # one cell of the table: a system may fail in any way, and must not cost the others
        words = " ".join(f"{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}".split())
        words = words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]} ..."
        words = words or type(error).__name__
        _log.debug("%s failed on %s", system.name, scene, exc_info=True)
        write_json(folder / "failed.json", {"system": system.name, "scene": scene, "last_words": words, **key})
        raise PredictionFailed(words) from error
    result = dataclasses.replace(result, meta={**result.meta, "cell": key})
    result.save(folder)
    (folder / "failed.json").unlink(missing_ok=True)
    return result


def _kept(folder: Path, key: dict[str, Any]) -> Reconstruction | None:
    if not (folder / "prediction.json").is_file():
        return None
    try:
        if read_json(folder / "prediction.json")["meta"].get("cell") != json.loads(json.dumps(key)):
            return None
        return Reconstruction.load(folder)
    except (UserError, KeyError, TypeError, AttributeError):  # damaged: predicted again
        return None


def _check(result: Reconstruction, capture: Capture) -> None:
    if result.names != capture.names:
        raise UserError("it reconstructed other frames than those of the list")
    if result.predicts_depth and not (
        result.prediction.depth.isfinite().all() and result.prediction.rays.isfinite().all()
    ):
        raise UserError("its depth or rays are not finite")


def _images_hash(capture: Capture) -> str:
    """Of names, sizes, intrinsics and contents of the image files."""
    facts = [
        [
            frame.name,
            frame.width,
            frame.height,
            None if frame.K is None else frame.K.tolist(),
            _content_hash(frame.path, frame.path.stat().st_mtime_ns) if frame.path.is_file() else None,
            None if frame.rectification is None else frame.rectification.lens,
        ]
        for frame in capture.frames
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@lru_cache(maxsize=10_000)
def _content_hash(path: Path, changed: int) -> str:
    """Read once for all systems, unless the file was ``changed`` meanwhile (nanoseconds)."""
    return file_hash(path)


def _list_name(capture: Capture) -> str:
    return f"{len(capture.frames)}-{frames_hash(capture.names)}"


def _as_folder(name: str) -> str:
    """A folder's name; names that would clash after the change are told apart by their hash."""
    plain = re.sub(r"[^\w.@+-]+", "_", name).strip("._") or "x"
    return plain if plain == name else f"{plain[-80:]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
