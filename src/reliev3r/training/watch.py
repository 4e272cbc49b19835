"""Looking for the moment from which more time no longer pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reliev3r.training.clock import Clock
from reliev3r.training.monitor import read_metrics

Enough = Callable[[Sequence[dict[str, Any]]], bool]
"""The rows of ``metrics.jsonl`` with evaluations of the average, so far -> whether more time would no longer pay."""

AVERAGE = "average_"
"""Before the names of an average's evaluated numbers."""
_OFTEN, _COST = 1.025, 0.05
"""The average is evaluated whenever a run has become so many times longer, for at most this share of its time."""
_RECENT = 10
"""The average goes over one in so many of the steps so far."""


def recent_decay(done: int) -> float:
    """Of the average that is watched, after so many steps. Its weights are what a falling learning rate would come to,
    nearly; those that are trained jump about, and their evaluations say little (docs/results/fit.md)."""
    return done / (done + _RECENT)


class Watch:
    """Of one run whose budget is time."""

    def __init__(self, enough: Enough, folder: Path, clock: Clock) -> None:
        """What was evaluated before the run's last checkpoint is in ``folder``."""
        self._enough, self._clock, self._spent = enough, clock, 0.0
        rows = read_metrics(folder / "metrics.jsonl")
        self._rows = [
            row for row in rows if row["step"] <= clock.done and any(name.startswith(AVERAGE) for name in row)
        ]

    def due(self) -> bool:
        """Whether to evaluate the average now."""
        clock = self._clock
        if not (clock.may_end and clock.done and self._spent <= _COST * clock.elapsed):
            return False
        return not self._rows or clock.elapsed >= _OFTEN * self._rows[-1]["seconds"]

    def take(self, values: dict[str, float], seconds: float) -> dict[str, Any]:
        """What was evaluated, in so many seconds; brings the run to its end where that is enough. A row to be kept."""
        self._spent += seconds
        named = {AVERAGE + name: value for name, value in values.items()}
        self._rows.append({"step": self._clock.done, "seconds": self._clock.elapsed, **named})
        if self._enough(self._rows):
            self._clock.end()
        return self._rows[-1]
