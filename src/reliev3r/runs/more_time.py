"""Whether more time would pay, by what a training's evaluations on held-out tracks say."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import fmean, median, variance
from typing import Any

from reliev3r.training.clock import Ending
from reliev3r.training.watch import AVERAGE

_MEASURES = ("heldout_deg", "heldout_depth")
_WORTH = 0.1
"""A third of the time so far that surely brought less than this share of each measure did not pay."""
_FEWEST = 6
"""Evaluations in each third that is compared, without which nothing is sure."""
_AGREE_DEG = 3.0
"""Two cameras of the network agree with their teacher's when rotation and direction between them do, to this angle."""


def no_longer_pays(evaluations: Sequence[dict[str, Any]]) -> bool:
    """Whether the last third of the time so far brought nothing over the third before it, surely.

    ``evaluations`` are the rows of ``metrics.jsonl`` on the average of the weights, in their order. Each measure is
    judged by the mean of its logarithm in either third, and by how much the evaluations themselves scatter: had it
    really fallen by two standard errors more than it seems, that would still be less than a tenth. So noise, a fall
    that is slow but steady and few evaluations all mean that it still pays. It also does while the cameras are not yet
    those of the teacher (without one: while the held-out angle is larger than that), for then a level stretch is only
    the start.
    """
    watched = [AVERAGE + name for name in _MEASURES]
    if not evaluations or any(name not in row for row in evaluations for name in watched):
        return False
    now = evaluations[-1]["seconds"]
    before = [row for row in evaluations if now / 3 < row["seconds"] <= 2 * now / 3]
    after = [row for row in evaluations if row["seconds"] > 2 * now / 3]
    if min(len(before), len(after)) < _FEWEST:
        return False
    if not median(row.get(AVERAGE + "teacher_deg", row[watched[0]]) for row in after) < _AGREE_DEG:
        return False
    return all(_most([row[name] for row in before], [row[name] for row in after]) < _WORTH for name in watched)


def _most(before: Sequence[float], after: Sequence[float]) -> float:
    """The largest share by which a measure may have fallen."""
    first, second = ([log(max(value, 1e-9)) for value in values] for values in (before, after))
    noise = sqrt(variance(first) / len(first) + variance(second) / len(second))
    return 1 - exp(fmean(second) - fmean(first) - 2 * noise)


def ended_early(ending: Ending, minutes: float) -> str:
    """The sentence on a training that was brought to its end."""
    return (
        f"training ended by itself after {ending.last_second / 60:.3g} of {minutes:g} minutes: more time no longer "
        f"paid on held-out tracks from minute {ending.seconds / 60:.3g} on, so the learning rate was brought down "
        "(--full-time goes on to the end)"
    )


def last_third(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence that compares the last evaluation with that at two thirds of the time; none of too few of them.

    ``metrics`` are rows of ``metrics.jsonl``. The learning rate falls to the end, so that a level stretch there says
    little about what a longer run would have brought.
    """
    found = [row for row in metrics if {"seconds", *_MEASURES} <= row.keys()]
    if len(found) < 4:
        return []
    last = found[-1]
    before = [row for row in found if row["seconds"] <= 2 / 3 * last["seconds"]]
    if not before:
        return []
    angle, depth = (_changed(before[-1][name], last[name]) for name in _MEASURES)
    return [
        f"the last third of the training changed the held-out angle by {angle} to {last['heldout_deg']:.2g} degrees, "
        f"and what two views disagree about in depth by {depth} to {100 * last['heldout_depth']:.2g} %"
    ]


def _changed(before: float, now: float) -> str:
    return f"{100 * (now / before - 1):+.0f} %" if before > 0 else "nothing to compare with"
