"""A point tracker of videos, made of a network that follows points through a clip: what all such trackers share."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash
from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.geometry.sampling import clip_ranges, evenly_spaced
from reliev3r.labels.tracks.clips import agreed, corners, farthest_frame, frozen, inside
from reliev3r.labels.tracks.moving_objects import verified
from reliev3r.labels.tracks.union import thin, track_budget

LEAST_FRAMES = 5
"""For clips of four frames or fewer CoTracker hands back (0, 0) without a word."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Clip:
    """A piece of the video at working resolution, and where it lies."""

    start: int
    stop: int
    images: UInt8[np.ndarray, "t h w 3"]


@dataclass(eq=False)
class _Found:
    """All points so far, over all frames of the capture, in working pixels."""

    uv: Float[np.ndarray, "m v 2"]
    seen: Bool[np.ndarray, "m v"]


@dataclass(frozen=True, kw_only=True)
class VideoTracker(ABC):
    """Corners of several frames followed forward and backward through overlapping clips; for videos only.

    Each clip is followed twice: from the points asked for, and back from where they arrived. What does not come back
    to within ``tolerance`` is dropped (after an occlusion the tracker may go on with another point), and so is what
    lies at the border or stands still near it (trackers freeze points that leave the image). Points that are seen in
    the overlap go on in the next clip if it agrees with the last one about where they were. In the end every
    observation is checked against the geometry of its pairs of frames, as with any matcher. A subclass has the network
    (:meth:`_predict`).
    """

    name: ClassVar[str]
    """In fingerprints."""
    title: ClassVar[str]
    """In messages."""
    source: ClassVar[str]
    """Where its weights come from, as the end of a sentence."""

    checkpoint: Path
    device: str = "cpu"
    window: int = 48
    """Frames of a clip, at most."""
    overlap: int = 12
    """Frames that neighbouring clips share, at least."""
    query_frames: int = 3
    """Frames of a clip whose corners are followed."""
    queries: int = 400
    """Corners of each of these frames."""
    batch: int = 1024
    """Points followed at once."""
    long_side: int = 1024
    """Larger frames are shrunk before, with filtering: networks work on smaller ones still, some taken without."""
    tolerance: float = 0.003
    """All lengths are shares of the frame's long side (of CoTracker's 512 x 384 pixels about 1.5)."""
    border: float = 0.01
    strip: float = 0.05
    """Width of the strip along the border in which points that stand still are doubted."""
    spacing: float = 0.008
    """New points this close to one that is followed already are the same."""
    max_tracks: int = 4096
    """Of up to 32 frames, and in proportion of more."""

    @cached_property
    def _hash(self) -> str:
        if not self.checkpoint.is_file():
            raise UserError(f"{self.checkpoint}: no such file; {self.source}")
        return file_hash(self.checkpoint)

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        settings = dataclasses.asdict(self)
        del settings["checkpoint"], settings["device"]
        return {"name": self.name, "version": 1, "weights_sha256": self._hash, **settings}

    def track(self, capture: Capture, progress: Progress | None = None) -> Tracks:
        """Tracks [v, m] in original pixels; m = 0 where nothing can be followed.

        Raises:
            UserError: photographs instead of a video, fewer than five frames, frames of several sizes, or the package
                or checkpoint is missing.
        """
        self._hash  # noqa: B018 - the checkpoint is there
        width, height = self._checked_size(capture)
        shrink = min(1.0, self.long_side / max(width, height))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        views = len(capture.frames)
        found = _Found(uv=np.zeros((0, views, 2)), seen=np.zeros((0, views), bool))
        clips = clip_ranges(views, window=max(self.window, LEAST_FRAMES), overlap=self.overlap)
        for done, (start, stop) in enumerate(clips, start=1):
            images = np.stack([_resized(capture.image(index), size) for index in range(start, stop)])
            self._extend(found, _Clip(start=start, stop=stop, images=images))
            if progress:
                progress(done, len(clips), f"{self.title} clips")
        scale = np.array([width / size[0], height / size[1]])
        keep = found.seen.sum(1) >= 2
        uv = (found.uv[keep] * scale).transpose(1, 0, 2)
        tracks = Tracks(
            uv=torch.from_numpy(np.ascontiguousarray(uv)).float(),
            weight=torch.from_numpy(np.ascontiguousarray(found.seen[keep].T)).float(),
        )
        tracks = verified(tracks, [frame.K for frame in capture.frames], threshold=self.tolerance * max(width, height))
        return thin(tracks, track_budget(self.max_tracks, views))

    def _checked_size(self, capture: Capture) -> tuple[int, int]:
        """(width, height) of all frames."""
        if not capture.ordered:
            raise UserError(
                f"{capture.root}: photographs have no order in time, which {self.title} follows points through; use a "
                "pairwise matcher (--tracks sift, see `reliev3r experts`), give the video itself, or say "
                '"ordered": true in cameras.json where its frames are in the order of time'
            )
        if len(capture.frames) < LEAST_FRAMES:
            raise UserError(
                f"{capture.root}: {len(capture.frames)} frames are too few for {self.title}; give it {LEAST_FRAMES} or "
                "more (--views), or use --tracks sift"
            )
        sizes = {(frame.width, frame.height) for frame in capture.frames}
        if len(sizes) > 1:
            raise UserError(
                f"{capture.root}: its frames are of {len(sizes)} sizes; {self.title} needs one, use --tracks sift"
            )
        return sizes.pop()

    def _extend(self, found: _Found, clip: _Clip) -> None:
        """Follow the known points on into this clip, and new ones."""
        long_side = max(clip.images.shape[1:3])
        span = slice(clip.start, clip.stop)
        known, asked, where = _going_on(found, clip)
        new_asked, new_where = self._corners(clip)
        uv, seen = self._follow(clip, np.concatenate([asked, new_asked]), np.concatenate([where, new_where]))
        for row, track in enumerate(known):
            before = found.seen[track, span]
            apart = np.linalg.norm(uv[row] - found.uv[track, span], axis=1)
            told = before & seen[row]
            if not told.any() or np.median(apart[told]) > self.tolerance * long_side:
                continue
            fresh = seen[row] & ~before & (np.arange(clip.stop - clip.start) > asked[row])
            found.uv[track, span][fresh] = uv[row, fresh]
            found.seen[track, span][fresh] = True
        fresh_uv = np.zeros((len(new_asked), *found.uv.shape[1:]))
        fresh_seen = np.zeros(fresh_uv.shape[:2], bool)
        fresh_uv[:, span], fresh_seen[:, span] = uv[len(known) :], seen[len(known) :]
        _append(found, fresh_uv, fresh_seen, clip.start + new_asked, radius=self.spacing * long_side)

    def _corners(self, clip: _Clip) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 2"]]:
        """Frames (of the clip) and places of new points."""
        border = self.border * max(clip.images.shape[1:3])
        frames = evenly_spaced(range(len(clip.images)), self.query_frames)
        places = [corners(clip.images[frame], count=self.queries, border=border) for frame in frames]
        return np.repeat(frames, [len(uv) for uv in places]), np.concatenate(places)

    def _follow(
        self, clip: _Clip, asked: Int[np.ndarray, " n"], where: Float[np.ndarray, "n 2"]
    ) -> tuple[Float[np.ndarray, "n t 2"], Bool[np.ndarray, "n t"]]:
        """Where points are in each frame of the clip, and where that can be believed."""
        height, width = clip.images.shape[1:3]
        long_side = max(height, width)
        there, seen = self._predict(clip.images, asked, where)
        seen &= inside(there, width, height, border=self.border * long_side)
        seen &= ~frozen(there, seen, width, height, strip=self.strip * long_side)
        end = farthest_frame(seen, asked)
        back, seen_back = self._predict(clip.images, end, there[np.arange(len(there)), end])
        seen = agreed(there, back, seen & seen_back, asked, tolerance=self.tolerance * long_side)
        return there, seen & (end != asked)[:, None]

    @abstractmethod
    def _predict(
        self, video: UInt8[np.ndarray, "t h w 3"], asked: Int[np.ndarray, " n"], where: Float[np.ndarray, "n 2"]
    ) -> tuple[Float[np.ndarray, "n t 2"], Bool[np.ndarray, "n t"]]:
        """The network's own answer: places (pixels, corner convention) and visibility, before and after ``asked``.

        In its own frame each point is where it was asked for, and seen.
        """


def _resized(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _going_on(
    found: _Found, clip: _Clip
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, "k 2"]]:
    """Known tracks that are seen in the clip: which, in which of its frames last, and where."""
    seen = found.seen[:, clip.start : clip.stop]
    known = np.nonzero(seen.any(1))[0]
    asked = seen.shape[1] - 1 - seen[known, ::-1].argmax(1)
    return known, asked, found.uv[known, clip.start + asked]


def _append(
    found: _Found,
    uv: Float[np.ndarray, "n v 2"],
    seen: Bool[np.ndarray, "n v"],
    asked: Int[np.ndarray, " n"],
    *,
    radius: float,
) -> None:
    """Add tracks that are seen twice or more, except where another one already passes through the asked place."""
    for frame in np.unique(asked):
        rows = np.nonzero((asked == frame) & (seen.sum(1) >= 2))[0]
        there = found.uv[found.seen[:, frame], frame]
        if len(there) and len(rows):
            nearest = np.linalg.norm(uv[rows, frame][:, None] - there[None], axis=2).min(1)
            rows = rows[nearest > radius]
        found.uv = np.concatenate([found.uv, uv[rows]])
        found.seen = np.concatenate([found.seen, seen[rows]])
