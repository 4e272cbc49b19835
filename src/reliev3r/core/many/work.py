"""What a job is that many workers share, and the surroundings in which every one of them works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from reliev3r.core.progress import Progress

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""Environment of every worker: sums in another order would be other bytes, and many workers share the cores anyway."""


@runtime_checkable
class Task(Protocol):
    """One piece of work; plain values, so that it can be sent anywhere."""

    @property
    def name(self) -> str:
        """Unique in its run."""
        ...


@runtime_checkable
class Worker(Protocol):
    """Does one task after the other, in a process of its own."""

    def work(self, task: Any, progress: Progress | None = None) -> str | None:
        """Do a task; None, or in one line why its input does not allow it."""
        ...


@runtime_checkable
class Job(Protocol):
    """How the tasks of a run are done; plain values, so that it can be sent anywhere."""

    def worker(self) -> Worker:
        """Made once in each process."""
        ...


def limit_threads() -> None:
    """One thread for everything that computes in this process; ``ONE_THREAD`` must be in its environment already."""
    import cv2
    import torch

    os.environ.update(ONE_THREAD)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
