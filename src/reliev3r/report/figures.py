"""Plots with matplotlib: training curves, cameras from above and from the side, one overview picture."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from reliev3r.core.files import atomic_path
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.colmap import track_colours
from reliev3r.export.points import view_colours
from reliev3r.geometry.camera import transform
from reliev3r.geometry.triangulate import consistent_points
from reliev3r.report.pictures import Pictures

PALETTE = ("#4c8bf5", "#e8710a", "#12a594", "#c44dd6", "#c79a00", "#d64d6a", "#7a7f87")
_INK = "#123456"  # stands for the page's text colour until the SVG is on the page
_MOST_STEPS = 300
_CURVES_APART = (
    "step", "seconds", "lr", "heldout_deg", "heldout_depth", "teacher_deg", "average_heldout_deg",
    "average_heldout_depth", "average_teacher_deg", "grad_norm", "images_per_s", "waiting_for_data", "memory_gb", "mfu",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CameraPlot:
    """Cameras and sparse points in the upright frame (x right, y up, -z ahead of the first camera)."""

    cameras: Float[np.ndarray, "v 4 4"]
    before: Float[np.ndarray, "w 4 4"] | None
    """What they are compared with: the network's cameras, where refined ones are the main ones, or all true ones."""
    points: Float[np.ndarray, "n 3"]
    colours: Float[np.ndarray, "n 3"]

    @staticmethod
    def of(reconstruction: Reconstruction, refined: Reconstruction | None, tracks: Tracks | None) -> CameraPlot:
        """From the refined cameras where there are any."""
        best = reconstruction if refined is None else refined
        world_from_cam = best.prediction.world_from_cam.double()
        upright = upright_from_world(world_from_cam)
        points, colours = torch.zeros(0, 3).double(), torch.zeros(0, 3)
        if tracks is not None:
            limit, parallax = math.radians(1.0), math.radians(1.0)
            xyz, kept = consistent_points(
                tracks, best.K_original, world_from_cam, max_angle=limit, min_parallax=parallax
            )
            used = kept.any(0)
            points, colours = transform(upright, xyz[used]), track_colours(best, tracks, kept)[used] / 255
        before = None if refined is None else (upright @ reconstruction.prediction.world_from_cam.double()).numpy()
        return CameraPlot(
            cameras=(upright @ world_from_cam).numpy(),
            before=before,
            points=points.numpy(),
            colours=colours.double().numpy(),
        )


def camera_svg(plot: CameraPlot, *, side: bool) -> str:
    """Cameras and points from above, or from the right-hand side (``side``), as SVG for a page."""
    figure, axes = blank_figure(5.2, 4.4)
    draw_cameras(axes, plot, side=side, ink=_INK, aspect=5.2 / 4.4)
    return svg_of(figure, "side" if side else "top")


def draw_cameras(axes: Any, plot: CameraPlot, *, side: bool, ink: str, aspect: float) -> None:
    """Draw one view of the scene into matplotlib axes (``aspect``: width / height), at equal scale."""
    columns, names = ([2, 1], ("ahead", "up")) if side else ([0, 2], ("right", "ahead"))
    sign = np.array([-1.0 if column == 2 else 1.0 for column in columns])  # "ahead" is -z

    def flat(xyz: np.ndarray) -> np.ndarray:
        return xyz[..., columns] * sign

    if len(plot.points):
        axes.scatter(*flat(plot.points).T, s=2, c=plot.colours, linewidths=0, rasterized=True, alpha=0.9)
    centres = flat(plot.cameras[:, :3, 3])
    size = 0.1 * max(float(np.ptp(centres, axis=0).max()), 1e-6)
    for pose in plot.before if plot.before is not None else ():
        axes.plot(*flat(_wedge(pose, size, side=side)).T, color=ink, alpha=0.5, linewidth=0.8)
    for number, (pose, colour) in enumerate(zip(plot.cameras, view_colours(len(plot.cameras)) / 255, strict=True)):
        axes.fill(*flat(_wedge(pose, size, side=side)).T, color=colour, alpha=0.8, linewidth=0)
        if len(plot.cameras) <= 40:
            place = flat(pose[:3, 3] - 0.5 * size * pose[:3, 2])
            axes.annotate(str(number), place, color=ink, fontsize=7, ha="center", va="center")
    shown = centres if plot.before is None else np.concatenate([centres, flat(plot.before[:, :3, 3])])
    low, high = _limits(flat(plot.points), shown, size, aspect)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def _wedge(world_from_cam: np.ndarray, size: float, *, side: bool) -> np.ndarray:
    """Triangle from a camera's centre to the ends of its image plane, across or (``side``) along its height."""
    end = np.array([0.0, 0.4, 0.0]) if side else np.array([0.55, 0.0, 0.0])
    ahead = np.array([0.0, 0.0, 1.0])
    corners = size * np.stack([np.zeros(3), ahead - end, ahead + end, np.zeros(3)])
    return corners @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]


def _limits(points: np.ndarray, centres: np.ndarray, margin: float, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """All cameras and nearly all points (a few far ones must not shrink the rest), filling the aspect."""
    low, high = centres.min(0), centres.max(0)
    if len(points):
        near, far = np.percentile(points, [3, 97], axis=0)
        low, high = np.minimum(low, near), np.maximum(high, far)
    middle, half = (low + high) / 2, (high - low) / 2 + 1.5 * margin
    half = np.maximum(half, half[::-1] * [aspect, 1 / aspect])
    return middle - half, middle + half


def curve_svgs(metrics: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(title, SVG) of the loss and its parts, what held-out tracks say, and the learning rate, as far as logged."""
    parts = sorted({name for row in metrics for name in row} - {*_CURVES_APART, "loss"})
    groups = [
        ("Loss and its parts", ["loss", *parts], True),
        ("Median angle of held-out tracks (degrees)", ["heldout_deg", "average_heldout_deg"], True),
        ("Median disagreement of two views about depth (log)", ["heldout_depth", "average_heldout_depth"], True),
        ("Median angle between cameras and their teacher's (degrees)", ["teacher_deg", "average_teacher_deg"], True),
        ("Learning rate", ["lr"], False),
        ("Norm of the gradient", ["grad_norm"], True),
    ]
    svgs: list[tuple[str, str]] = []
    for title, names, logarithmic in groups:
        curves = {name: curve for name in names if len((curve := _curve(metrics, name))[0])}
        if not curves:
            continue
        figure, axes = blank_figure(5.2, 3.0)
        for (name, (x, y)), colour in zip(curves.items(), PALETTE * 3):
            axes.plot(x, y, color=colour, label=name, linewidth=2 if name == "loss" else 1.3)
        if logarithmic and all((y > 0).all() for _, y in curves.values()):
            axes.set_yscale("log")
        axes.set_xlabel("step")
        if len(curves) > 1:
            axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
        svgs.append((title, svg_of(figure, f"curve{len(svgs)}")))
    return svgs


def line_svg(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    name: str,
    logarithmic: bool = False,
) -> str:
    """Lines with markers, by name (x values, y values), as SVG for a page; ``name`` keeps its ids apart."""
    figure, axes = blank_figure(5.2, 3.2)
    for (label, (across, up)), colour in zip(lines.items(), PALETTE * (1 + len(lines) // len(PALETTE))):
        axes.plot(across, up, color=colour, label=label, marker="o", markersize=4, linewidth=1.6)
    axes.set_xscale("log", base=2)
    ticks = sorted({value for across, _ in lines.values() for value in across})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    if logarithmic and all(value > 0 for _, up in lines.values() for value in up):
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
    return svg_of(figure, name)


def _curve(metrics: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one metric, averaged in bins so that long runs stay small."""
    rows = [(row["step"], row[name]) for row in metrics if isinstance(row.get(name), int | float)]
    pairs = np.array([pair for pair in rows if math.isfinite(pair[1])], dtype=float).reshape(-1, 2)
    bins = np.array_split(pairs, min(len(pairs), _MOST_STEPS)) if len(pairs) else []
    means = np.array([part.mean(0) for part in bins]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def write_overview(path: Path | str, pictures: Sequence[Pictures], plot: CameraPlot) -> None:
    """One PNG: a column per view (image, pseudo depth, predicted depth, confidence) and the cameras from above."""
    rows = [("image", "image + tracks"), ("pseudo_depth", "pseudo depth"), ("depth", "predicted depth"),
            ("confidence", "confidence")]  # fmt: skip
    rows = [row for row in rows if getattr(pictures[0], row[0]) is not None]
    height, width = pictures[0].image.shape[:2]
    cell = 2.0 * height / width
    total = cell * len(rows)
    figure, _ = blank_figure(2.0 * len(pictures) + total, total, ink="#222222", empty=True)
    grid = figure.add_gridspec(
        len(rows), len(pictures) + 1, width_ratios=[2.0] * len(pictures) + [total], wspace=0.04, hspace=0.04
    )
    for column, picture in enumerate(pictures):
        for row, (field, title) in enumerate(rows):
            show_picture(figure.add_subplot(grid[row, column]), getattr(picture, field), title if column == 0 else "")
    axes = figure.add_subplot(grid[:, -1])
    draw_cameras(axes, plot, side=False, ink="#222222", aspect=1.0)
    axes.set_axis_off()
    axes.set_title("cameras and sparse points from above", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, facecolor="white", bbox_inches="tight", pad_inches=0.1)


def show_picture(axes: Any, picture: np.ndarray, title: str) -> None:
    """A picture in axes of a figure of pictures, with the title of its row on the left."""
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel(title, fontsize=9)


def blank_figure(width: float, height: float, *, ink: str = _INK, empty: bool = False) -> tuple[Any, Any]:
    """A figure of its own (no pyplot state), with quiet axes in one ink."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "axes.edgecolor": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "text.color": ink,
        "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": 8, "xtick.labelsize": 7,
        "ytick.labelsize": 7, "axes.facecolor": "none",
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(width, height), facecolor="none", layout=None if empty else "constrained")
        FigureCanvasAgg(figure)
        if empty:
            return figure, None
        axes = figure.add_subplot()
        axes.grid(alpha=0.15, color=ink, linewidth=0.6)
    return figure, axes


def svg_of(figure: Any, name: str) -> str:
    """The figure as an SVG element that takes the page's text colour and refers to nothing outside."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):  # the salt keeps ids of several figures apart
        figure.savefig(buffer, format="svg", dpi=150, transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, rest = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL).split(">", 1)
    text = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", head) + ">" + rest  # the page sets the size
    return text.replace(_INK, "currentColor")
