"""SIFT (Lowe 2004) through OpenCV: the matcher that needs no weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import Progress
from reliev3r.labels.tracks.epipolar import epipolar_distance, estimate_fundamental
from reliev3r.labels.tracks.pairs import choose_pairs
from reliev3r.labels.tracks.union import PairMatches, drop_inconsistent, thin, tracks_from_matches
from reliev3r.types import Tracks


@dataclass(frozen=True, kw_only=True, eq=False)
class _Features:
    """Keypoints of one image at working resolution."""

    uv: Float[np.ndarray, "n 2"]
    """Working pixels, corner convention, float64."""
    descriptor: Float[np.ndarray, "n 128"]
    """RootSIFT (Arandjelovic & Zisserman 2012), unit length."""
    K: Float[np.ndarray, "3 3"] | None
    """In working pixels."""
    scale: Float[np.ndarray, "2"]
    """Original pixels per working pixel."""


@dataclass(frozen=True, kw_only=True)
class SiftTracks:
    """RootSIFT, mutual nearest neighbours, MAGSAC++, union-find.

    The ratio test picks the matches that the geometry of a pair is estimated from; once it is known, every mutual
    nearest neighbour near its epipolar line is taken: a quarter more matches that are as often true. Very low contrast
    is accepted, because what hardly shows is often what ties wide pairs together.
    """

    long_side: int = 1600
    """Larger images are matched at this size in pixels; the result is in original pixels."""
    features: int = 3000
    """Keypoints an image, the strongest."""
    contrast: float = 0.004
    """OpenCV's contrast threshold; a quarter of it where an image gives fewer than 500 keypoints."""
    edge: float = 15.0
    ratio: float = 0.8
    threshold: float = 1.5
    """Epipolar distance in working pixels of a true match (at least; 0.0015 of the long side where that is more)."""
    min_inliers: int = 15
    """Pairs with fewer matches that pass ratio test and geometry are not connected."""
    max_tracks: int = 4096
    """Of up to 32 views, and in proportion of more; the longest are kept, evenly over the pairs of views."""

    def fingerprint(self) -> dict[str, Any]:
        """Settings and the version of OpenCV."""
        return {"name": "sift", "version": 1, "opencv": cv2.__version__, **dataclasses.asdict(self)}

    def track(self, capture: Capture, progress: Progress | None = None) -> Tracks:
        """Tracks [v, m] in original pixels; m = 0 where nothing matches. Two-view tracks are included."""
        pairs = choose_pairs(len(capture.frames))
        total = len(capture.frames) + len(pairs)
        features = []
        for index, frame in enumerate(capture.frames):
            features.append(self._detect(capture.image(index), frame))
            if progress:
                progress(index + 1, total, "SIFT keypoints")
        matches = []
        threshold = self._threshold(capture.frames)
        for done, (first, second) in enumerate(pairs, start=len(features) + 1):
            found = self._match(first, second, features[first], features[second], threshold)
            if found is not None:
                matches.append(found)
            if progress:
                progress(done, total, "SIFT matches")
        tracks = tracks_from_matches([f.uv for f in features], matches)
        tracks = drop_inconsistent(tracks, matches, threshold=4 / 3 * threshold)
        scale = torch.from_numpy(np.stack([f.scale for f in features])).float()
        most = round(self.max_tracks * max(1, len(features) / 32))
        return thin(dataclasses.replace(tracks, uv=tracks.uv * scale[:, None]), most)

    def _threshold(self, frames: tuple[Frame, ...]) -> float:
        longest = max(min(self.long_side, max(frame.width, frame.height)) for frame in frames)
        return max(self.threshold, 0.0015 * longest)

    def _detect(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame) -> _Features:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        shrink = self.long_side / max(grey.shape)
        if shrink < 1:
            grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        for contrast in (self.contrast, self.contrast / 4):
            # Precise upscaling: without it OpenCV's keypoints are a quarter of a pixel off.
            sift = cv2.SIFT.create(
                nfeatures=self.features,
                contrastThreshold=contrast,
                edgeThreshold=self.edge,
                enable_precise_upscale=True,
            )
            keypoints, descriptor = sift.detectAndCompute(grey, None)
            if len(keypoints) >= 500:
                break
        uv = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2) + 0.5
        descriptor = np.zeros((0, 128), np.float32) if descriptor is None else descriptor
        descriptor = np.sqrt(descriptor / np.maximum(descriptor.sum(1, keepdims=True), 1e-9))
        scale = np.array([frame.width / grey.shape[1], frame.height / grey.shape[0]])
        K = None if frame.K is None else np.diag([*(1 / scale), 1.0]) @ frame.K
        return _Features(uv=uv, descriptor=descriptor, K=K, scale=scale)

    def _match(self, first: int, second: int, a: _Features, b: _Features, threshold: float) -> PairMatches | None:
        """Matches of a pair, None where no geometry has enough support."""
        if min(len(a.uv), len(b.uv)) < 2:
            return None
        index_a, index_b, ratio = mutual_neighbours(a.descriptor, b.descriptor)
        uv_a, uv_b, sure = a.uv[index_a], b.uv[index_b], ratio < self.ratio
        if sure.sum() < self.min_inliers:
            return None
        F = estimate_fundamental(uv_a[sure], uv_b[sure], a.K, b.K, threshold=threshold)
        if F is None:
            return None
        near = epipolar_distance(F, uv_a, uv_b) < threshold
        if (near & sure).sum() < self.min_inliers:
            return None
        return PairMatches(
            first=first, second=second, index_first=index_a[near], index_second=index_b[near], doubt=ratio[near], F=F
        )


def mutual_neighbours(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Mutual nearest neighbours of unit descriptors, m >= 2: positions in a and b, distance over second distance."""
    similarity = a @ b.T
    nearest = similarity.argmax(1)
    best = similarity[np.arange(len(a)), nearest]
    index = np.nonzero(best >= similarity.max(0)[nearest])[0]  # argmax over columns would be much slower
    nearest, best = nearest[index], best[index]
    others = similarity[index]
    others[np.arange(len(index)), nearest] = -1
    second = others.max(1)
    ratio = np.sqrt(np.maximum(2 - 2 * best, 0) / np.maximum(2 - 2 * second, 1e-9))
    return index, nearest, ratio
