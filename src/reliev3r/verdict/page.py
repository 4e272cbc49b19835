"""The verdict as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.model.predict import predict
from reliev3r.report.adaptation import Bar, BeforeAfter, write_adaptation
from reliev3r.verdict.evidence import HeldoutCapture
from reliev3r.verdict.measure import view_sets
from reliev3r.verdict.rule import KINDS, JudgeConfig, Verdict

MOST_SETS = 6


def write_verdict_page(
    path: Path | str,
    verdict: Verdict,
    before: nn.Module,
    after: nn.Module,
    heldout: Sequence[HeldoutCapture],
    config: JudgeConfig | None = None,
) -> None:
    """Write ``path`` (HTML) and a PNG of the same name: the verdict, its figures, and what both networks make of a few
    held-out frames and their neighbours (predictions that are not finite are left out)."""
    config = config or JudgeConfig()
    every = [(c, chosen) for c in heldout if c.K is not None for chosen in view_sets(c, min(config.views, 6), 1)]
    pictures = [_pictures(capture, chosen, before, after) for capture, chosen in evenly_spaced(every, MOST_SETS)]
    bars = [
        Bar(
            name=figure.name, meaning=figure.meaning, before=figure.before, after=figure.after, change=figure.change,
            relative=KINDS[figure.name].lower_is_better, sign=figure.sign,
        )
        for figure in verdict.figures
    ]  # fmt: skip
    write_adaptation(
        path, verdict=verdict.verdict, reasons=verdict.reasons, bars=bars,
        sets=[picture for picture in pictures if picture is not None],
    )  # fmt: skip


def _pictures(capture: HeldoutCapture, chosen: list[int], before: nn.Module, after: nn.Module) -> BeforeAfter | None:
    views = capture.views.select_views(chosen)
    old, new = predict(before, views), predict(after, views)
    if not all(bool(p.depth.isfinite().all() & p.world_from_cam.isfinite().all()) for p in (old, new)):
        return None
    solved = capture.reference
    known = solved is not None and bool(solved.reached[chosen].all())
    cameras = solved.world_from_cam[chosen] if solved is not None and known else None
    return BeforeAfter.of(f"{capture.name}: frame {chosen[0]} and others", views.image, old, new, cameras)
