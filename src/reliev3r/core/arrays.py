"""Arrays from files that anybody may have written: what a header announces is judged before memory is taken for it."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reliev3r.core.files import refuse_no_file

ARRAY_ERRORS = (
    OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, RuntimeError, MemoryError, NotImplementedError,
    OverflowError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise on archives with any byte changed."""

_HARMLESS = 100_000_000  # bytes that any file may unpack to
_MOST_PACKED = 100  # times the bytes on disk: deflate reaches 1030 on zeros, real maps and tracks stay below 20


def read_npz(path: Path, names: Collection[str] | None = None, *, optional: Collection[str] = ()) -> dict[str, Any]:
    """Arrays of a ``.npz`` by name: ``names`` and those of ``optional`` that are there, or all. Nothing is unpickled.

    Raises:
        ValueError and the others of :data:`ARRAY_ERRORS`: damaged, an array is missing, announces another size than it
            has, or unpacks to far more than the file; the caller knows the remedy.
    """
    refuse_no_file(path)
    with zipfile.ZipFile(path) as archive:
        there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        wanted = there if names is None else [*names, *(name for name in optional if name in there)]
        arrays = {}
        for name in wanted:
            if name not in there:
                raise ValueError(f"it has no array {name!r}")
            refuse_bomb(there[name].file_size, there[name].compress_size)
            with archive.open(there[name]) as file:
                arrays[name] = _array(file, there[name].file_size)
        return arrays


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file. Nothing is unpickled.

    Raises:
        ValueError and the others of :data:`ARRAY_ERRORS`: damaged, or it announces more than it has.
    """
    refuse_no_file(path)
    with open(path, "rb") as file:
        return _array(file, os.fstat(file.fileno()).st_size)


def refuse_bomb(size: int, stored: int) -> None:
    """Of a member of an archive: how many bytes it unpacks to, and how many it has.

    Raises:
        ValueError: no honest file packs so well.
    """
    if size > max(_HARMLESS, _MOST_PACKED * stored):
        raise ValueError(f"it unpacks to {size / 1e6:.0f} MB from {stored / 1e6:.3f} MB")


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU: tensors and plain values alone, whatever else the file holds.

    Raises:
        Exception: whatever torch makes of foreign files; ValueError where it unpacks to far more than the file.
    """
    refuse_no_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                refuse_bomb(info.file_size, info.compress_size)
    return torch.load(path, map_location="cpu", weights_only=True)


def _array(file: Any, size: int) -> np.ndarray:
    """``size`` bytes of an open file, of the format of ``numpy.save``."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds objects, which are never unpickled")
    announced = math.prod(map(int, shape)) * dtype.itemsize
    if announced > size - file.tell():
        raise ValueError(f"it announces {announced} bytes and has {max(0, size - file.tell())}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
