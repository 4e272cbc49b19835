"""Freed memory goes back to the system."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from reliev3r.core import memory


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_between_kept_results_go_back_to_the_system() -> None:
    if memory._glibc() is None:
        pytest.skip("this C library has no malloc_trim")
    size = 100 * 1024  # below malloc's limit of mmap, so on the heap
    kept, dropped = [], []
    for _ in range(1000):
        dropped.append(np.ones(size, np.uint8))
        kept.append(np.ones(20_000, np.uint8))
    dropped.clear()
    before = resident()
    memory.return_free_memory()
    assert before - resident() > 50e6
    assert all(one.sum() == 20_000 for one in kept)


def test_another_c_library_is_no_error(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    memory.return_free_memory()
