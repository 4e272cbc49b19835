"""Small pictures of one view: photograph with tracks, pseudo depth, predicted depth, confidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.export.maps import colour_map, depth_picture, depth_scale
from reliev3r.geometry.triangulate import consistent_points, triangulation_angles, world_rays

LONG_SIDE = 320
WORST_ANGLE_DEG = 2.0
"""Residual at the red end of the track colours."""
_MOST_DOTS = 400
_TRUSTED_ANGLE = math.radians(WORST_ANGLE_DEG)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """RGB pictures of one view, all of one size; ``pseudo_depth`` is ``None`` without a depth expert, ``confidence``
    where it says nothing."""

    image: UInt8[np.ndarray, "h w 3"]
    pseudo_depth: UInt8[np.ndarray, "h w 3"] | None
    depth: UInt8[np.ndarray, "h w 3"]
    confidence: UInt8[np.ndarray, "h w 3"] | None


@dataclass(frozen=True, kw_only=True)
class TrackLayer:
    """Tracks with the residual that colours them."""

    tracks: Tracks
    residual_deg: Float[Tensor, "v m"]
    heldout: Bool[Tensor, " m"]

    @staticmethod
    def of(reconstruction: Reconstruction, tracks: Tracks | None, heldout: Tracks | None) -> TrackLayer | None:
        """Both kinds as one; the residual is the angle to the point that the cameras triangulate robustly."""
        given = [part for part in (tracks, heldout) if part is not None]
        if not given:
            return None
        held = torch.cat([torch.full((part.uv.shape[1],), part is heldout) for part in given])
        joined = Tracks(uv=torch.cat([p.uv for p in given], dim=1), weight=torch.cat([p.weight for p in given], dim=1))
        K, world_from_cam = reconstruction.K_original, reconstruction.prediction.world_from_cam.double()
        points, _ = consistent_points(joined, K, world_from_cam, max_angle=_TRUSTED_ANGLE)
        rays = world_rays(joined.to(torch.float64), K, world_from_cam)
        residual = triangulation_angles(points, rays, world_from_cam[:, :3, 3]).rad2deg()
        return TrackLayer(tracks=joined, residual_deg=residual, heldout=held)


def view_pictures(
    reconstruction: Reconstruction,
    view: int,
    *,
    label_depth: Float[np.ndarray, "v h2 w2"] | None,
    layer: TrackLayer | None,
    photograph: Callable[[int], np.ndarray] | None = None,
) -> Pictures:
    """Pictures of the part of a view that its maps cover.

    Depth is coloured on one scale for all views (:func:`~reliev3r.export.maps.depth_scale`); pseudo depth is multiplied
    by the factor that matches it to the prediction in the median, because its own scale means nothing. ``photograph``
    gives a view's original image (RGB uint8), else the network's own input is enlarged.
    """
    depth = reconstruction.prediction.depth[view].numpy()
    size = _picture_size(*depth.shape)
    near, far = depth_scale(reconstruction.prediction.depth)
    image = cv2.resize(_covered(reconstruction, view, photograph), size, interpolation=cv2.INTER_AREA)
    if layer is not None:
        image = _with_tracks(image, reconstruction.regions[view].numpy(), layer, view)
    pseudo = None
    if label_depth is not None:
        label = label_depth[view]
        valid = np.isfinite(label) & (label > 0)
        factor = float(np.median(depth) / np.median(label[valid])) if valid.any() else 1.0
        pseudo = cv2.resize(depth_picture(label * factor, near, far), size, interpolation=cv2.INTER_NEAREST)
    conf = reconstruction.prediction.conf[view].numpy() if reconstruction.prediction.knows_confidence else None
    return Pictures(
        image=image,
        pseudo_depth=pseudo,
        depth=depth_picture(_enlarged(depth, size), near, far),
        confidence=None if conf is None else colour_map(_enlarged(conf, size), 0.0, 2.0, kind="conf"),
    )


def _picture_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) with the long side at LONG_SIDE, as OpenCV wants it."""
    factor = LONG_SIDE / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)


def _covered(reconstruction: Reconstruction, view: int, photograph: Callable[[int], np.ndarray] | None) -> np.ndarray:
    if photograph is None:
        return reconstruction.image[view].numpy()
    left, top, width, height = reconstruction.regions[view].tolist()
    return photograph(view)[round(top) : round(top + height), round(left) : round(left + width)]


def _with_tracks(image: np.ndarray, region: np.ndarray, layer: TrackLayer, view: int) -> np.ndarray:
    """Dots at the observations, green (agrees) to red (does not); held-out ones are rings."""
    height, width = image.shape[:2]
    seen = layer.tracks.visible[view].nonzero()[:, 0]
    seen = seen[:: math.ceil(len(seen) / _MOST_DOTS) or 1]
    uv = (layer.tracks.uv[view, seen].numpy() - region[:2]) / region[2:] * [width, height]
    badness = (layer.residual_deg[view, seen].numpy() / WORST_ANGLE_DEG).clip(0, 1)
    image = image.copy()
    for (x, y), bad, held in zip(uv, badness, layer.heldout[seen].tolist(), strict=True):
        if not (0 <= x < width and 0 <= y < height):
            continue
        colour = tuple(int(c) for c in badness_colour(float(bad)))
        place = (round(float(x) * 16), round(float(y) * 16))  # OpenCV draws at 1/16 pixel with shift=4
        cv2.circle(image, place, (4 if held else 2) * 16, colour, 1 if held else -1, cv2.LINE_AA, 4)
    return image


def badness_colour(bad: float) -> tuple[int, int, int]:
    """RGB from green (0) over yellow to red (1)."""
    return round(255 * min(1.0, 0.1 + 1.8 * bad)), round(220 * min(1.0, 2 - 2 * bad)), 60
