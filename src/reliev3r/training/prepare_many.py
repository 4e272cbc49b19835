"""Preparing captures before a training, by processes or Ray's actors: what training would otherwise do at its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reliev3r.core.errors import UserError
from reliev3r.core.many.local import Pool
from reliev3r.core.many.run import work_off
from reliev3r.core.progress import Progress, Report, silent
from reliev3r.data.find_captures import CaptureTask
from reliev3r.labels.many.worker import portable
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.training.captures import CapturesConfig, chosen_captures, prepare_once, prepared_file


@dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """How every capture is prepared."""

    config: PrepareConfig
    patch: int

    def worker(self) -> PrepareJob:
        """As :class:`reliev3r.core.many.work.Job` says: it needs nothing of its own."""
        return self

    def work(self, task: CaptureTask, progress: Progress | None = None) -> str | None:
        """Prepare a capture; None, or why it cannot be prepared."""
        try:
            prepare_once(task, prepared_file(task, self.config, self.patch), self.config, self.patch, wait=True)
        except UserError as error:
            return portable(str(error), task)
        return None


def prepare_captures(
    config: CapturesConfig, patch: int, open_pool: Callable[[PrepareJob, int], Pool], *, report: Report | None = None
) -> tuple[int, dict[str, str]]:
    """Prepare all usable captures, those that training holds out among them; what is there stays.

    Args:
        config: as of the training.
        patch: of its network.
        open_pool: gives workers for a job and so many captures.
        report: hears of the progress.

    Returns how many captures there are, and why some could not be prepared, by name.

    Raises:
        UserError: a store without usable captures, or a scene of the benchmark.
    """
    tasks = [task for heldout in (False, True) for task in chosen_captures(config, heldout=heldout)]
    missing = [task for task in tasks if not prepared_file(task, config.prepare, patch).is_file()]
    if not missing:
        return len(tasks), {}
    pool = open_pool(PrepareJob(config=config.prepare, patch=patch), len(missing))
    try:
        return len(tasks), work_off(missing, pool, "captures", report or silent)
    finally:
        pool.close()
