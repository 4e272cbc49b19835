"""The paper's figure of a scene: input, predicted depth and confidence, and the pseudo-labels, a column for each view.

As Figures 1 to 4 of the supplement: images, multi-view depth and confidence maps, multi-view correspondences, monocular
depth maps.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.files import atomic_path
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.export.maps import depth_picture, depth_scale
from reliev3r.report.figures import blank_figure, show_picture
from reliev3r.report.pictures import LONG_SIDE, view_pictures

_GAP = LONG_SIDE // 20
_MOST_LINES = 24
"""Correspondences that are drawn between two neighbouring views."""


def write_showcase(
    path: Path | str,
    reconstruction: Reconstruction,
    *,
    tracks: Tracks | None = None,
    label_depth: Float[np.ndarray, "v h w"] | None = None,
    photograph: Callable[[int], np.ndarray] | None = None,
    title: str = "",
) -> None:
    """Write the figure as a PNG.

    Args:
        path: of the file.
        reconstruction: of the views that are shown, from left to right.
        tracks: in original pixels, of the same views; None: no row of correspondences.
        label_depth: the expert's on the grid of the predicted maps (not positive or not finite: unknown); None: no row.
        photograph: gives a view's original image as RGB; else the network's input is shown.
        title: in one line above the figure.
    """
    count = len(reconstruction.names)
    pictures = [
        view_pictures(reconstruction, view, label_depth=None, layer=None, photograph=photograph)
        for view in range(count)
    ]
    near, far = depth_scale(reconstruction.prediction.depth)
    rows: list[tuple[str, Sequence[np.ndarray]]] = [
        ("input", [picture.image for picture in pictures]),
        (f"depth\n{near:.2g} (blue) to {far:.2g}", [picture.depth for picture in pictures]),
    ]
    if reconstruction.prediction.knows_confidence:
        sure = [picture.confidence for picture in pictures if picture.confidence is not None]
        rows.append(("confidence W\n0 (violet) to 2", sure))
    if tracks is not None:
        rows.append(("pseudo-label:\ncorrespondences", [matched(reconstruction, tracks, rows[0][1])]))
    if label_depth is not None:
        rows.append(("pseudo-label:\nmonocular depth", monocular(reconstruction, label_depth)))
    height, width = pictures[0].image.shape[:2]
    cell = 2.0 * height / width
    figure, _ = blank_figure(2.0 * count, cell * len(rows), ink="#222222", empty=True)
    grid = figure.add_gridspec(len(rows), count, wspace=_GAP / width, hspace=_GAP / height)
    for row, (name, shown) in enumerate(rows):
        for column, picture in enumerate(shown):
            place = grid[row, :] if len(shown) == 1 else grid[row, column]
            axes = figure.add_subplot(place)
            show_picture(axes, picture, "")
            axes.set_ylabel(name if column == 0 else "", fontsize=8, rotation=0, ha="right", va="center")
            axes.set_aspect("auto")  # its cell has the picture's shape but for rounding
    if title:
        figure.suptitle(title, fontsize=10, x=0.5, y=0.92)
    _save(figure, path)


def monocular(
    reconstruction: Reconstruction, label_depth: Float[np.ndarray, "v h w"]
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The expert's maps: each view times the factor that matches it to the prediction in the median, one scale of
    colours for all of them, grey where unknown."""
    known = np.isfinite(label_depth) & (label_depth > 0)
    predicted = reconstruction.prediction.depth.numpy()
    factors = [
        float(np.median(mine) / np.median(label[valid])) if valid.any() else 1.0
        for mine, label, valid in zip(predicted, label_depth, known, strict=True)
    ]
    scaled = np.where(known, label_depth, 0) * np.array(factors)[:, None, None]
    near, far = np.percentile(scaled[known], [2, 98]) if known.any() else (1.0, 2.0)
    return [depth_picture(each, float(near), float(far)) for each in scaled]


def matched(
    reconstruction: Reconstruction, tracks: Tracks, images: Sequence[UInt8[np.ndarray, "h w 3"]]
) -> UInt8[np.ndarray, "h w2 3"]:
    """The images side by side, with lines between what the tracks say is the same point in neighbouring ones.

    Evenly drawn from the tracks that both of a pair see, which are sorted by their height in the first, so that colours
    run down the image.
    """
    height, width = images[0].shape[:2]
    strip = np.full((height, len(images) * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for view, image in enumerate(images):
        strip[:, view * (width + _GAP) :][:, :width] = image
    regions = reconstruction.regions.numpy()
    uv = (tracks.uv.numpy() - regions[:, None, :2]) / regions[:, None, 2:] * [width, height]
    inside = (uv >= 0).all(-1) & (uv < [width, height]).all(-1) & tracks.visible.numpy()
    for a, b in itertools.pairwise(range(len(images))):
        both = np.flatnonzero(inside[a] & inside[b])
        both = both[np.argsort(uv[a, both, 1], kind="stable")]
        drawn = both[np.linspace(0, len(both) - 1, min(len(both), _MOST_LINES)).round().astype(int)]
        for number, track in enumerate(drawn):
            colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(0.85 * number / _MOST_LINES, 0.9, 1.0))
            ends = [uv[view, track] + [view * (width + _GAP), 0] for view in (a, b)]
            places = [tuple(round(16 * x) for x in end.tolist()) for end in ends]  # OpenCV draws at 1/16 pixel
            cv2.line(strip, places[0], places[1], colour, 1, cv2.LINE_AA, 4)
            for place in places:
                cv2.circle(strip, place, 2 * 16, colour, -1, cv2.LINE_AA, 4)
    return strip


def _save(figure: Any, path: Path | str) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, facecolor="white", bbox_inches="tight", pad_inches=0.1)
