"""Systems side by side on one self-contained page: tables, folded tables a scene, pictures, curves over views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.maps import data_uri, depth_picture, depth_scale
from reliev3r.geometry.align import umeyama
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.report.figures import CameraPlot, camera_svg, line_svg
from reliev3r.report.page import write_page

_MOST_VIEWS = 8
_HEIGHT = 120
STYLE = """
.wide table { white-space: nowrap; } .wide th { text-align: right; padding: .25rem .6rem .25rem 0; font-weight: 600; }
.wide td { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.wide { margin-top: 1rem; } .wide th:first-child, .wide td:first-child { text-align: left; color: inherit;
  width: auto; min-width: 7rem; white-space: normal; overflow-wrap: anywhere; }
details { margin: .5rem 0; } .pair { display: grid; gap: .8rem; grid-template-columns: 2fr 1fr; align-items: center; }
.pair img { width: 100%; border-radius: 8px; display: block; margin-bottom: .3rem; }
@media (max-width: 640px) { .pair { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True, kw_only=True)
class ScenePicture:
    """What a system made of one scene."""

    title: str
    images: UInt8[np.ndarray, "h w 3"]
    """Its input, view beside view."""
    depth: UInt8[np.ndarray, "h w2 3"] | None
    """Its depth likewise; None where it predicts none."""
    plot: CameraPlot
    """Predicted cameras, with the true ones as outlines."""
    look: str | None = None
    """Address of the page to look around in (``export.view``), as seen from the comparison."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One table and what belongs to it; all cells are text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    scenes: Mapping[str, Sequence[Sequence[str]]]
    """By scene, the same columns as ``rows``; empty where there is a single scene."""
    pictures: Sequence[ScenePicture] = ()


Curves = Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]
"""Quantity -> system -> (number of views, value)."""


def write_comparison(path: Path | str, *, title: str, comparisons: Sequence[Comparison], curves: Curves) -> None:
    """Write the page, atomically; everything is inside the file."""
    body = [f"<h1>{escape(title)}</h1>", _curves(curves), *(_comparison(comparison) for comparison in comparisons)]
    write_page(path, title=title, body=body, style=STYLE)


def scene_picture(
    title: str,
    reconstruction: Reconstruction,
    true_cameras: Float[Tensor, "v 4 4"],
    known: Bool[Tensor, " v"] | None = None,
) -> ScenePicture | None:
    """Input, depth and cameras of a reconstruction; None where it found no camera.

    The cameras that were found are laid over the true ones (world_from_cam, any unit) by a similarity of their centres;
    of fewer than three, by the first camera and the length of the baseline. ``known``: which true ones there are (by
    default all); the others' views have no camera in the picture.
    """
    everyone = torch.ones(len(true_cameras), dtype=torch.bool)
    known = everyone if known is None else known
    found = (everyone if reconstruction.found is None else reconstruction.found) & known
    found &= reconstruction.prediction.world_from_cam.isfinite().flatten(1).all(1)
    if not found.any():
        return None
    true = true_cameras.double()
    aligned = laid_over(reconstruction.prediction.world_from_cam.double()[found], true[found])
    upright = upright_from_world(true[known])
    shown = evenly_spaced(range(len(found)), _MOST_VIEWS)
    depth = None
    if reconstruction.predicts_depth:
        near, far = depth_scale(reconstruction.prediction.depth)
        maps = reconstruction.prediction.depth.numpy()
        depth = strip([depth_picture(maps[view], near, far) for view in shown])
    outlines = (upright @ true[known]).numpy()
    plot = CameraPlot(
        cameras=(upright @ aligned).numpy(),
        before=outlines,
        points=outlines[:, :3, 3],
        colours=np.full((len(outlines), 3), 0.5),
    )
    images = strip([reconstruction.image[view].numpy() for view in shown])
    return ScenePicture(title=title, images=images, depth=depth, plot=plot)


def laid_over(predicted: Float[Tensor, "f 4 4"], true: Float[Tensor, "f 4 4"]) -> Float[Tensor, "f 4 4"]:
    """Predicted cameras (world_from_cam) moved onto others by a similarity of their centres; of fewer than three, by
    the first camera and the length of the baseline."""
    if len(true) >= 3:
        scale, rotation, translation = umeyama(predicted[:, :3, 3], true[:, :3, 3])
    else:
        own, given = (cameras[:, :3, 3] - cameras[:1, :3, 3] for cameras in (predicted, true))
        scale = given.norm() / own.norm().clamp_min(1e-12) if len(true) == 2 else torch.ones(()).double()
        rotation = (true[0] @ invert(predicted[0]))[:3, :3]
        translation = true[0, :3, 3] - scale * rotation @ predicted[0, :3, 3]
    result = predicted.clone()
    result[:, :3, :3] = rotation @ predicted[:, :3, :3]
    result[:, :3, 3] = scale * predicted[:, :3, 3] @ rotation.mT + translation
    return result


def strip(pictures: Sequence[np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures side by side, all of one height."""
    sizes = [max(1, round(picture.shape[1] * _HEIGHT / picture.shape[0])) for picture in pictures]
    resized = [cv2.resize(p, (width, _HEIGHT), interpolation=cv2.INTER_AREA) for p, width in zip(pictures, sizes)]
    return np.concatenate(resized, axis=1)


def _comparison(comparison: Comparison) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    parts = [f"<h2>{escape(comparison.title)}</h2>", grid(comparison.head, comparison.rows)]
    parts.append(f'<ul class="faint">{notes}</ul>')
    for scene, rows in comparison.scenes.items():
        parts.append(f"<details><summary>{escape(scene)}</summary>{grid(comparison.head, rows)}</details>")
    if comparison.pictures:
        parts.append(
            '<p class="faint">Best and worst scene of each system by AUC@30: input, depth (blue is near, one scale a '
            "scene) and cameras from above; filled: as predicted, laid over the truth by a similarity and numbered in "
            "the order found; outlines and dots: true.</p>"
        )
    return "".join([*parts, *(picture_section(picture) for picture in comparison.pictures)])


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text, numbers to the right."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def picture_section(picture: ScenePicture) -> str:
    """Strips of pictures beside the cameras."""
    strips = [("input", picture.images), ("depth", picture.depth)]
    images = "".join(f'<img alt="{name}" src="{data_uri(strip)}">' for name, strip in strips if strip is not None)
    look = f' · <a href="{escape(picture.look)}">look around in 3D</a>' if picture.look else ""
    return (
        f'<section class="view"><h3>{escape(picture.title)}{look}</h3><div class="pair"><div>{images}</div>'
        f"<div>{camera_svg(picture.plot, side=False)}</div></div></section>"
    )


def _curves(curves: Curves) -> str:
    figures = [
        f"<figure><figcaption>{escape(quantity)}</figcaption>"
        f"{line_svg(lines, x='views', y=quantity, name=f'views{index}')}</figure>"
        for index, (quantity, lines) in enumerate(curves.items())
        if any(len(across) for across, _ in lines.values())
    ]
    return f'<h2>Over the number of views</h2><div class="plots">{"".join(figures)}</div>' if figures else ""
