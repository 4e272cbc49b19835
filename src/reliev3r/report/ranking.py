"""Systems ranked without ground truth, on one self-contained page: ranks with intervals, what each lacks, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Protocol, runtime_checkable

from reliev3r.report.comparison import STYLE, ScenePicture, grid, picture_section
from reliev3r.report.figures import PALETTE, blank_figure, svg_of
from reliev3r.report.page import write_page

_STYLE = """
.lacks { margin-top: .8rem; } .lacks b { overflow-wrap: anywhere; }
"""
_LONGEST_NAME = 30


@runtime_checkable
class Interval(Protocol):
    """A mean in per cent with its interval, and its place among all systems."""

    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def rank(self) -> int: ...  # noqa: D102


@runtime_checkable
class Ranked(Protocol):
    """One system."""

    @property
    def system(self) -> str: ...  # noqa: D102
    @property
    def scene(self) -> Interval: ...  # noqa: D102
    @property
    def cameras(self) -> Interval: ...  # noqa: D102
    @property
    def depth(self) -> Interval | None: ...  # noqa: D102
    @property
    def remarks(self) -> tuple[str, ...]: ...  # noqa: D102


HEAD = ("system", "rank", "scene", "cameras' rank", "cameras", "depth")


def ranking_cells(standings: Sequence[Ranked]) -> list[list[str]]:
    """A row of text for each system, under :data:`HEAD`."""
    return [
        [
            each.system, str(each.scene.rank), _interval(each.scene), str(each.cameras.rank), _interval(each.cameras),
            "×" if each.depth is None else _interval(each.depth),
        ]
        for each in standings
    ]  # fmt: skip


def headline(standings: Sequence[Ranked]) -> str:
    """Who is first, in one sentence; in two where the cameras alone say otherwise (a system without depth)."""
    first = [each.system for each in standings if each.scene.rank == 1]
    if max(each.scene.mean for each in standings) <= 0:
        return "No system gives cameras and depth that agree with the images anywhere."
    if len(standings) == 1:
        return f"{first[0]} alone was asked: its figures say how far it agrees with the images."
    if len(first) == 1:
        cameras = [each.system for each in standings if each.cameras.rank == 1]
        if cameras == first:
            return f"{first[0]} is first: every other is clearly worse."
        alone = f"{cameras[0]} is first" if len(cameras) == 1 else f"{', '.join(cameras)} share the first rank"
        return f"{first[0]} is first: with depth, every other is clearly worse. By cameras alone {alone}."
    return f"{', '.join(first[:-1])} and {first[-1]} share the first rank: the images do not tell them apart."


def write_ranking(
    path: Path | str,
    *,
    standings: Sequence[Ranked],
    facts: str,
    notes: Sequence[str],
    pictures: Sequence[ScenePicture],
) -> None:
    """Write the page, atomically; everything is inside the file. ``standings``: the best first."""
    body = [
        f'<h1>Ranking without ground truth</h1><p class="faint">{escape(facts)}</p>',
        f'<p class="fine"><b>{escape(headline(standings))}</b></p>',
        *(f'<p class="alarm">{escape(note)}</p>' for note in notes),
        f'<div class="plots">{_chart("Scene: cameras and depth together", standings, "scene")}'
        f"{_chart('Cameras alone', standings, 'cameras')}</div>",
        '<p class="faint">Rank and name; dot: mean, bar: its interval, in colour: first rank.</p>',
        grid(HEAD, ranking_cells(standings)),
        _lacks(standings),
        _HOW,
        "<h2>What each made of it</h2>" if pictures else "",
        '<p class="faint">Input, depth (blue is near) and cameras from above. Filled: as predicted, laid over the '
        "cameras solved from the matches (outlines) by a similarity.</p>" if pictures else "",
        *(picture_section(picture) for picture in pictures),
    ]  # fmt: skip
    write_page(path, title="Ranking without ground truth", body=body, style=STYLE + _STYLE)


_HOW = """<h2>How to read it</h2><ul>
<li>Matches are found anew in the images; no system has a say in them. Every system is asked about the same ones.</li>
<li><b>Scene</b>: both views of a match should predict the same point. <b>Cameras</b>: both rays should meet.
<b>Depth</b>: at points solved from the matches, under one scale. Per cent, 100 is best: the share of six limits (1/4 to
8 degrees of rays; 1 to 32 per cent of the distance of points and of depth) that the error stays below, mean over
matches, then over pairs of views.</li>
<li>What a system does not give - a view, depth, everything - counts as missed, and is said above.</li>
<li>Intervals are 95 per cent, by drawing frames anew. Systems share a rank where the interval of their difference does
not exclude 1 point; a rank is one more than the number of systems that are clearly better, and never before that of a
higher mean.</li>
<li>Cameras that were solved from the same kind of matches (COLMAP, <code>reconstruct</code>) are at home here. What
shows no matches (blank walls, sky, glass) is not judged, and matches on repeated texture mislead.</li></ul>"""


def _interval(score: Interval) -> str:
    return f"{score.mean:.1f} ({score.low:.0f} to {score.high:.0f})"


def _lacks(standings: Sequence[Ranked]) -> str:
    rows = [
        f"<li><b>{escape(each.system)}</b>: {escape(remark)}.</li>" for each in standings for remark in each.remarks
    ]
    return f'<ul class="lacks">{"".join(rows)}</ul>' if rows else ""


def _chart(title: str, standings: Sequence[Ranked], kind: str) -> str:
    """A dot and its interval for each system, those of the first rank in colour."""
    figure, axes = blank_figure(4.2, 0.6 + 0.26 * len(standings))
    for row, each in enumerate(reversed(standings)):
        score: Interval = getattr(each, kind)
        colour = PALETTE[0] if score.rank == 1 else PALETTE[-1]
        axes.plot([score.low, score.high], [row, row], color=colour, linewidth=6, solid_capstyle="round", alpha=0.4)
        axes.plot([score.mean], [row], "o", color=colour, markersize=5)
    labels = [f"{getattr(each, kind).rank}  {_short(each.system)}" for each in reversed(standings)]
    axes.set_yticks(range(len(standings)), [label.replace("$", r"\$") for label in labels])
    axes.set_ylim(-0.6, len(standings) - 0.4)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("per cent")
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg_of(figure, f'rank-{kind}')}</figure>"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
