"""What the run needs of a pool of workers, wherever they are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, runtime_checkable

from reliev3r.core.errors import described
from reliev3r.core.many.work import ONE_THREAD, Job, Task, environment, limit_threads


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """A worker is at work."""

    slot: int
    pid: int
    """Of the worker, on its machine."""
    done: int
    total: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A worker is through with its task."""

    slot: int
    failure: str | None
    """Why its input does not allow it."""


@dataclass(frozen=True, kw_only=True)
class Crashed:
    """A worker died or stumbled over a fault that says nothing about its task; it is ready again."""

    slot: int
    reason: str


Event = Progressed | Finished | Crashed


@runtime_checkable
class Pool(Protocol):
    """Workers in numbered slots, each of which does one task at a time; one that dies is replaced."""

    @property
    def ready(self) -> Sequence[int]:
        """Slots whose worker is there, busy or idle; the others wait for theirs and are given nothing.

        Raises:
            UserError: there has been none for too long.
        """
        ...

    def submit(self, slot: int, task: Task) -> None:
        """Give a task to the idle worker of a slot."""
        ...

    def events(self) -> list[Event]:
        """What happened; waits up to half a second where nothing did."""
        ...

    def close(self) -> None:
        """Stop all workers at once, whatever they do: what they write, they write atomically."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection


class LocalPool:
    """A fresh interpreter for each slot (spawned: no state of the caller, one thread)."""

    def __init__(self, job: Job, workers: int):
        self._job = job
        self._workers = [self._start() for _ in range(workers)]

    @property
    def ready(self) -> Sequence[int]:
        """All: a process that is still starting reads what waits for it."""
        return range(len(self._workers))

    def submit(self, slot: int, task: Task) -> None:
        """Send the task to the process."""
        with suppress(OSError):  # it died while idle; events() will say so
            self._workers[slot].connection.send(task)

    def events(self) -> list[Event]:
        """Messages of the processes, and those that died."""
        slots: dict[Any, int] = {worker.connection: slot for slot, worker in enumerate(self._workers)}
        return [self._event(slots[ready]) for ready in wait(list(slots), timeout=0.5)]

    def close(self) -> None:
        """Kill the processes."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()

    def _event(self, slot: int) -> Event:
        worker = self._workers[slot]
        try:
            kind, *values = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            self._workers[slot] = self._start()
            return Crashed(slot=slot, reason=f"its worker died ({_how(worker.process.exitcode)})")
        if kind == "progress":
            done, total, what = values
            return Progressed(slot=slot, pid=worker.process.pid or 0, done=done, total=total, what=what)
        return Finished(slot=slot, failure=values[0]) if kind == "finished" else Crashed(slot=slot, reason=values[0])

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, self._job), daemon=True)
        with environment(ONE_THREAD):  # read by OpenMP and BLAS as they are loaded
            process.start()
        there.close()  # or its end would never be noticed here
        return _Worker(process=process, connection=here)


def _work(connection: Connection, job: Job) -> None:
    """The life of a worker process: tasks come in, messages go out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_threads()
    worker = job.worker()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            failure = worker.work(task, lambda *progress: connection.send(("progress", *progress)))
            connection.send(("finished", failure))
        except Exception as error:  # a fault of ours, memory, the disk: the run decides
            connection.send(("crashed", described(error)))


def _die_with_parent() -> None:
    """A killed parent cannot stop its workers; none may go on behind the back of the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {-exitcode}, for instance out of memory"
    return f"exit code {exitcode}"
