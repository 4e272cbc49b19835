"""Frames of a video as image files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from reliev3r.errors import UserError
from reliev3r.files import atomic_directory, file_hash, read_json, write_json

logger = logging.getLogger(__name__)

FORMAT = "reliev3r-frames/1"


def user_cache(video: Path) -> Path:
    """The folder below the user's cache (XDG_CACHE_HOME or ~/.cache) that belongs to this video's path."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "reliev3r" / hashlib.sha256(str(video.resolve()).encode()).hexdigest()[:16]


def extract_frames(
    video: Path, folder: Path, count: int, *, progress: Callable[[int, int, str], None] | None = None
) -> list[Path]:
    """``count`` evenly spaced frames of a video as upright JPEG files named by frame number, in order.

    All frames where the video has fewer. Written atomically; a folder that holds the same frames of the same video is
    used as it is. A video with a broken end gives the frames before it, with a warning.

    Raises:
        UserError: unreadable, or fewer than two frames.
    """
    wanted = {"format": FORMAT, "sha256": _hash(video), "count": count}
    found = _reusable(folder, wanted)
    if found:
        return found
    total = sum(1 for _ in _decoded(video, warn=True))
    if total < 2:
        raise UserError(f"{video}: not readable as a video of at least 2 frames; re-encode it or give images")
    chosen = np.unique(np.rint(np.linspace(0, total - 1, min(count, total))).astype(int)).tolist()
    with atomic_directory(folder) as temporary:
        files = []
        for index, frame in enumerate(_decoded(video)):
            if index not in chosen:
                continue
            files.append(f"{index:06d}.jpg")
            Image.fromarray(_upright(frame)).save(temporary / files[-1], quality=95, subsampling=0)
            if progress:
                progress(len(files), len(chosen), "video frames")
        write_json(temporary / "frames.json", {**wanted, "files": files})
    return [folder / file for file in files]


def _hash(video: Path) -> str:
    try:
        return file_hash(video)
    except OSError as error:
        raise UserError(f"{video}: cannot be read ({error.strerror})") from error


def _reusable(folder: Path, wanted: dict[str, Any]) -> list[Path]:
    """The frames in ``folder`` where they are the wanted ones and complete, else nothing."""
    try:
        manifest = read_json(folder / "frames.json")
        files = [folder / file for file in manifest.pop("files")]
    except (UserError, AttributeError, KeyError, TypeError):
        return []
    return files if manifest == wanted and all(file.is_file() for file in files) else []


def _decoded(video: Path, *, warn: bool = False) -> Iterator[Any]:
    """Frames of the first video stream, up to the first undecodable one."""
    import av

    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise UserError(f"{video}: has no video stream; give a video file or a folder of images")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            number = 0
            try:
                for frame in container.decode(stream):
                    yield frame
                    number += 1
            except av.FFmpegError as error:
                if warn and number:
                    logger.warning("%s: broken after frame %d (%s); the frames before are used", video, number, error)
    except av.FFmpegError as error:
        raise UserError(f"{video}: not readable as a video ({error}); re-encode it or give images") from error


def _upright(frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as shown: turned by the container's display matrix (degrees counter-clockwise)."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
