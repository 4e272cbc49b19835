"""The labels of many captures, whoever makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.many.local import Pool
from reliev3r.core.many.run import work_off
from reliev3r.core.progress import Report, silent
from reliev3r.data.find_captures import CaptureTask
from reliev3r.labels.many.index import mark_failed, write_index
from reliev3r.labels.many.worker import LabelJob, portable


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
            work_off(tasks, pool, "captures", report or silent, give_up=_give_up)
        finally:
            pool.close()
            index = write_index(store, [task.name for task in tasks])
    except OSError as error:
        raise UserError(f"{store}: cannot be written ({error.strerror}); make room or choose another") from error
    return index


def _give_up(task: CaptureTask, reason: str) -> str:
    told = portable(reason, task)
    mark_failed(task.out, told)
    return told
