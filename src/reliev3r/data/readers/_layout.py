"""Where a format keeps its scenes, and pairing the files of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from reliev3r.data.capture import natural
from reliev3r.errors import UserError

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
