"""Text files of poses: one a line, translation and then a quaternion (x, y, z, w)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.data.readers._layout import existing
from reliev3r.data.readers._poses import pose_from_quaternion
from reliev3r.errors import UserError


def text_rows(file: Path, *, separator: str | None = None, skip: int = 0) -> list[list[str]]:
    """The words of each line, without empty lines and comments (#) and the first ``skip`` lines.

    Raises:
        UserError: missing or not text.
    """
    try:
        lines = existing(file).read_text(encoding="utf8").splitlines()[skip:]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as text; restore it from the dataset") from error
    return [line.strip().split(separator) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pose_rows(file: Path, *, first: int, separator: str | None = None, skip: int = 0) -> list[Float[np.ndarray, "4 4"]]:
    """The poses of a file, whose translation begins in column ``first`` and is followed by the quaternion.

    A pose that is not finite stays so.

    Raises:
        UserError: missing, a line without seven numbers there, a quaternion of length 0.
    """
    return [
        _pose(row, first, f"{file}: pose {index + 1}")
        for index, row in enumerate(text_rows(file, separator=separator, skip=skip))
    ]


def _pose(row: list[str], first: int, where: str) -> Float[np.ndarray, "4 4"]:
    try:
        values = np.array([float(word) for word in row[first : first + 7]])
    except ValueError as error:
        raise UserError(f"{where} has words that are no numbers; restore the file from the dataset") from error
    if len(values) < 7:
        raise UserError(f"{where} is cut short; restore the file from the dataset")
    if not np.isfinite(values).all():
        return np.full((4, 4), np.nan)
    if np.linalg.norm(values[3:]) < 1e-6:
        raise UserError(f"{where} has a quaternion of length 0; restore the file from the dataset")
    return pose_from_quaternion(values[3:], values[:3])
