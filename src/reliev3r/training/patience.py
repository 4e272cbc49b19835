"""What is not finite is passed over, up to a point: samples by name, and steps whose loss or gradient is not."""

from __future__ import annotations

import logging
from pathlib import Path

from reliev3r.core.errors import TrainingStopped
from reliev3r.training.config import TrainConfig

logger = logging.getLogger(__name__)


class Patience:
    """Counts of one process."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self.samples = 0
        """In all, since the process began."""
        self._steps = 0

    def pass_over_samples(self, said: tuple[str, ...]) -> None:
        """Tell of samples that are not finite, a line each.

        Raises:
            TrainingStopped: there were too many.
        """
        self.samples += len(said)
        for line in said:
            logger.warning("%s; passed over", line)
        if self.samples > self._config.bad_samples:
            raise TrainingStopped(
                f"{said[-1]}, and {self.samples - 1} samples before it were not either; label these captures again, or "
                "raise bad_samples"
            )

    def pass_over_step(self, happened: str) -> None:
        """Tell of a step that changes nothing; the next one has another batch.

        Raises:
            TrainingStopped: it is one too many in a row.
        """
        self._steps += 1
        if self._steps > self._config.bad_steps:
            raise TrainingStopped(
                f"{self._folder}: {happened}, for the {self._steps}. time in a row; nothing was changed by these "
                "steps. Start a new run with a lower lr, or check the labels"
            )
        logger.warning("%s: %s; passed over", self._folder, happened)

    def good_step(self) -> None:
        """The row is broken."""
        self._steps = 0
