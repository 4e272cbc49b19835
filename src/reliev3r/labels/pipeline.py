"""Making the pseudo-labels of a capture, and only those that are not there yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from reliev3r.data.capture import Capture, Frame
from reliev3r.errors import UserError
from reliev3r.files import file_hash, read_json, write_json
from reliev3r.labels.expert import DepthExpert, DepthMap, Progress, TrackExpert
from reliev3r.labels.store import (
    FORMAT,
    CaptureLabels,
    depth_file,
    read_depth,
    read_tracks,
    write_depth,
    write_tracks,
)
from reliev3r.types import Tracks

__all__ = ["CaptureLabels", "label_capture"]

T = TypeVar("T")


def label_capture(
    capture: Capture, *, depth: DepthExpert, tracks: TrackExpert, out: Path | str, progress: Progress | None = None
) -> CaptureLabels:
    """Run the experts on a capture and store what they say in the folder ``out`` (format: ``labels.store``).

    What is stored there already, is undamaged and was made by the same expert from the same files is reused: after
    an interruption, or when one image, map, intrinsics or expert changed, only what depends on it is made again. The
    same input gives the same bytes.

    Raises:
        UserError: unreadable images or maps, an expert that cannot run, no matches at all, or ``out`` not writable.
    """
    out = Path(out)
    previous = _begin(out)
    images = [file_hash(frame.path) for frame in capture.frames]
    inputs = [[file_hash(path) for path in depth.inputs(frame, capture)] for frame in capture.frames]
    fingerprints = {"depth": depth.fingerprint(), "tracks": tracks.fingerprint()}
    hashes: dict[str, str] = {}

    # Tracks first: they read all images, and an unusable capture shows before the slow depth network runs.
    key = {"format": FORMAT, "expert": fingerprints["tracks"], "frames": _track_inputs(capture, images)}
    found = _reusable(out / "tracks.npz", key, previous.get("tracks.npz"), read_tracks)
    if found is None:
        found = tracks.track(capture, progress)
        _require_matches(found, capture)
        write_tracks(out / "tracks.npz", found, key)
    hashes["tracks.npz"] = file_hash(out / "tracks.npz")

    for index, frame in enumerate(capture.frames):
        file = depth_file(frame.name)
        key = {"format": FORMAT, "expert": fingerprints["depth"], "image": images[index], "inputs": inputs[index]}
        if _reusable(out / file, key, previous.get(file), read_depth) is None:
            write_depth(out / file, _predict(depth, capture, index), key)
        hashes[file] = file_hash(out / file)
        if progress:
            progress(index + 1, len(capture.frames), "depth")

    frames = [_frame_entry(frame, image) for frame, image in zip(capture.frames, images, strict=True)]
    manifest = {"format": FORMAT, "frames": frames, "K_source": capture.K_source, "ambiguity": depth.ambiguity}
    write_json(out / "manifest.json", {**manifest, "experts": fingerprints, "files": hashes})
    return CaptureLabels(
        folder=out,
        names=capture.names,
        tracks=found,
        ambiguity=depth.ambiguity,
        fingerprints=fingerprints,
        hashes=hashes,
    )


def _begin(out: Path) -> dict[str, str]:
    """Hashes of what an earlier run finished; its manifest goes, so that only a finished folder has one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    path = out / "manifest.json"
    if not path.exists():
        return {}
    try:
        files = dict(read_json(path)["files"])
    except (UserError, KeyError, TypeError, ValueError):
        files = {}  # then every part vouches for itself
    try:
        path.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be replaced ({error.strerror}); choose another folder") from error
    return files


def _track_inputs(capture: Capture, images: list[str]) -> list[dict[str, Any]]:
    return [_frame_entry(frame, image) for frame, image in zip(capture.frames, images, strict=True)]


def _frame_entry(frame: Frame, image_hash: str) -> dict[str, Any]:
    """A frame as the manifest lists it; K is the one that matches were verified with."""
    return {
        "name": frame.name,
        "image": frame.file,
        "width": frame.width,
        "height": frame.height,
        "K": None if frame.K is None else frame.K.tolist(),
        "image_sha256": image_hash,
    }


def _reusable(
    path: Path, key: dict[str, Any], known_hash: str | None, read: Callable[[Path], tuple[T, dict[str, Any]]]
) -> T | None:
    """What is stored at ``path`` if it is undamaged and was made under the same key."""
    if not path.is_file() or (known_hash is not None and file_hash(path) != known_hash):
        return None
    try:
        value, stored = read(path)
    except UserError:
        return None
    return value if stored == json.loads(json.dumps(key)) else None


def _predict(expert: DepthExpert, capture: Capture, index: int) -> DepthMap:
    return expert.predict(capture.image(index), capture.frames[index], capture)


def _require_matches(tracks: Tracks, capture: Capture) -> None:
    if not bool((tracks.visible.sum(0) >= 2).any()):
        raise UserError(f"{capture.root}: no matches between its images: they need texture, sharpness and much overlap")
