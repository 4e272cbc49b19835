"""Which captures a path means: one, a folder of them, or a list in a text file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reliev3r.core.cameras_json import CAMERAS_JSON, alike, refuse_unwritable_name
from reliev3r.core.errors import UserError
from reliev3r.data.image_folder import is_image

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".3gp"})
"""Files below a folder of captures that are taken for videos."""


@dataclass(frozen=True, kw_only=True)
class CaptureTask:
    """One capture of many."""

    name: str
    """Unique; its labels lie in STORE/name. Forward slashes where captures lie in sub-folders."""
    path: Path
    """The capture, absolute: workers may have another working directory."""
    out: Path
    """Where its labels go, absolute."""


_LONGEST_NAME = 255
"""Bytes, on every usual disk."""


def find_captures(root: Path | str, store: Path | str) -> list[CaptureTask] | None:
    """The captures that ``root`` stands for, sorted by name, with their places in ``store``; None if it is itself one.

    A capture is a video file, or a folder that holds images, ``images/`` or ``cameras.json``. Any other folder is
    searched at every depth for captures (hidden folders and labels excepted), and each is named by its path in
    ``root``. A text file (``.txt``) lists one path a line, relative to its own folder; "#" starts a comment.

    Raises:
        UserError: missing, no captures in it, or two of the same name.
    """
    root, store = Path(root).resolve(), Path(store).resolve()
    if root.is_file() and root.suffix.lower() == ".txt":
        return _tasks(_listed(root), store, root)
    if not root.is_dir() or _is_capture(root):
        return None  # whether it exists and can be used is for load_capture to say
    found = [(path.relative_to(root).as_posix(), path) for path in _captures_below(root, store)]
    if not found:
        raise UserError(f"{root}: no captures in it; give a folder of images, a video, or a folder of such")
    return _tasks(found, store, root)


def _tasks(found: list[tuple[str, Path]], store: Path, where: Path) -> list[CaptureTask]:
    paths: dict[str, Path] = {}
    for name, path in found:
        if alike(name) in paths:
            raise UserError(f"{where}: {path} and {paths[alike(name)]} are both named {name!r}; rename one")
        paths[alike(name)] = path
    return [CaptureTask(name=name, path=path, out=store / name) for name, path in sorted(found)]


def _is_capture(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES
    return (path / CAMERAS_JSON).is_file() or _holds_images(path) or _holds_images(path / "images")


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(is_image(file) and file.is_file() for file in folder.iterdir())


def _captures_below(folder: Path, store: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path == store:
            continue
        if _is_capture(path):
            found.append(path)
        elif path.is_dir() and not (path / "manifest.json").is_file() and not (path / "store.json").is_file():
            found += _captures_below(path, store)
    return found


def _listed(file: Path) -> list[tuple[str, Path]]:
    """(name, path) of each line; the name is the line itself if it leads downwards, else its last part."""
    try:
        lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as a list of captures ({error}); one path a line") from error
    found = []
    for line in filter(None, lines):
        refuse_unwritable_name(line, file)
        given = Path(line)
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in given.parts):
            raise UserError(f"{file}: {line[:40]!r}... is longer than the name of a file can be; one path a line")
        downwards = not given.is_absolute() and ".." not in given.parts
        path = (file.parent / given).resolve()
        found.append((given.as_posix() if downwards and given.name else path.name, path))
    if not found:
        raise UserError(f"{file}: lists no capture; write one path a line")
    return found
