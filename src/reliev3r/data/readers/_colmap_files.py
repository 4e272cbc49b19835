"""Whether the binary files of a COLMAP model are whole, before pycolmap, which reads past the end, is given them."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from reliev3r.core.errors import UserError

_POSE = 56  # rotation (4) and translation (3), doubles
_LONGEST_NAME = 4096


def check_model_files(folder: Path) -> None:
    """Walk through every count and length of the binary files in ``folder``; nothing is kept.

    Raises:
        UserError: a file ends before what it announces, goes on behind it, or announces a model that COLMAP has not.
    """
    for name, record in _RECORDS.items():
        file = folder / f"{name}.bin"
        if not file.is_file():
            continue
        try:
            whole = file.stat().st_size >= 8 and _is_whole(file, record)
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: an image's name ({error.object[:60]!a}) is not UTF-8; rename it") from error
        except (struct.error, IndexError, ValueError):
            whole = False
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error
        if not whole:
            raise UserError(f"{file}: damaged: its length is not what it announces; restore it")


def _is_whole(file: Path, record: Callable[[mmap.mmap, int], int]) -> bool:
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 8
        for _ in range(_number(content, "Q", 0)):
            position = record(content, position)
            if position > len(content):
                return False
        return position == len(content)


def _number(content: mmap.mmap, kind: str, position: int) -> int:
    return int(struct.unpack_from(f"<{kind}", content, position)[0])


def _camera(content: mmap.mmap, position: int) -> int:
    """Id, model, width, height, and the model's parameters."""
    import pycolmap

    model = pycolmap.CameraModelId(_number(content, "i", position + 4))
    count = len(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params)
    return position + 24 + 8 * count


def _image(content: mmap.mmap, position: int) -> int:
    """Id, pose, camera, name up to a zero byte, and points of 24 bytes."""
    name = position + 4 + _POSE + 4
    end = content.find(b"\0", name, name + _LONGEST_NAME)
    if end < 0:
        raise ValueError("a name without an end")
    content[name:end].decode("utf8")
    return end + 9 + 24 * _number(content, "Q", end + 1)


def _point(content: mmap.mmap, position: int) -> int:
    """Id, place, colour, error, and observations of 8 bytes."""
    return position + 51 + 8 * _number(content, "Q", position + 43)


def _rig(content: mmap.mmap, position: int) -> int:
    """Id, and sensors; all but the first may have a pose."""
    sensors, position = _number(content, "I", position + 4), position + 8
    for number in range(sensors):
        position += 8
        if number:
            position += 1 + _POSE * bool(_number(content, "B", position))
    return position


def _frame(content: mmap.mmap, position: int) -> int:
    """Ids of frame and rig, pose, and data of 16 bytes."""
    return position + 12 + _POSE + 16 * _number(content, "I", position + 8 + _POSE)


_RECORDS = {"cameras": _camera, "images": _image, "points3D": _point, "rigs": _rig, "frames": _frame}
