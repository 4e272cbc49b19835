"""Two views to start a solve with: well tied, at a useful angle, by the essential matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.sfm.camera_solve import SolveConfig

_PAIRS = 6
"""Pairs that are tried, a view; those that share most."""
_NO_CHANCE = 0.25
"""COLMAP places no view of whose tracks fewer agree; among noise some pair finds a dozen."""
_USEFUL_DEG = 12.0
"""A larger angle between the rays makes a pair no better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedPair:
    """Relative motion of two views."""

    first: int
    second: int
    rotation: Float[np.ndarray, "3 3"]
    """second_from_first."""
    direction: Float[np.ndarray, " 3"]
    """Of the translation of second_from_first; unit length."""
    agree: float
    """Share of the tracks of both that agree with it."""
    worth: float
    """Inliers times their median angle in degrees, up to what is useful."""


def best_seeds(tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig) -> list[SeedPair]:
    """At most ``config.seeds`` pairs, the best first."""
    return sorted(_seeds(tracks, K, config), key=lambda seed: -seed.worth)[: config.seeds]


def can_start(tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig) -> bool:
    """Whether there is such a pair that is no chance: a quarter of its tracks agree."""
    return any(seed.agree > _NO_CHANCE for seed in _seeds(tracks, K, config))


def _seeds(tracks: Tracks, K: Tensor, config: SolveConfig) -> Iterator[SeedPair]:
    seen = tracks.visible.numpy()
    points = rays_from_uv(tracks.uv.double(), K.double())[..., :2].numpy()
    shared = seen.astype(np.float32) @ seen.T.astype(np.float32)
    first, second = np.triu_indices(len(seen), 1)
    order = np.argsort(-shared[first, second], kind="stable")[: _PAIRS * len(seen)]
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if shared[i, j] < config.min_seed_matches:
            return
        both = seen[i] & seen[j]
        a, b = points[i, both], points[j, both]
        found = _essential(a, b, config.inlier_angle)
        if found is None:
            continue
        rotation, direction, inliers = found
        angle = np.degrees(np.median(_angles(a[inliers], b[inliers], rotation)))
        worth = float(inliers.sum() * min(angle, _USEFUL_DEG))
        yield SeedPair(
            first=i, second=j, rotation=rotation, direction=direction, agree=float(inliers.mean()), worth=worth
        )


def _angles(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"], rotation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, " n"]:
    """Between the rays of matches, in radians."""
    turned, other = np.c_[a, np.ones(len(a))] @ rotation.T, np.c_[b, np.ones(len(b))]
    cosine = (turned * other).sum(-1) / (np.linalg.norm(turned, axis=-1) * np.linalg.norm(other, axis=-1))
    return np.arccos(np.clip(cosine, -1, 1))


def _essential(
    a: np.ndarray, b: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, " n"]] | None:
    """(b_from_a rotation, translation direction, inlier mask) between normalised image points, or None."""
    cv2.setRNGSeed(0)
    matrix, mask = cv2.findEssentialMat(a, b, np.eye(3), cv2.USAC_MAGSAC, 0.9999, threshold / 2, 2000)
    if matrix is None or matrix.shape != (3, 3):
        return None
    count, rotation, translation, mask = cv2.recoverPose(matrix, a, b, np.eye(3), mask=mask)
    if count < 12:
        return None
    return rotation, translation[:, 0], mask[:, 0] > 0
