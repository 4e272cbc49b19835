"""Batches for the loop: made when they are asked for, or ahead of the step by processes of their own.

What a batch is depends on its step and micro-batch alone, so neither the number of workers nor a restart changes it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from reliev3r.core.types import Views

Batches = Callable[[int, int], tuple[Views, Any]]
"""(step, which of the step's batches) -> views and labels: a pure function, so that a resumed run repeats nothing. A
step has ``processes * accumulate`` batches; process r sees those from ``r * accumulate`` on. So two processes see in a
step what one that accumulates two sees."""

_AHEAD = 2
"""Batches that each worker makes ahead."""


class Feed:
    """The batches of one process of a run, from a step on and in order, on its device."""

    def __init__(
        self, batches: Batches, device: torch.device, *, start: int, rank: int, accumulate: int, workers: int
    ) -> None:
        """``workers``: processes that make them; 0: this one does.

        With workers ``batches`` must be picklable. A script that is no module must keep its own calls under
        ``if __name__ == "__main__":``, as for every process that Python starts anew.
        """
        self._device = device
        keys = _keys(start, rank, accumulate)
        self._made: Iterator[Any] = (
            _through_workers(batches, keys, workers, pin=device.type == "cuda")
            if workers
            else (_make(batches, key) for key in keys)
        )

    def next(self) -> tuple[Views, Any, tuple[str, ...]]:
        """Views, labels, and what was passed over on the way to them (one line each)."""
        views, labels, passed_over = next(self._made)
        return views.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True), passed_over

    def close(self) -> None:
        """Stop the workers."""
        self._made = iter(())  # a loader's iterator stops its workers as it goes


def _keys(start: int, rank: int, accumulate: int) -> Iterator[tuple[int, int]]:
    for step in count(start):
        for index in range(accumulate):
            yield step, rank * accumulate + index


def _make(batches: Batches, key: tuple[int, int]) -> tuple[Views, Any, tuple[str, ...]]:
    views, labels = batches(*key)
    said: list[str] = getattr(batches, "passed_over", [])
    passed_over = tuple(said)
    said.clear()
    return views, labels, passed_over


class _Keyed(Dataset[Any]):
    """Batches by key, for torch's loader."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, key: tuple[int, int]) -> tuple[Views, Any, tuple[str, ...]]:
        return _make(self._batches, key)


def _through_workers(batches: Batches, keys: Iterator[tuple[int, int]], workers: int, *, pin: bool) -> Iterator[Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reliev3r.training.captures"])  # what takes seconds is imported once for all
    loader = DataLoader(
        _Keyed(batches), batch_size=None, sampler=keys, collate_fn=_as_it_is, num_workers=affordable(workers),
        prefetch_factor=_AHEAD, pin_memory=pin, worker_init_fn=_begin,
        multiprocessing_context=context,
        generator=torch.Generator(),  # the loader draws a number, which must not be one of the run's
    )  # fmt: skip
    with _deaf():
        return iter(loader)


def affordable(workers: int) -> int:
    """So many of ``workers`` as this process has cores: recipes count on large machines, and batches are the same."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(workers, cores)


def _as_it_is(made: Any) -> Any:
    return made


def _begin(worker: int) -> None:
    """Ctrl-C, and a SIGTERM to all processes of a job, are for the training process, which then stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started meanwhile ignore SIGTERM from the start; of this one nothing changes afterwards.

    The server that forks the workers is among them: its death would be theirs.
    """
    try:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except ValueError:  # not the main thread, which alone may
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
