"""Before and after an adaptation, on one self-contained page and in one picture: verdict, figures, depth, cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from reliev3r.core.files import atomic_path
from reliev3r.core.types import Prediction
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.maps import data_uri, depth_picture, depth_scale
from reliev3r.report.comparison import laid_over, strip
from reliev3r.report.figures import CameraPlot, blank_figure, camera_svg, draw_cameras, svg_of
from reliev3r.report.page import write_page

COLOURS = {1: "#1a9a5c", 0: "#8a919c", -1: "#d6453d"}
_INK = "#222222"
_STYLE = """
.pair { display: grid; gap: .8rem; grid-template-columns: 1fr 1fr; }
.pair img, .wide { width: 100%; border-radius: 8px; }
.scroll td:first-child { width: auto; }
.scroll td:nth-child(-n+4) { white-space: nowrap; overflow-wrap: normal; }
.plain { border-radius: 10px; padding: .7rem 1rem; margin: .8rem 0; background: var(--card); }
"""
_BOX = {"better": "fine", "no change": "plain", "worse": "alarm"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One figure before and after."""

    name: str
    meaning: str
    before: float
    after: float
    change: tuple[float, float, float]
    """(estimate, low, high)."""
    relative: bool
    """The change is a share of what was before, and less is better; else a difference, and more is better."""
    sign: int
    """+1 clearly better, -1 clearly worse, 0 neither."""


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """One set of frames as both networks see it."""

    title: str
    images: UInt8[np.ndarray, "h w 3"]
    depth: tuple[UInt8[np.ndarray, "h w2 3"], UInt8[np.ndarray, "h w2 3"]]
    """Before and after, frame beside frame, each under its own scale."""
    cameras: tuple[CameraPlot, CameraPlot]
    """Before and after; outlines are cameras solved from the images."""

    @staticmethod
    def of(
        title: str,
        image: Float[Tensor, "v 3 h w"],
        before: Prediction,
        after: Prediction,
        solved: Float[Tensor, "v 4 4"] | None,
    ) -> BeforeAfter:
        """From two predictions of the same frames; cameras are laid over the solved ones, else over those before."""
        fixed = (before.world_from_cam if solved is None else solved).double()
        upright = upright_from_world(fixed)
        plots = [
            CameraPlot(
                cameras=(upright @ laid_over(prediction.world_from_cam.double(), fixed)).numpy(),
                before=None if solved is None else (upright @ fixed).numpy(),
                points=np.zeros((0, 3)),
                colours=np.zeros((0, 3)),
            )
            for prediction in (before, after)
        ]
        maps = [
            strip([depth_picture(depth.numpy(), *depth_scale(prediction.depth)) for depth in prediction.depth])
            for prediction in (before, after)
        ]
        pictures = [(each.movedim(0, -1) * 255).round().to(torch.uint8).numpy() for each in image]
        return BeforeAfter(
            title=title, images=strip(pictures), depth=(maps[0], maps[1]), cameras=(plots[0], plots[1])
        )  # fmt: skip


def write_adaptation(
    path: Path | str, *, verdict: str, reasons: Sequence[str], bars: Sequence[Bar], sets: Sequence[BeforeAfter]
) -> None:
    """Write the page, and a PNG of the same name beside it, each atomically."""
    why = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    body = [
        "<h1>Before and after the adaptation</h1>",
        f'<div class="{_BOX[verdict]}"><b>Verdict: {escape(verdict)}</b><ul>{why}</ul></div>',
        '<p class="faint">Judged without ground truth, on frames that were never trained on, by matches found anew in '
        "the images; bars are bootstrap intervals over frames.</p>",
        f"<figure>{_bars_svg(bars)}</figure>" if bars else "",
        _table(bars),
        *(_set(number, each) for number, each in enumerate(sets)),
    ]
    write_page(path, title="Before and after", body=body, style=_STYLE)
    _write_png(Path(path).with_suffix(".png"), verdict, reasons, bars, sets)


def _table(bars: Sequence[Bar]) -> str:
    rows = "".join(
        f"<tr><td>{escape(bar.name)}</td><td>{bar.before:.3g}</td><td>{bar.after:.3g}</td><td>{_change(bar)}</td>"
        f"<td>{escape(bar.meaning)}</td></tr>"
        for bar in bars
    )
    head = "<tr><td>figure</td><td>before</td><td>after</td><td>change</td><td>what it is</td></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>' if bars else ""


def _change(bar: Bar) -> str:
    form = "{:+.0%}" if bar.relative else "{:+.2f}"
    estimate, low, high = (form.format(value) for value in bar.change)
    return f"{estimate} ({low} to {high})"


def _set(number: int, each: BeforeAfter) -> str:
    maps = "".join(
        f'<figure><figcaption>{title}</figcaption><img alt="depth {title}" src="{data_uri(depth)}">'
        f"{camera_svg(plot, side=False).replace('top', f'top{number}{title}')}</figure>"
        for title, depth, plot in zip(("before", "after"), each.depth, each.cameras, strict=True)
    )
    return (
        f'<section class="view"><h3>{escape(each.title)}</h3>'
        f'<img class="wide" alt="input" src="{data_uri(each.images)}">'
        f'<div class="pair">{maps}</div></section>'
    )


def _bars_svg(bars: Sequence[Bar]) -> str:
    figure, axes = blank_figure(7.0, 0.5 + 0.42 * len(bars))
    _draw_bars(axes, bars)
    return svg_of(figure, "bars")


def _draw_bars(axes: Any, bars: Sequence[Bar]) -> None:
    """Change of each figure with its interval; to the right is better."""
    for row, bar in enumerate(reversed(bars)):
        sign = -1 if bar.relative else 1
        low, high = sorted(100 * sign * value for value in bar.change[1:])
        axes.plot([low, high], [row, row], color=COLOURS[bar.sign], linewidth=7, solid_capstyle="round", alpha=0.45)
        axes.plot([100 * sign * bar.change[0]], [row], "o", color=COLOURS[bar.sign], markersize=6)
    axes.axvline(0, color=COLOURS[0], linewidth=1)
    axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlabel("improvement: per cent of angles and errors, points of shares (right of 0 is better)")


def _write_png(
    path: Path, verdict: str, reasons: Sequence[str], bars: Sequence[Bar], sets: Sequence[BeforeAfter]
) -> None:
    shown = sets[:3]
    figure, _ = blank_figure(12.0, 1.6 + 2.2 * max(len(shown), 1), ink=_INK, empty=True)
    figure.text(0.02, 0.97, f"Verdict: {verdict}", fontsize=15, weight="bold", color=_INK, va="top")
    figure.text(0.02, 0.91, _wrapped(reasons[:1]), fontsize=8, color=_INK, va="top")
    grid = figure.add_gridspec(
        max(len(shown), 1), 4, width_ratios=[3.2, 4.2, 1.9, 1.9], left=0.07, right=0.99, bottom=0.09, top=0.8,
        wspace=0.08, hspace=0.12,
    )  # fmt: skip
    if bars:
        axes = figure.add_subplot(grid[:, 0])
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        _draw_bars(axes, bars)
        axes.set_xlabel("improvement, % or points", fontsize=8)
    for row, each in enumerate(shown):
        axes = figure.add_subplot(grid[row, 1])
        width = each.images.shape[1]
        rows = [cv2.resize(p, (width, p.shape[0] * width // p.shape[1])) for p in (each.images, *each.depth)]
        axes.imshow(np.concatenate(rows))
        axes.set_xticks([])
        axes.set_yticks(np.cumsum([0, *(len(p) for p in rows[:-1])]) + len(rows[0]) / 2, ["images", "before", "after"])
        axes.tick_params(labelsize=7, length=0)
        axes.set_title(each.title, fontsize=8)
        for column, (title, plot) in enumerate(zip(("cameras before", "cameras after"), each.cameras, strict=True)):
            axes = figure.add_subplot(grid[row, 2 + column])
            draw_cameras(axes, plot, side=False, ink=_INK, aspect=1.0)
            axes.set_axis_off()
            axes.set_title(title, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, facecolor="white")


def _wrapped(reasons: Sequence[str], width: int = 150) -> str:
    import textwrap

    return "\n".join(line for reason in reasons for line in textwrap.wrap(reason, width))
