"""What a system costs: seconds and peak memory, in the words that workers use too (``baselines.worker``)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from reliev3r.baselines.worker import peak_memory

_RESET = Path("/proc/self/clear_refs")


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """A dictionary that is filled at the end: ``seconds``, ``peak_rss_bytes`` (Linux), ``peak_cuda_bytes``.

    Resident memory is the whole process's highest within the block: the interpreter and its packages count, as they do
    in a worker.
    """
    cost: dict[str, Any] = {}
    with suppress(OSError):
        _RESET.write_text("5")  # the kernel starts to measure the peak anew
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    yield cost
    cost["seconds"] = round(time.monotonic() - start, 2)
    cost.update(peak_memory("cuda" if torch.cuda.is_available() else "cpu"))
