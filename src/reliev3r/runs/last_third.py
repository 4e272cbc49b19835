"""What the last third of a training brought, so that its user can tell whether more time would pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_FEWEST = 4
"""Evaluations, without which a third means nothing."""


def last_third(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence that compares the last evaluation with that at two thirds of the time; none of too few of them.

    ``metrics`` are rows of ``metrics.jsonl``. Nothing is decided by it: the learning rate falls to the end, so that a
    level stretch says little about what the rest will bring (docs/results/fit.md).
    """
    found = [row for row in metrics if {"seconds", "heldout_deg", "heldout_depth"} <= row.keys()]
    if len(found) < _FEWEST:
        return []
    last = found[-1]
    before = [row for row in found if row["seconds"] <= 2 / 3 * last["seconds"]]
    if not before:
        return []
    angle, depth = (_changed(before[-1][name], last[name]) for name in ("heldout_deg", "heldout_depth"))
    return [
        f"the last third of the training changed the held-out angle by {angle} to {last['heldout_deg']:.2g} degrees, "
        f"and what two views disagree about in depth by {depth} to {100 * last['heldout_depth']:.2g} %"
    ]


def _changed(before: float, now: float) -> str:
    return f"{100 * (now / before - 1):+.0f} %" if before > 0 else "nothing to compare with"
