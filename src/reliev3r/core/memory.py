"""Memory of the process."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def return_free_memory() -> None:
    """Hand memory that was freed back to the system, where the C library can (glibc; elsewhere this does nothing).

    Small results that are kept between large intermediate ones leave holes in the heap which the next large ones do not
    fit into. A loop of thousands of rounds grows by gigabytes in this way, although nothing is held.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None  # musl has none
