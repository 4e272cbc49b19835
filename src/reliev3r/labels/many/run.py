"""The run over many captures: who does what next, what is tried again, what is given up."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Report, silent
from reliev3r.data.find_captures import CaptureTask
from reliev3r.labels.many.index import mark_failed, write_index
from reliev3r.labels.many.local import Crashed, Finished, Pool, Progressed
from reliev3r.labels.many.worker import LabelJob, portable

logger = logging.getLogger(__name__)

RETRIES = 2
"""How often a capture is tried again after a crash; what is wrong with its own files is final at once."""


def label_store(
    tasks: Sequence[CaptureTask],
    store: Path | str,
    job: LabelJob,
    open_pool: Callable[[], Pool],
    *,
    report: Report | None = None,
) -> dict[str, dict[str, Any]]:
    """Label all captures of a run and hand back the store's index; captures that fail do not stop the others.

    Every capture is labelled by ``label_capture`` in a worker of one thread, so the bytes do not depend on the pool.
    What a run (killed at any moment) left is reused by the next one.

    Raises:
        UserError: experts that do not exist or cannot run at all, or a store that cannot be written.
    """
    store = Path(store)
    if (store / "manifest.json").is_file():
        raise UserError(f"{store}: holds the labels of a single capture; choose another folder for the store")
    for expert in job.experts(tasks[0]):
        expert.fingerprint()  # missing weights show here once, and not in every capture
    try:
        store.mkdir(parents=True, exist_ok=True)
        pool = open_pool()
        try:
            work_off(tasks, pool, report or silent, give_up=lambda task, reason: mark_failed(task.out, reason))
        finally:
            pool.close()
            index = write_index(store, [task.name for task in tasks])
    except OSError as error:
        raise UserError(f"{store}: cannot be written ({error.strerror}); make room or choose another") from error
    return index


def work_off(
    tasks: Sequence[CaptureTask],
    pool: Pool,
    report: Report,
    *,
    give_up: Callable[[CaptureTask, str], None] = lambda task, reason: None,
) -> dict[str, str]:
    """Have a pool do its job on every capture; why some could not be done, by name.

    ``give_up`` is called where a capture's worker crashed too often.
    """
    waiting, total, failures = deque(tasks), len(tasks), dict[str, str]()
    done = 0
    running: dict[int, CaptureTask] = {}
    crashes: Counter[str] = Counter()
    report("captures", 0, total, "")
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
                failure = portable(f"{event.reason}, {crashes[task.name]} times", task)
                give_up(task, failure)
            done += 1
            if failure is not None:
                failures[task.name] = failure
                logger.warning("failed: %s", failure if task.name in failure else f"{task.name}: {failure}")
            report("captures", done, total, task.name)
    return failures
