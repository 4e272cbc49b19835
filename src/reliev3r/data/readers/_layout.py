"""Where a format keeps its scenes, and pairing the files of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.data.image_folder import natural
from reliev3r.data.readers._scene import pose_from_quaternion

_LOOKS = 8
"""Folders of a level that are looked into before a format counts as not recognised: a dataset has up to 100 000."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Scene folders up to ``depth`` levels below a root, or the root itself."""

    is_scene: Callable[[Path], bool]
    """From a few names in a folder."""
    depth: int = 1

    def recognises(self, root: Path) -> bool:
        """Whether one of the first few folders of each level is a scene."""
        return self._found(root, self.depth)

    def _found(self, folder: Path, depth: int) -> bool:
        if self.is_scene(folder):
            return True
        below = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")) if depth else iter(())
        return any(self._found(p, depth - 1) for p in islice(below, _LOOKS))

    def scenes(self, root: Path) -> list[str]:
        """Names (paths below ``root``, with forward slashes) in natural order; that of ``root`` where it is a scene."""
        return [root.resolve().name] if self.is_scene(root) else self._below(root, self.depth)

    def _below(self, folder: Path, depth: int) -> list[str]:
        if depth == 0:
            return []
        names: list[str] = []
        for inner in sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural):
            if self.is_scene(inner):
                names.append(inner.name)
            else:
                names += [f"{inner.name}/{name}" for name in self._below(inner, depth - 1)]
        return names

    def folder(self, root: Path, name: str) -> Path:
        """The folder of a scene that :meth:`scenes` names.

        Raises:
            UserError: it is none.
        """
        folder = root if self.is_scene(root) else root / name
        if not self.is_scene(folder):
            raise UserError(f"{folder}: no scene of this format; `reliev3r datasets {root}` lists those there are")
        return folder


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match, in natural order.

    Raises:
        UserError: there is no such folder, or none matches.
    """
    files = sorted((p for p in folder.glob(pattern) if not p.name.startswith(".")), key=natural)
    if not files:
        raise UserError(f"{folder}: no {pattern} in it; restore the folder from the dataset")
    return files


def same_count(images: list[Path], entries: Iterable[object], file: Path) -> None:
    """Refuse a file that does not have one entry for each image.

    Raises:
        UserError: another number.
    """
    count = sum(1 for _ in entries)
    if count != len(images):
        raise UserError(
            f"{file}: {count} poses for the {len(images)} images of {images[0].parent}; restore whichever is incomplete"
        )


def existing(file: Path) -> Path:
    """The file.

    Raises:
        UserError: it is missing.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; restore it from the dataset")
    return file


def text_rows(file: Path, *, separator: str | None = None, skip: int = 0) -> list[list[str]]:
    """The words of each line, without empty lines and comments (#) and the first ``skip`` lines.

    Raises:
        UserError: missing or not text.
    """
    try:
        lines = existing(file).read_text(encoding="utf-8-sig").splitlines()[skip:]
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
