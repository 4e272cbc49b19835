"""Where a run stands on its schedule: in steps, or in seconds of training that all its processes share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from reliev3r.training.config import TrainConfig

_COOL_DOWN = 1 / 3
"""How long the rest of the schedule takes once a run is brought to its end, as a share of the time before that."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The moment from which the rest of the schedule is gone through quickly."""

    seconds: float
    """Of training."""
    progress: float
    """On the schedule, in [0, 1]."""

    @property
    def last_second(self) -> float:
        """At which the schedule is through."""
        return (1 + _COOL_DOWN) * self.seconds


class Clock:
    """Of one run. Everything that changes over a run follows :attr:`progress`."""

    def __init__(self, config: TrainConfig) -> None:
        self._steps, self._budget = config.steps, 60 * config.minutes
        self._before, self._start = 0.0, time.monotonic()
        self.done = 0
        """Steps."""
        self.elapsed = 0.0
        """Seconds of training when it was last read, the same for all processes."""
        self.ending: Ending | None = None

    def set(self, done: int, elapsed: float, ending: Ending | None) -> None:
        """To where a checkpoint was written."""
        self.done, self.elapsed, self.ending = done, elapsed, ending
        self._before = elapsed

    def start(self) -> None:
        """What came before was no training."""
        self._start = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds of training by the clock of this process."""
        return self._before + time.monotonic() - self._start

    @property
    def by_steps(self) -> bool:
        """Whether a number of steps is the budget."""
        return self._steps is not None

    @property
    def progress(self) -> float:
        """In [0, 1]."""
        if self._steps is not None:
            return self.done / self._steps
        if self.ending is None:
            return min(1.0, self.elapsed / self._budget)
        since, left = self.ending.seconds, 1 - self.ending.progress
        return min(1.0, self.ending.progress + left * (self.elapsed - since) / (self.ending.last_second - since))

    @property
    def position(self) -> tuple[float, float]:
        """(done, of how many) in steps, or in seconds where minutes are the budget."""
        if self._steps is not None:
            return float(self.done), float(self._steps)
        last = self._budget if self.ending is None else self.ending.last_second
        return round(min(self.elapsed, last), 1), last

    @property
    def may_end(self) -> bool:
        """Whether bringing the run to its end would shorten it. A number of steps is kept to."""
        sooner = Ending(seconds=self.elapsed, progress=self.progress).last_second < self._budget
        return self._steps is None and self.ending is None and sooner

    def end(self) -> None:
        """Go through the rest of the schedule quickly, from here on: learning rate, teacher and all."""
        self.ending = Ending(seconds=self.elapsed, progress=self.progress)
