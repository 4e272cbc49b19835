"""The run over many tasks: who does what next, what is tried again, what is given up."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from reliev3r.core.many import cluster, local
from reliev3r.core.many.local import Crashed, Finished, Pool, Progressed
from reliev3r.core.many.work import Job, Task
from reliev3r.core.progress import Report

logger = logging.getLogger(__name__)
T = TypeVar("T", bound=Task)

RETRIES = 2
"""How often a task is tried again after a crash; what is wrong with its own files is final at once."""


def open_pool(
    job: Job, tasks: int, *, workers: int | None = None, ray: str | None = None, gpus_per_worker: float = 0.0
) -> Pool:
    """Processes of this machine (one unless ``workers`` says more), or actors of the Ray cluster at ``ray``.

    Raises:
        UserError: no Ray, no cluster there, or one without room.
    """
    if ray is None:
        return local.LocalPool(job, min(workers or 1, tasks))
    return cluster.RayPool(job, workers, address=ray, gpus_per_worker=gpus_per_worker)


def work_off(
    tasks: Sequence[T],
    pool: Pool,
    stage: str,
    report: Report,
    *,
    give_up: Callable[[T, str], str] = lambda task, reason: reason,
) -> dict[str, str]:
    """Do all tasks and hand back why some could not be done, by name; those do not stop the others.

    The ``stage`` of the report counts them. ``give_up`` is told of a task whose workers crashed too often, and says the
    reason in its own words.
    """
    waiting, running, failures = deque(tasks), dict[int, T](), dict[str, str]()
    total, done = len(waiting), 0
    crashes: Counter[str] = Counter()
    report(stage, 0, total, "")
    while waiting or running:
        for slot in pool.ready:
            if waiting and slot not in running:
                running[slot] = waiting.popleft()
                pool.submit(slot, running[slot])
        for event in pool.events():
            task = running.get(event.slot)
            if task is None:
                continue  # an idle worker died; it has been replaced
            bar = f"worker {event.slot + 1}"
            if isinstance(event, Progressed):
                report(bar, event.done, event.total, f"{task.name}: {event.what}")
                continue
            del running[event.slot]
            failure = event.failure if isinstance(event, Finished) else event.reason
            if isinstance(event, Crashed):
                crashes[task.name] += 1
                if crashes[task.name] <= RETRIES:
                    logger.warning("%s: %s; it will be tried again", task.name, event.reason)
                    waiting.append(task)  # the others first
                    continue
                failure = give_up(task, f"{event.reason}, {crashes[task.name]} times")
            done += 1
            if failure is not None:
                failures[task.name] = failure
                logger.warning("%s", failure if task.name in failure else f"{task.name}: {failure}")
            report(stage, done, total, task.name)
    return failures
