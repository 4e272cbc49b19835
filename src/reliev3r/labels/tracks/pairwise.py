"""Tracks from any pairwise matcher: working resolution, pairs, verification, union-find, doubt, once for all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from reliev3r.core.memory import return_free_memory
from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.tracks.matcher import Features, ImageMatcher, Matcher
from reliev3r.labels.tracks.moving_objects import weigh_moving
from reliev3r.labels.tracks.pairs import choose_pairs, global_descriptors, is_exhaustive
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.labels.tracks.union import (
    PairMatches,
    PointPair,
    drop_inconsistent,
    merge_points,
    thin,
    track_budget,
    tracks_from_matches,
)
from reliev3r.sfm.two_view import epipolar_distance, estimate_fundamental

_TIDY = 100
"""Pairs after which freed memory is handed back."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """One image at working resolution; the image itself is read again when it is needed."""

    features: Features
    """None at all (n = 0) for matchers without keypoints of their own."""
    K: Float[np.ndarray, "3 3"] | None
    """In working pixels."""
    scale: Float[np.ndarray, "2"]
    """Original pixels per working pixel."""


@dataclass(frozen=True, kw_only=True)
class PairwiseTracks:
    """A matcher on chosen pairs, MAGSAC++, union-find.

    The matcher's sure matches are what the geometry of a pair is estimated from; once it is known, every candidate
    near its epipolar line is taken: with SIFT a quarter more matches that are as often true. Points that move against
    the static majority get a smaller weight (``moving``).
    """

    matcher: Matcher
    long_side: int = 1600
    """Larger images are matched at this size in pixels; the result is in original pixels."""
    threshold: float = 1.5
    """Epipolar distance in working pixels of a true match (at least; 0.0015 of the long side where that is more)."""
    min_inliers: int = 15
    """Pairs with fewer matches that are sure and agree with the geometry are not connected."""
    min_share: float = 0.0
    """Nor those where a smaller share of the sure matches agrees: a wrong geometry finds some agreement among many."""
    max_tracks: int = 4096
    """Of up to 32 views, of more as ``track_budget`` says; the longest are kept, evenly over the pairs of views."""

    def fingerprint(self) -> dict[str, Any]:
        """Settings, checkpoint hash and versions of the libraries."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "matcher"}
        return {"name": self.matcher.name, "version": 2, **self.matcher.fingerprint(), **own}

    def track(self, capture: Capture, progress: Progress | None = None) -> Tracks:
        """Tracks [v, m] in original pixels; m = 0 where nothing matches. Two-view tracks are included.

        Raises:
            UserError: unreadable images, or the matcher's package or weights are missing.
        """
        threshold = self._threshold(capture.frames)
        views = self._views(capture, progress)
        pairs = choose_pairs(len(views), ordered=capture.ordered, descriptors=lambda: self._descriptors(capture, views))
        if isinstance(self.matcher, ImageMatcher):
            points, matches = self._match_images(capture, views, pairs, threshold, progress)
        else:
            points, matches = self._match_features(views, pairs, threshold, progress)
        tracks = tracks_from_matches(points, matches)
        tracks = drop_inconsistent(tracks, matches, threshold=4 / 3 * threshold)
        tracks = weigh_moving(tracks, points, matches)
        del points, matches
        return_free_memory()
        scale = torch.from_numpy(np.stack([view.scale for view in views])).float()
        return thin(
            dataclasses.replace(tracks, uv=tracks.uv * scale[:, None]), track_budget(self.max_tracks, len(views))
        )

    def _threshold(self, frames: tuple[Frame, ...]) -> float:
        longest = max(min(self.long_side, max(frame.width, frame.height)) for frame in frames)
        return max(self.threshold, 0.0015 * longest)

    def _views(self, capture: Capture, progress: Progress | None) -> list[_View]:
        """Keypoints and scales of all images."""
        # The number of pairs is known beforehand where all are matched; else it joins the total after this.
        count = len(capture.frames)
        total = count + (count * (count - 1) // 2 if is_exhaustive(count, ordered=capture.ordered) else 0)
        views = []
        for index, frame in enumerate(capture.frames):
            views.append(self._view(capture.image(index), frame))
            if progress:
                progress(index + 1, total, f"{self.matcher.name} keypoints")
        return views

    def _view(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame) -> _View:
        if isinstance(self.matcher, ImageMatcher):
            working = working_image(image, self.long_side)
            size = (working.shape[1], working.shape[0])
            features = Features(uv=np.zeros((0, 2)), descriptor=np.zeros((0, 1), np.float32), size=size)
        else:
            features = self.matcher.detect(working_image(image, self.long_side, grey=self.matcher.grey))
        scale = np.array([frame.width / features.size[0], frame.height / features.size[1]])
        K = None if frame.K is None else np.diag([*(1 / scale), 1.0]) @ frame.K
        return _View(features=features, K=K, scale=scale)

    def _descriptors(self, capture: Capture, views: list[_View]) -> Float[np.ndarray, "v d"]:
        """For retrieval: of the matcher's own features, of a few SIFT ones where it has none."""
        if isinstance(self.matcher, ImageMatcher):
            return look_alike_descriptors(capture)
        return global_descriptors([view.features.descriptor for view in views])

    def _match_features(
        self, views: list[_View], pairs: list[tuple[int, int]], threshold: float, progress: Progress | None
    ) -> tuple[list[np.ndarray], list[PairMatches]]:
        """Keypoints of all images and the verified matches between them."""
        matches = []
        for done, (first, second) in enumerate(pairs, start=1):
            found = self._match_pair(first, second, views, threshold)
            if found is not None:
                matches.append(found)
            if done % _TIDY == 0:
                return_free_memory()
            if progress:
                progress(len(views) + done, len(views) + len(pairs), f"{self.matcher.name} matches")
        return [view.features.uv for view in views], matches

    def _match_pair(self, first: int, second: int, views: list[_View], threshold: float) -> PairMatches | None:
        assert not isinstance(self.matcher, ImageMatcher)
        a, b = views[first].features, views[second].features
        if min(len(a.uv), len(b.uv)) < 2:
            return None
        found = self.matcher.match(a, b)
        verified = self._verify(
            a.uv[found.first], b.uv[found.second], found.sure, views[first], views[second], threshold
        )
        if verified is None:
            return None
        F, near, far = verified
        against = found.sure & far
        return PairMatches(
            first=first,
            second=second,
            index_first=found.first[near],
            index_second=found.second[near],
            doubt=found.doubt[near],
            F=F,
            against=np.stack([found.first[against], found.second[against]], axis=1),
        )

    def _match_images(
        self,
        capture: Capture,
        views: list[_View],
        pairs: list[tuple[int, int]],
        threshold: float,
        progress: Progress | None,
    ) -> tuple[list[np.ndarray], list[PairMatches]]:
        """The same for a matcher without keypoints: points of all pairs are merged to keypoints."""
        assert isinstance(self.matcher, ImageMatcher)
        load = lru_cache(maxsize=32)(lambda index: working_image(capture.image(index), self.long_side))
        verified = []
        for done, (first, second) in enumerate(pairs, start=1):
            found = self.matcher.match_images(load(first), load(second))
            sure = np.ones(len(found.first), dtype=bool)
            geometry = self._verify(found.first, found.second, sure, views[first], views[second], threshold)
            if geometry is not None:
                F, near, far = geometry
                verified.append(PointPair(first=first, second=second, found=found, F=F, near=near, against=far))
            if done % _TIDY == 0:
                return_free_memory()
            if progress:
                progress(len(views) + done, len(views) + len(pairs), f"{self.matcher.name} matches")
        return merge_points(len(views), verified, cell=self.matcher.cell)

    def _verify(
        self,
        uv_a: Float[np.ndarray, "n 2"],
        uv_b: Float[np.ndarray, "n 2"],
        sure: Bool[np.ndarray, " n"],
        a: _View,
        b: _View,
        threshold: float,
    ) -> tuple[Float[np.ndarray, "3 3"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]] | None:
        """F, which matches agree with it and which clearly do not; None where no geometry has enough support."""
        if sure.sum() < self.min_inliers:
            return None
        F = estimate_fundamental(uv_a[sure], uv_b[sure], a.K, b.K, threshold=threshold)
        if F is None:
            return None
        distance = epipolar_distance(F, uv_a, uv_b)
        near = distance < threshold
        if (near & sure).sum() < max(self.min_inliers, self.min_share * sure.sum()):
            return None
        return F, near, distance > 2 * threshold


def look_alike_descriptors(capture: Capture) -> Float[np.ndarray, "v d"]:
    """Of unit length (or zero), for retrieval: views whose product is large look alike. By a few SIFT features."""
    sift = SiftMatcher(features=800)
    images = (capture.image(index) for index in range(len(capture.frames)))
    return global_descriptors([sift.detect(working_image(image, 640, grey=True)).descriptor for image in images])


def working_image(
    image: UInt8[np.ndarray, "h w 3"], long_side: int, *, grey: bool = False
) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """The image, or its luminance, shrunk to ``long_side`` pixels where it is larger."""
    if grey:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    shrink = long_side / max(image.shape[:2])
    return cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else image
