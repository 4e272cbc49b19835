"""More views than one forward pass takes: overlapping passes, joined by similarities of the views that they share.

As VGGT-Long (Deng et al. 2025) does for VGGT, with averaged similarities in place of its pose graph. Memory of the
network is that of one pass, however many views there are.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.sampling import clip_ranges
from reliev3r.geometry.similarities import Join, joined_frames, moved_cameras, robust_similarity, scale_of

logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Views of one forward pass; more are split."""
OVERLAP = 20
"""Views, at least, that a pass shares with the next."""
_GRID = 16
"""Points on a side of a view's grid, by which passes are compared."""
_AGREES = 0.2
"""Largest distance, as a share of the scene, between what two passes say of the views that they share: beyond it a
loop's join is none, and that of neighbours is warned of."""


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """What joining needs of one forward pass, and what is kept of it."""

    views: list[int]
    points: Float[Tensor, "n g 3"]
    """Of a coarse grid on each view, in the pass's own world."""
    weight: Float[Tensor, "n g"]
    """Their confidence; 0 where the camera means nothing."""
    own: list[int]
    """Positions within ``views`` of those that no other pass sees nearer to its middle."""
    kept: Prediction
    """Of ``own``."""


def predict_in_passes(
    run: Callable[[Views], Prediction],
    views: Views,
    loops: Sequence[tuple[int, int]] = (),
    *,
    at_once: int = AT_ONCE,
    overlap: int = OVERLAP,
) -> Prediction:
    """Prediction [v ...] of unbatched ``views`` of any number, all in the frame of one pass.

    That is the first of those that hang together and have most views; the others' views are said to be not reached.

    Views must come in the order of a walk: each pass sees ``at_once`` of them in a row, its next shares ``overlap``.

    Args:
        run: one forward pass: unbatched views to their prediction on the CPU.
        views: in order.
        loops: pairs of views that see the same place far apart in time; each gets a pass with the views around both,
            which ties the passes to either side. One whose views contradict the other passes is dropped.
        at_once: views of a pass.
        overlap: fewer than ``at_once``.
    """
    count = len(views.image)
    if count <= at_once:
        return run(views)
    ranges = clip_ranges(count, window=at_once, overlap=overlap)
    passes = [_passed(run, views, list(range(*each)), _own(ranges, index)) for index, each in enumerate(ranges)]
    passes += [_passed(run, views, _around(loop, count, at_once), []) for loop in loops]
    frames, tied = _frames(passes, len(ranges))
    parts = [_moved(part.kept, frame, ok) for part, frame, ok in zip(passes, frames, tied) if part.own]
    order = torch.tensor([part.views[k] for part in passes for k in part.own]).argsort().tolist()
    return _concatenated(parts).select_views(order)


def _own(ranges: list[tuple[int, int]], index: int) -> list[int]:
    """Positions, within one range, of the views whose nearest middle among all ranges is its own."""
    views = torch.arange(*ranges[index])
    middles = torch.tensor([start + stop - 1 for start, stop in ranges])
    owner = (2 * views[:, None] - middles).abs().argmin(-1)
    return (owner == index).nonzero()[:, 0].tolist()


def _around(loop: tuple[int, int], count: int, at_once: int) -> list[int]:
    """The views around both ends of a loop."""
    half = at_once // 2
    begins = [min(max(end - half // 2, 0), count - half) for end in loop]
    return sorted({view for begin in begins for view in range(begin, begin + half)})


def _passed(run: Callable[[Views], Prediction], views: Views, index: list[int], own: list[int]) -> _Pass:
    found = run(views.select_views(index))
    height, width = found.depth.shape[-2:]
    rows, columns = (torch.linspace(0, side - 1, min(side, _GRID)).round().long() for side in (height, width))
    cells = {name: getattr(found, name)[:, rows][:, :, columns] for name in ("depth", "rays", "conf")}
    thin = dataclasses.replace(found, **cells)
    weight = thin.conf.flatten(1)
    weight = weight if found.reached is None else weight * found.reached[:, None]
    points = thin.points_world.flatten(1, 2).double()
    finite = points.isfinite().all(-1) & weight.isfinite()  # a camera that means nothing may be anything
    return _Pass(
        views=index, points=torch.where(finite[..., None], points, 0.0),
        weight=torch.where(finite, weight.double(), 0.0), own=own, kept=found.select_views(own),
    )  # fmt: skip


def _frames(passes: Sequence[_Pass], windows: int) -> tuple[Float[Tensor, "n 4 4"], list[bool]]:
    """``frame_from_pass`` of each pass, and whether anything ties it to the frame; the identity where nothing does."""
    joins = []
    for a, b in combinations(range(len(passes)), 2):
        join = _join(passes, a, b, loop=b >= windows)
        joins += [] if join is None else [join]
    tied = max((_tied_to(start, joins) for start in range(windows)), key=lambda group: _reach(passes, group))
    place = {index: number for number, index in enumerate(sorted(tied))}
    inner = [dataclasses.replace(join, a=place[join.a], b=place[join.b]) for join in joins if join.a in tied]
    frames = torch.eye(4, dtype=torch.float64).repeat(len(passes), 1, 1)
    if inner:
        frames[sorted(tied)] = joined_frames(inner, len(tied))
    return frames, [index in tied for index in range(len(passes))]


def _tied_to(start: int, joins: Sequence[Join]) -> set[int]:
    tied = {start}
    while more := {end for join in joins for end in (join.a, join.b) if tied & {join.a, join.b}} - tied:
        tied |= more
    return tied


def _reach(passes: Sequence[_Pass], group: set[int]) -> int:
    """How many views get a camera by a group of passes."""
    return sum(int((passes[index].weight[passes[index].own] > 0).any(-1).sum()) for index in group)


def _join(passes: Sequence[_Pass], a: int, b: int, *, loop: bool) -> Join | None:
    """By the points of the views that two passes share; of loops, where these agree."""
    at_a = {view: k for k, view in enumerate(passes[a].views)}
    shared = [(at_a[view], k) for k, view in enumerate(passes[b].views) if view in at_a]
    if not shared:
        return None
    first, second = (list(each) for each in zip(*shared, strict=True))
    weight = (passes[a].weight[first] * passes[b].weight[second]).sqrt()
    if int((weight > 0).any(-1).sum()) < 2:
        return None
    a_from_b, apart = robust_similarity(
        passes[b].points[second].flatten(0, 1), passes[a].points[first].flatten(0, 1), weight.flatten()
    )
    if loop and apart > _AGREES:
        ends = passes[b].views[0], passes[b].views[-1]
        logger.info("the loop of views %d and %d contradicts the rest: dropped", *ends)
        return None
    if apart > _AGREES and b == a + 1:
        logger.warning(
            "views %d to %d: two passes of the network contradict each other there, by %.0f %% of the scene; do not "
            "trust how what comes before is joined to what comes after", passes[b].views[0] + 1,
            passes[a].views[-1] + 1, 100 * apart,
        )  # fmt: skip
    return Join(a=a, b=b, a_from_b=a_from_b, weight=float(len(shared)))


def _moved(part: Prediction, frame_from_pass: Tensor, tied: bool) -> Prediction:
    """In the frame and unit of the pass that all others are tied to."""
    reached = part.reached
    if reached is not None or not tied:
        reached = torch.full((len(part.depth),), tied) & (True if reached is None else reached)
    return dataclasses.replace(
        part, depth=part.depth * float(scale_of(frame_from_pass)), reached=reached,
        world_from_cam=moved_cameras(frame_from_pass, part.world_from_cam.double()).float(),
    )  # fmt: skip


def _concatenated(parts: Sequence[Prediction]) -> Prediction:
    """Along the views."""
    reached = None
    if any(part.reached is not None for part in parts):
        told = [torch.ones(len(p.depth), dtype=torch.bool) if p.reached is None else p.reached for p in parts]
        reached = torch.cat(told)
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("depth", "rays", "conf")}
    cameras = torch.cat([part.world_from_cam for part in parts])
    return Prediction(**fields, world_from_cam=cameras, reached=reached, has_cameras=parts[0].has_cameras)
