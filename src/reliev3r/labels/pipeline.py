"""Making the pseudo-labels of a capture, and only those that are not there yet."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, remove_leftovers, write_sealed
from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture, Frame
from reliev3r.data.images import is_turned
from reliev3r.data.masks import kept_at, without_masked
from reliev3r.labels.expert import DepthExpert, DepthMap, TrackExpert
from reliev3r.labels.quality.assess import why_no_matches
from reliev3r.labels.store import (
    FORMAT,
    CaptureLabels,
    depth_file,
    file_entry,
    read_depth,
    read_key,
    read_manifest,
    read_tracks,
    write_depth,
    write_tracks,
)

__all__ = ["CaptureLabels", "label_capture"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


def label_capture(
    capture: Capture, *, depth: DepthExpert, tracks: TrackExpert, out: Path | str, progress: Progress | None = None
) -> CaptureLabels:
    """Run the experts on a capture and store what they say in the folder ``out`` (format: ``labels.store``).

    What is stored there already, is undamaged and was made by the same expert from the same files is reused: after
    an interruption, or when one image, map, intrinsics or expert changed, only what depends on it is made again, and
    what belongs to no frame any more is removed. The same input gives the same bytes, killed in between or not.

    Raises:
        UserError: unreadable images or maps, an expert that cannot run, no matches at all, or ``out`` not writable.
    """
    out = Path(out)
    previous = _begin(out, capture)
    images = [file_entry(frame.path) for frame in capture.frames]
    _tell_copies(capture.names, [image["sha256"] for image in images], capture)
    for frame in capture.frames:
        depth.inputs(frame, capture)  # a missing map shows before anything is computed
    fingerprints = {"depth": depth.fingerprint(), "tracks": tracks.fingerprint()}
    files: dict[str, dict[str, Any]] = {}

    # Tracks first: they read all images, and an unusable capture shows before the slow depth network runs.
    entries = [_frame_entry(frame, image["sha256"]) for frame, image in zip(capture.frames, images, strict=True)]
    key = {"format": FORMAT, "expert": fingerprints["tracks"], "frames": entries}
    found = _reusable(out / "tracks.npz", key, previous.get("tracks.npz"), read_tracks)
    if found is None:
        found = without_masked(tracks.track(capture, progress), capture.masks)
        _require_matches(found, capture)
        write_tracks(out / "tracks.npz", found, key)
    files["tracks.npz"] = file_entry(out / "tracks.npz")

    for index, frame in enumerate(capture.frames):
        file = depth_file(frame.name)
        label_depth(capture, index, depth, out, known_hash=previous.get(file), image_hash=images[index]["sha256"])
        files[file] = file_entry(out / file)
        if progress:
            progress(index + 1, len(capture.frames), "depth")

    files |= _video_frames(capture, out)
    _remove_other_depth(out, files)
    frames = [{**entry, "image_bytes": image["bytes"]} for entry, image in zip(entries, images, strict=True)]
    manifest = {"format": FORMAT, "frames": frames, "K_source": capture.K_source, "ambiguity": depth.ambiguity}
    write_sealed(out / "manifest.json", {**manifest, "experts": fingerprints, "files": files})
    return CaptureLabels(
        folder=out,
        names=capture.names,
        tracks=found,
        ambiguity=depth.ambiguity,
        fingerprints=fingerprints,
        files=files,
    )


def label_depth(
    capture: Capture,
    index: int,
    expert: DepthExpert,
    out: Path,
    *,
    known_hash: str | None = None,
    image_hash: str | None = None,
) -> DepthMap:
    """Store the depth of one frame in the folder ``out`` unless the same is there already, and hand it back.

    ``known_hash`` is the SHA-256 that the stored file must have, ``image_hash`` that of the image, where it is known.

    Raises:
        UserError: an unreadable image or map, an expert that cannot run.
    """
    frame = capture.frames[index]
    inputs = [file_hash(path) for path in expert.inputs(frame, capture)]
    image = image_hash or file_hash(frame.path)
    key = {"format": FORMAT, "expert": expert.fingerprint(), "image": image, "inputs": inputs}
    key |= _pixels(frame)
    path = out / depth_file(frame.name)
    found = _reusable(path, key, known_hash, read_depth)
    if found is None:
        write_depth(path, _masked(expert.predict(capture.image(index), frame, capture), capture.kept(index)), key)
        found = read_depth(path)[0]  # as a reader will see it, whether it was there or not
    return found


def _begin(out: Path, capture: Capture) -> dict[str, str]:
    """Hashes of what an earlier run finished; its manifest goes, so that only a finished folder has one."""
    path = out / "manifest.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out, {"manifest.json", "tracks.npz", "failed.json", "frames", "quality.json", "quality.jpg"})
        if (out / "depth").is_dir():
            remove_leftovers(out / "depth", {f"{name}.npz" for name in capture.names})
        try:
            hashes = {name: entry["sha256"] for name, entry in read_manifest(out)["files"].items()}
        except UserError:
            hashes = {}  # then every part vouches for itself
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    return hashes


def _video_frames(capture: Capture, out: Path) -> dict[str, dict[str, Any]]:
    """Files beside the labels that the frames of a video were written to: damage to them counts as well."""
    if capture.root != out / "frames":
        return {}
    return {f"frames/{path.name}": file_entry(path) for path in sorted(capture.root.iterdir()) if path.is_file()}


def _remove_other_depth(out: Path, files: dict[str, dict[str, Any]]) -> None:
    """Remove depth of frames that are no longer labelled; a file that is none of our parts stays."""
    for path in sorted((out / "depth").glob("*.npz")):
        if f"depth/{path.name}" in files:
            continue
        try:
            ours = str(read_key(path).get("format")).startswith(FORMAT.split("/")[0])
        except UserError:
            ours = False
        if ours:
            path.unlink()


def _frame_entry(frame: Frame, image_hash: str) -> dict[str, Any]:
    """A frame as the manifest lists it; K is the one that matches were verified with."""
    return _pixels(frame) | {
        "name": frame.name,
        "image": frame.file,
        "width": frame.width,
        "height": frame.height,
        "K": None if frame.K is None else frame.K.tolist(),
        "image_sha256": image_hash,
    }


def _masked(depth: DepthMap, kept: Bool[np.ndarray, "h w"] | None) -> DepthMap:
    return depth if kept is None else dataclasses.replace(depth, valid=depth.valid & kept_at(kept, depth.valid.shape))


def _tell_copies(names: Sequence[str], hashes: Sequence[str], capture: Capture) -> None:
    """A copy ties itself to its original by any number of matches that hold no depth.

    Raises:
        UserError: there is but one picture.
    """
    alike: dict[str, list[str]] = {}
    for name, image in zip(names, hashes, strict=True):
        alike.setdefault(image, []).append(name)
    if len(alike) == 1:
        raise UserError(f"{capture.root}: all images are copies of one file; take others from other places")
    copies = [" = ".join(group) for group in alike.values() if len(group) > 1]
    if copies:
        logger.warning("%s: copies of the same file: %s; remove them", capture.root, ", ".join(copies[:8]))


def _pixels(frame: Frame) -> dict[str, Any]:
    """What is done to an image's stored pixels besides making them upright."""
    lens = {} if frame.rectification is None else {"lens": frame.rectification.lens}
    stored = {"pixels": "as stored"} if frame.as_stored and is_turned(frame.path) else {}
    return lens | stored | ({} if frame.mask is None else {"mask": file_hash(frame.mask)})


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


def _require_matches(tracks: Tracks, capture: Capture) -> None:
    if not bool((tracks.visible.sum(0) >= 2).any()):
        raise UserError(f"{capture.root}: no matches between its images: {why_no_matches(capture)}")
