"""The label report: which captures are worth training on, in one self-contained HTML file."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

from reliev3r.report.page import write_page

FORMAT = "reliev3r-label-report/1"
VERDICTS = ("unusable", "failed", "unfinished", "not judged", "weak", "good")
"""The worst first: the order of the report."""
MOST_PICTURES = 60
"""Captures that are shown with a picture and their figures; the worst ones."""

_CSS = """
.badge { border-radius: 999px; padding: .1rem .6rem; font-size: .78rem; font-weight: 600; white-space: nowrap; }
.badge.good { background: var(--good-back); color: var(--good); }
.badge.weak { background: var(--weak-back); color: var(--weak); }
.badge.bad { background: var(--bad-back); color: var(--bad); }
:root { --weak: #8a5a00; --weak-back: #fdf3dc; }
@media (prefers-color-scheme: dark) { :root { --weak: #f2c46d; --weak-back: #33290f; } }
table.list td, table.list th { padding: .35rem .7rem .35rem 0; text-align: right; width: auto; white-space: nowrap;
  font-variant-numeric: tabular-nums; color: var(--ink); }
table.list th { color: var(--faint); font-weight: 500; font-size: .8rem; white-space: normal; vertical-align: bottom; }
table.list td:first-child, table.list th:first-child, table.list td.name, table.list th.name { text-align: left; }
table.list td.name { white-space: normal; min-width: 8rem; }
.sheet { width: 100%; max-width: 1000px; display: block; border-radius: 8px; margin: .5rem 0; }
.facts { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.bars { display: flex; align-items: flex-end; gap: 3px; height: 3.2rem; margin: .3rem 0 0; }
.bars i { flex: 1; background: var(--accent); border-radius: 2px 2px 0 0; min-height: 1px; }
.ticks { display: flex; gap: 3px; color: var(--faint); font-size: .72rem; } .ticks span { flex: 1; text-align: center; }
"""


@runtime_checkable
class Judged(Protocol):
    """What is shown of a capture (``labels.many.index`` makes it)."""

    @property
    def name(self) -> str:
        """Of the capture in the store."""
        ...

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``."""
        ...

    @property
    def reasons(self) -> tuple[str, ...]:
        """In plain language."""
        ...

    @property
    def figures(self) -> dict[str, Any] | None:
        """As ``quality.json`` has them."""
        ...

    @property
    def picture(self) -> Path | None:
        """A JPEG."""
        ...

    @property
    def look(self) -> Path | None:
        """The page to look around in of what was trained on the labels (``export.view``)."""
        ...


def summary(captures: Sequence[Judged]) -> dict[str, Any]:
    """The report as JSON: how many captures have which verdict, then each, the worst first."""
    counts = Counter(capture.verdict for capture in captures)
    return {
        "format": FORMAT,
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "captures": [
            {"name": c.name, "verdict": c.verdict, "reasons": list(c.reasons), "figures": c.figures}
            for c in _ordered(captures)
        ],
    }


def write_label_report(path: Path | str, captures: Sequence[Judged]) -> None:
    """Write ``path`` (HTML): counts, one line a capture, and pictures and figures of the worst 60.

    Pictures and styles are inside the file; nothing is loaded from anywhere.
    """
    ordered = _ordered(captures)
    shown = [capture for capture in ordered if capture.figures is not None][:MOST_PICTURES]
    body = [_head(captures), _table(ordered), *(_section(capture, Path(path).parent) for capture in shown)]
    write_page(path, title="Labels", body=body, style=_CSS)


def _ordered(captures: Sequence[Judged]) -> list[Judged]:
    return sorted(captures, key=lambda capture: (VERDICTS.index(capture.verdict), capture.name))


def _head(captures: Sequence[Judged]) -> str:
    counts = Counter(capture.verdict for capture in captures)
    figures = [capture.figures for capture in captures if capture.figures is not None]
    facts = f"{len(captures)} captures · {sum(f['views'] for f in figures):,} images"
    meaning = {
        "good": "train on them", "weak": "train, and expect less: the reasons are below",
        "unusable": "`reliev3r fit` refuses them; the remedy is below", "failed": "no labels could be made",
        "unfinished": "run `reliev3r label` again", "not judged": "run `reliev3r label` again",
    }  # fmt: skip
    cards = "".join(
        f'<div class="card"><b>{counts[verdict]}</b><span>{verdict}: {meaning[verdict]}</span></div>'
        for verdict in reversed(VERDICTS)
        if counts[verdict] or verdict in ("good", "weak", "unusable")
    )
    return f'<h1>Label report</h1><p class="faint">{facts}</p><div class="cards">{cards}</div>'


def _badge(verdict: str) -> str:
    kind = verdict if verdict in ("good", "weak") else "bad"
    return f'<span class="badge {kind}">{verdict}</span>'


_Column = tuple[str, Callable[[Mapping[str, Any]], str]]


def _get(figures: Mapping[str, Any], *path: str) -> Any:
    value: Any = figures
    for name in path:
        value = None if value is None else value.get(name)
    return value


def _share(*path: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda figures: "–" if (value := _get(figures, *path)) is None else f"{value:.0%}"


def _degrees(*path: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda figures: "–" if (value := _get(figures, *path)) is None else f"{value:.1f}°"


_COLUMNS: tuple[_Column, ...] = (
    ("images", lambda f: str(f["views"])),
    ("tracks an image", lambda f: f"{median(f['tracks']['per_view']):.0f}"),
    ("reach 3 images", _share("tracks", "survival", "3")),
    ("pairs obey", _share("pairs", "epipolar_inliers")),
    ("one set of cameras explains", _share("cameras", "explained")),
    ("parallax", _degrees("cameras", "parallax_deg", "median")),
    ("depth off by", _share("depth", "scale_error")),
)


def _table(captures: Sequence[Judged]) -> str:
    head = "".join(f"<th>{title}</th>" for title, _ in _COLUMNS)
    rows = []
    for capture in captures:
        cells = ["–" if capture.figures is None else text(capture.figures) for _, text in _COLUMNS]
        reason = f'<br><span class="faint">{escape(capture.reasons[0])}</span>' if capture.reasons else ""
        rows.append(
            f'<tr><td>{_badge(capture.verdict)}</td><td class="name">{escape(capture.name)}{reason}</td>'
            f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        )
    return (
        '<h2>Captures</h2><div class="scroll"><table class="list"><thead><tr><th></th><th class="name">capture</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _section(capture: Judged, folder: Path) -> str:
    figures = capture.figures or {}
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in capture.reasons)
    picture = ""
    if capture.picture is not None:
        encoded = base64.b64encode(capture.picture.read_bytes()).decode("ascii")
        picture = f'<img class="sheet" alt="labels of {escape(capture.name)}" src="data:image/jpeg;base64,{encoded}">'
        picture += (
            '<p class="faint">Dots are tracks, red where two images see them, green where half of the images do. '
            "Below, the depth labels where there are any: blue is near, grey unknown.</p>"
        )
    if capture.look is not None:
        address = quote(Path(os.path.relpath(capture.look, folder.resolve())).as_posix())
        picture += f'<p><a href="{address}">Look around in 3D</a> at what was trained on them</p>'
    bars = _bars("Share of the tracks alive over so many images", _get(figures, "tracks", "survival"))
    bars += _bars("Share of the tracks seen again so many frames later", _get(figures, "tracks", "lifetimes"))
    return (
        f"<h2>{_badge(capture.verdict)} {escape(capture.name)}</h2>{f'<ul>{reasons}</ul>' if reasons else ''}{picture}"
        f'<div class="facts"><div>{bars}</div><div><table>{_facts(figures)}</table></div></div>'
    )


def _bars(title: str, shares: Mapping[str, float] | None) -> str:
    if not shares:
        return ""
    bars = "".join(f'<i style="height:{100 * share:.0f}%" title="{share:.0%}"></i>' for share in shares.values())
    ticks = "".join(f"<span>{escape(str(name))}</span>" for name in shares)
    return f'<p class="faint">{title}</p><div class="bars">{bars}</div><div class="ticks">{ticks}</div>'


def _facts(figures: Mapping[str, Any]) -> str:
    """Every figure that was measured, in words."""
    images, fov = figures["images"], figures["fov"]
    opinions = {"given": fov["source"] or "given", "exif": "EXIF", "expert": "depth expert", "tracks": "tracks"}
    angles = _get(figures, "cameras", "parallax_deg")
    parallax = " / ".join(f"{angle:.1f}°" for angle in angles.values()) if angles else None
    flat = _get(figures, "depth", "flat_error")
    rank = _get(figures, "depth", "rank_correlation")
    rows = {
        "tracks": f"{figures['tracks']['count']:,}",
        "parts that tracks connect": str(len(figures["tracks"]["parts"])),
        "matches that obey the geometry of their pair": _share("pairs", "epipolar_inliers")(figures),
        "tracks that rotation alone explains": _share("pairs", "turned_only")(figures),
        "views that could be placed": _share("cameras", "reached")(figures),
        "observations that one set of cameras explains": _share("cameras", "explained")(figures),
        "parallax of the tracks (10 % / median / 90 %)": parallax,
        "depth expert against tracks, after one factor": _share("depth", "scale_error")(figures),
        "the same of a constant depth": None if flat is None else f"{flat:.0%}",
        "rank correlation of depth": None if rank is None else f"{rank:.2f}",
        "pixels without depth (sky, doubt)": _share("depth", "invalid")(figures),
        "field of view": ", ".join(f"{fov[k]:.0f}° ({escape(n)})" for k, n in opinions.items() if fov[k] is not None),
        "blur (0 crisp, 1 blurred), median": f"{median(images['blur']):.2f}",
        "area that shows anything": f"{median(images['texture']):.0%}",
        "keypoints with a copy in the image / mirrored": f"{images['copies']:.0%} / {images['mirrored']:.0%}",
    }
    return "".join(
        f"<tr><td>{name}</td><td>{text}</td></tr>" for name, text in rows.items() if text not in (None, "–", "")
    )
