"""Frames of a video as image files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_directory, file_hash, read_json, write_json
from reliev3r.core.progress import Progress
from reliev3r.geometry.sampling import evenly_spaced

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORMAT = "reliev3r-frames/3"
FRAMES, MANIFEST = "frames", "frames.json"
"""The folder of a video's frames, and the file in it that says which they are."""


def user_cache(video: Path) -> Path:
    """The folder below the user's cache (XDG_CACHE_HOME or ~/.cache) that belongs to this video's path."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "reliev3r" / hashlib.sha256(str(video.resolve()).encode()).hexdigest()[:16]


def extract_frames(video: Path, folder: Path, count: int, *, progress: Progress | None = None) -> list[Path]:
    """At most ``count`` frames of a video, spread by motion and sharp (:func:`select_frames`), in order.

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
        for index, image in frames_at(video, chosen):
            files.append(f"{index:06d}.jpg")
            Image.fromarray(image).save(temporary / files[-1], quality=95, subsampling=0)
            if progress:
                progress(len(files), len(chosen), "video frames")
        write_json(temporary / MANIFEST, {**wanted, "files": files})
    return [folder / file for file in files]


def _pictures(video: Path) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """All frames as small grey pictures of one size (not turned upright: motion does not care)."""
    sizes: list[tuple[int, int]] = []
    for number, shown in enumerate(_decoded(video, warn=True)):
        frame = shown.frame
        if (frame.width, frame.height) not in sizes:
            sizes.append((frame.width, frame.height))
            if len(sizes) == 2:
                logger.warning("%s: its frames change from %dx%d to %dx%d at frame %d (another camera?); cut it there",
                               video, *sizes[0], *sizes[1], number)  # fmt: skip
        shrink = min(1.0, SHARP_SIDE / max(sizes[0]))
        width, height = (max(2, round(side * shrink)) for side in sizes[0])
        yield frame.reformat(width=width, height=height, format="gray").to_ndarray()


def _counted(pictures: Iterator[T], progress: Progress | None) -> Iterator[T]:
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
        manifest = read_json(folder / MANIFEST)
        files = [folder / file for file in manifest.pop("files")]
    except (UserError, AttributeError, KeyError, TypeError):
        return []
    return files if manifest == wanted and all(file.is_file() for file in files) else []


def _decoded(video: Path, *, warn: bool = False) -> Iterator[_Shown]:
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
                    yield _Shown(frame, _aspect(stream))
                    number += 1
            except av.FFmpegError as error:
                if warn and number:
                    logger.warning("%s: broken after frame %d (%s); the frames before are used", video, number, error)
    except av.FFmpegError as error:
        raise UserError(f"{video}: not readable as a video ({error}); re-encode it or give images") from error


@dataclass(frozen=True)
class _Shown:
    """A decoded frame, and how wide its pixels are shown over how high (other than 1 in DV, HDV and DVDs)."""

    frame: Any
    aspect: float

    def image(self) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as shown: square pixels, turned by the container's display matrix (degrees counter-clockwise)."""
        stored = self.frame.to_ndarray(format="rgb24")
        height, width = stored.shape[:2]
        if self.aspect != 1:  # no pixel is lost
            shown = (round(width * max(1.0, self.aspect)), round(height / min(1.0, self.aspect)))
            stored = cv2.resize(stored, shown, interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(np.rot90(stored, round(self.frame.rotation / 90)))


def _aspect(stream: Any) -> float:
    """The container's word, else the codec's; 1 where neither says a possible one."""
    said = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(said) if said and 0.2 <= said <= 5 else 1.0


def frames_at(video: Path, numbers: Collection[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """(number, image as shown) of the frames of these numbers, in order; numbers beyond the end give nothing.

    Raises:
        UserError: unreadable.
    """
    last = max(numbers, default=-1)
    for index, shown in enumerate(_decoded(video)):
        if index in numbers:
            yield index, shown.image()
        if index >= last:
            return


FLOW_SIDE = 320
"""Long side in pixels at which motion is measured."""
SHARP_SIDE = 640
"""Long side in pixels at which sharpness is measured."""
TURN_SHARE = 0.25
"""What the whole image moves by counts this much, what its parts move against each other (parallax) counts fully: a
turn of the camera brings new content but no depth."""
STILL = 0.01
"""A whole video whose way is shorter, in image widths, is that of a camera at rest."""

_REFERENCE_REACH = 0.05  # motion from the reference frame after which the next reference is taken
_LOST_STEP = 0.1  # way of frames to which no point could be followed though the picture is alike: very fast motion
_PASSED_OVER = 4  # frames in a row that may be too smeared to follow anything
_POINTS = 240
_MIN_POINTS = 12
_CUT_LIKENESS = 0.4  # correlation of thumbnails below which a loss of all points is a cut
_NEARLY_AS_SHARP = 0.8
_REACH = 0.4  # of a step: how far from its place a frame may be taken


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSigns:
    """What was measured on the n frames of a video."""

    sharpness: Float[np.ndarray, " n"]
    """Variance of the Laplacian over the variance of the picture; comparable within one video."""
    way: Float[np.ndarray, " n"]
    """In image widths, never falling."""
    cuts: tuple[int, ...] = field(default=())
    """Frames that begin another shot."""

    @property
    def still(self) -> bool:
        """Whether the camera hardly moves at all."""
        return len(self.way) == 0 or float(self.way[-1]) < STILL


def measure_frames(pictures: Iterable[UInt8[np.ndarray, "h w"]]) -> FrameSigns:
    """Signs of grey pictures (long side ``SHARP_SIDE`` or less), in the order of time; one is held at a time."""
    odometer = _Odometer()
    sharpness, way, cuts = [], [], []
    for number, picture in enumerate(pictures):
        sharpness.append(_sharpness(picture))
        position, cut = odometer.step(_shrunk(picture))
        way.append(position)
        if cut:
            cuts.append(number)
    return FrameSigns(
        sharpness=np.array(sharpness, dtype=np.float64),
        way=np.maximum.accumulate(np.array(way, dtype=np.float64)) if way else np.zeros(0),
        cuts=tuple(cuts),
    )


def select_frames(signs: FrameSigns, count: int) -> list[int]:
    """At most ``count`` frames, in order: at equal steps of the way, each the sharp one of its surroundings.

    A frame lies within 0.4 of a step of its place and is, of those about as sharp as the sharpest there, the nearest
    to it. Places that nothing lies near share their nearest frame, so fewer than ``count`` may come out. Of a still
    video evenly spaced frames are taken.
    """
    total = len(signs.way)
    if count >= total or signs.still:
        return evenly_spaced(range(total), count)
    places, step = np.linspace(0, signs.way[-1], count, retstep=True)
    return sorted({_best_frame(signs, place, _REACH * step) for place in places})


def _best_frame(signs: FrameSigns, place: float, reach: float) -> int:
    distance = np.abs(signs.way - place)
    near = np.nonzero(distance <= max(reach, float(distance.min())))[0]
    sharp = near[signs.sharpness[near] >= _NEARLY_AS_SHARP * signs.sharpness[near].max()]
    return int(sharp[distance[sharp].argmin()])


def _sharpness(picture: UInt8[np.ndarray, "h w"]) -> float:
    return float(cv2.Laplacian(picture, cv2.CV_64F).var() / max(float(picture.var()), 1.0))


def _shrunk(picture: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h2 w2"]:
    shrink = FLOW_SIDE / max(picture.shape)
    return picture if shrink >= 1 else cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)


class _Odometer:
    """Adds up how far the scene moves over the image.

    Motion is measured from a reference frame by following its corners from frame to frame, and the reference moves on
    only after a noticeable step: the noise of a still camera does not add up.
    """

    def __init__(self) -> None:
        self.way = 0.0
        """Up to the reference."""
        self.reached = 0.0
        """From the reference to the last frame that could be followed."""
        self.last: np.ndarray | None = None
        self.missed = 0
        self.found = 0
        self.origin: np.ndarray = np.zeros((0, 2), np.float32)
        self.points: np.ndarray = self.origin

    def step(self, picture: np.ndarray) -> tuple[float, bool]:
        """(way of this frame, whether it begins another shot)."""
        if self.last is None:
            self._refer_to(picture)
            return 0.0, False
        kept, moved = _follow(self.last, picture, self.points)
        if len(moved) < max(_MIN_POINTS, 0.2 * self.found):
            return self._lost(picture)
        self.last, self.missed = picture, 0
        self.origin, self.points = self.origin[kept], moved
        self.reached = _motion(self.origin, moved) / max(picture.shape)
        position = self.way + self.reached
        if self.reached > _REFERENCE_REACH or len(moved) < 0.4 * self.found:
            self._refer_to(picture)
        return position, False

    def _refer_to(self, picture: np.ndarray) -> None:
        found = cv2.goodFeaturesToTrack(picture, _POINTS, 0.005, max(picture.shape) / 40)
        self.origin = self.points = np.zeros((0, 2), np.float32) if found is None else found[:, 0]
        self.last, self.missed, self.found = picture, 0, len(self.points)
        self.way, self.reached = self.way + self.reached, 0.0

    def _lost(self, picture: np.ndarray) -> tuple[float, bool]:
        """Too few points could be followed: another shot, a smeared frame, no texture, or motion too fast to follow.

        A few frames are passed over, so that the first sharp one after them is followed from the last one before.
        """
        assert self.last is not None
        cut = _likeness(self.last, picture) < _CUT_LIKENESS
        self.missed += 1
        if not cut and self.missed <= _PASSED_OVER:
            return self.way + self.reached, False
        self.way += _LOST_STEP if self.found >= _MIN_POINTS and not cut else 0.0
        self._refer_to(picture)
        return self.way, cut


def _follow(last: np.ndarray, picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which points could be followed there and back, where they are now) by pyramidal Lucas-Kanade."""
    if not len(points):
        return np.zeros(0, bool), points
    window = {"winSize": (15, 15), "maxLevel": 3}
    there, found, _ = cv2.calcOpticalFlowPyrLK(last, picture, points[:, None], None, **window)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(picture, last, there, None, **window)  # type: ignore[call-overload]
    closed = np.linalg.norm(back[:, 0] - points, axis=-1) < 0.7
    kept = (found[:, 0] > 0) & (returned[:, 0] > 0) & closed
    return kept, there[kept, 0]


def _motion(origin: np.ndarray, moved: np.ndarray) -> float:
    """Motion in pixels: ``TURN_SHARE`` x |median flow| + mean |flow - median flow|."""
    flow = moved - origin
    common = np.median(flow, axis=0)
    return float(TURN_SHARE * np.linalg.norm(common) + np.linalg.norm(flow - common, axis=-1).mean())


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two pictures at thumbnail size, in [-1, 1]; two pictures without any contrast are alike."""
    small = [cv2.resize(picture, (16, 12), interpolation=cv2.INTER_AREA).astype(np.float64) for picture in (a, b)]
    x, y = (picture - picture.mean() for picture in small)
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return 1.0 if scale < 1e-6 else float((x * y).sum() / scale)
