"""Points to look at: in the order of confidence, not more than a viewer draws, and where to stand to see them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.export.points import pixel_size, shown_pixels
from reliev3r.geometry.camera import transform
from reliev3r.geometry.statistics import main_part

_LOOKED_AT = 6


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Coloured points, the most confident first."""

    points: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    conf: Float[np.ndarray, " n"]
    spacing: float
    """About how far neighbours are apart; 0 without any points."""

    @staticmethod
    def of(
        reconstruction: Reconstruction,
        upright_from_world: Float[Tensor, "4 4"],
        most: int,
        known: Bool[np.ndarray, "v h w"] | None = None,
    ) -> Cloud:
        """At most ``most`` of the ``known`` pixels, moved; none of a system without depth."""
        prediction = reconstruction.prediction
        pixels = torch.zeros(0, dtype=torch.long)
        if reconstruction.predicts_depth:
            pixels = shown_pixels(prediction, keep=1.0)
        if known is not None:
            pixels = pixels[torch.from_numpy(known).flatten()[pixels]]
        points = transform(upright_from_world, prediction.points_world.reshape(-1, 3)[pixels].double()).numpy()
        conf = prediction.conf.flatten()[pixels].numpy()
        finite = np.isfinite(points).all(1) & np.isfinite(conf)  # other systems may say anything
        pixels, points, conf = pixels[torch.from_numpy(finite)], points[finite], conf[finite]
        kept, spacing = thinned(points, conf, most, pixel_size(reconstruction)) if len(points) else (slice(0), 0.0)
        colours = reconstruction.image.reshape(-1, 3)[pixels].numpy()
        return Cloud(points=points[kept], colours=colours[kept], conf=conf[kept], spacing=spacing)


def thinned(
    points: Float[np.ndarray, "n 3"], conf: Float[np.ndarray, " n"], most: int, size: float
) -> tuple[Int[np.ndarray, " k"], float]:
    """Index of at most ``most`` points, the most confident of each voxel, and a length they are apart.

    In the order of confidence, equal ones mixed. The voxels' side is at least ``size``, if there are too many points;
    of more than six times as many, every n-th is looked at, evenly over the confidences.
    """
    mixed = np.random.default_rng(0).permutation(len(points))
    order = mixed[np.argsort(-conf[mixed], kind="stable")]
    if most <= 0 or len(points) <= most:
        return order[:most], size
    order = order[:: math.ceil(len(order) / (_LOOKED_AT * most))]
    middle = np.median(points[order], axis=0)
    size = max(size, np.finfo(float).tiny)
    while True:
        # A voxel's number has 21 bits an axis; what lies farther out shares the outermost ones.
        cells = np.clip(np.floor((points[order] - middle) / size), -(2**20), 2**20 - 1).astype(np.int64) + 2**20
        _, first = np.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2], return_index=True)
        if len(first) <= most:
            return order[np.sort(first)], size
        size *= max(1.02, math.sqrt(len(first) / most))  # points lie on surfaces


@dataclass(frozen=True, kw_only=True)
class WholeScene:
    """How to look at all of it, in the upright frame."""

    extent: float
    """Length of the diagonal of what most points lie in."""
    target: Float[np.ndarray, "3"]
    start: Float[np.ndarray, "3"]
    """Where to stand: behind the cameras, and above."""


def whole_scene(centres: Float[np.ndarray, "v 3"], seen: Float[np.ndarray, "n 3"]) -> WholeScene:
    """A place from where one sees the cameras and most points within 23 degrees, but for those that lie lost
    (:func:`~reliev3r.geometry.statistics.main_part`); y is up."""
    seen = main_part(seen)
    target = np.median(seen, axis=0)
    centres = main_part(centres, target)
    extent = float(np.linalg.norm(np.percentile(seen, 95, axis=0) - np.percentile(seen, 5, axis=0))) or 1.0
    away = centres.mean(0) - target
    length = float(np.linalg.norm(away))
    away = away / length if length > 0.3 * extent else np.array([0.3, 0, 1])  # cameras all around look inwards
    away[1] += 0.4
    away /= np.linalg.norm(away)

    def far_enough(places: np.ndarray) -> np.ndarray:
        along = (places - target) @ away
        across = np.linalg.norm(places - target - along[:, None] * away, axis=1)
        return along + across / math.tan(math.radians(23))

    distance = max(far_enough(centres).max(), np.percentile(far_enough(seen), 80), 0.1 * extent)
    return WholeScene(extent=extent, target=target, start=target + distance * away)
