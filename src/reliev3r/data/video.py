"""Frames of a video as image files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from reliev3r.data.select import SHARP_SIDE, FrameSigns, measure_frames, select_frames
from reliev3r.errors import UserError
from reliev3r.files import atomic_directory, file_hash, read_json, write_json

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORMAT = "reliev3r-frames/2"


def user_cache(video: Path) -> Path:
    """The folder below the user's cache (XDG_CACHE_HOME or ~/.cache) that belongs to this video's path."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "reliev3r" / hashlib.sha256(str(video.resolve()).encode()).hexdigest()[:16]


def extract_frames(
    video: Path, folder: Path, count: int, *, progress: Callable[[int, int, str], None] | None = None
) -> list[Path]:
    """At most ``count`` frames of a video, spread by motion and sharp (``data.select``), in order.

    They are upright JPEG files named by frame number. All frames where the video has no more. Written atomically; a
    folder that holds the same frames of the same video is used as it is. A video with a broken end gives the frames
    before it, with a warning; so are shot cuts and a camera at rest.

    Raises:
        UserError: unreadable, or fewer than two frames.
    """
    wanted = {"format": FORMAT, "sha256": _hash(video), "count": count}
    found = _reusable(folder, wanted)
    if found:
        return found
    signs = measure_frames(_counted(_pictures(video), progress))
    if len(signs.way) < 2:
        raise UserError(f"{video}: not readable as a video of at least 2 frames; re-encode it or give images")
    _warn(video, signs)
    chosen = select_frames(signs, count)
    with atomic_directory(folder) as temporary:
        files = []
        for index, frame in enumerate(_decoded(video)):
            if index not in chosen:
                continue
            files.append(f"{index:06d}.jpg")
            Image.fromarray(_upright(frame)).save(temporary / files[-1], quality=95, subsampling=0)
            if progress:
                progress(len(files), len(chosen), "video frames")
            if len(files) == len(chosen):
                break
        write_json(temporary / "frames.json", {**wanted, "files": files})
    return [folder / file for file in files]


def _pictures(video: Path) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """All frames as small grey pictures (not turned upright: motion does not care)."""
    for frame in _decoded(video, warn=True):
        shrink = min(1.0, SHARP_SIDE / max(frame.width, frame.height))
        size = {"width": max(2, round(frame.width * shrink)), "height": max(2, round(frame.height * shrink))}
        yield frame.reformat(**size, format="gray").to_ndarray()


def _counted(pictures: Iterator[T], progress: Callable[[int, int, str], None] | None) -> Iterator[T]:
    """The same, telling how many there were (how many will come is not known before the end)."""
    for number, picture in enumerate(pictures, start=1):
        if progress and number % 25 == 0:
            progress(0, 1, f"looking for frames ({number} seen)")
        yield picture


def _warn(video: Path, signs: FrameSigns) -> None:
    if signs.cuts:
        logger.warning(
            "%s: %d shot cut(s), at frame %s: parts that show different places cannot be tied; cut the video there",
            video, len(signs.cuts), ", ".join(map(str, signs.cuts[:8])),
        )  # fmt: skip
    if signs.still:
        logger.warning("%s: the camera hardly moves; without a moving camera there is no depth to be learnt", video)


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
    """Intact frames of the first video stream, up to the first undecodable one."""
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
                    if frame.is_corrupt:  # what the decoder made up where data is missing
                        continue
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
