"""COLMAP without its own log, which would run through the progress bars; what it comes to is in its results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """In the block pycolmap logs nothing below what ends the program."""
    import pycolmap

    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 3
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
