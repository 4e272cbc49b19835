"""Writing files so that a crash never leaves half of one, and telling whether they changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); on success it replaces ``path``, on error it is removed.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        with _room(path):
            yield temporary
            _follow_umask(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def _room(path: Path, folder: Path | None = None) -> Iterator[None]:
    """A disk, quota or file-size limit that is reached while ``path`` is written becomes one line for the user.

    ``folder`` is what ``path`` is called until it is whole: nobody knows it by that name.
    """
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(folder or path), str(path))) from error
    except Exception as error:  # safetensors tells it in words only, torch's zip writer not even so
        number, text = getattr(error, "errno", None), str(error)
        in_words = any(f"os error {number}" in text for number in _NO_ROOM) or "inline_container" in text
        if number not in _NO_ROOM and not in_words:
            raise
        why = os.strerror(number) if number in _NO_ROOM else "no room is left on the disk"
        raise UserError(
            f"{path}: cannot be written ({why}); make room and run it again (--resume goes on with a training)"
        ) from error


def _follow_umask(path: Path) -> None:
    """Files and folders made as temporary ones are private; the user's own mask decides who may read them."""
    umask = os.umask(0)
    os.umask(umask)
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        shared = each.is_file() and each.stat().st_nlink > 1  # a hard link to a file of somebody else's
        if not each.is_symlink() and not shared:
            each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; on success it becomes ``path``, replacing what was there.

    Raises:
        UserError: the parent folder cannot be written.
    """
    path = Path(path)
    if path.is_symlink() and not path.is_dir():
        raise UserError(f"{path}: is a link that leads to no folder; remove it, or choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        with _room(path, temporary):
            yield temporary
            _follow_umask(temporary)
            if path.exists():
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
                os.replace(path, old / path.name)
                os.replace(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name where the disk allows a hard link, else a copy of its bytes.

    Raises:
        UserError: the source is missing or cannot be read.
    """
    source = source.resolve()  # caches of downloads hold symbolic links, and those may break
    try:
        os.link(source, target)
    except OSError:  # another disk, no right to link, a file system without links
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise UserError(f"{source}: cannot be copied to {target.parent} ({error.strerror})") from error


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove what writers of ``names`` in ``folder`` left behind when they were killed; nothing else is touched.

    Only for a folder that nobody else writes to at the moment.
    """
    for entry in sorted(folder.glob(".*")):
        match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.[^.]+)?", entry.name)  # as tempfile names them
        if match is None or match[1].removesuffix(".old") + (match[2] or "") not in names:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf8")


def refuse_no_file(path: Path | str) -> None:
    """Before a file from elsewhere is opened: a pipe would be waited for, and a device may never end.

    Raises:
        UserError: it is one. What is missing or a folder is for whoever opens it to tell.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: is a pipe or a device; give a file")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, is not JSON, or says a thing twice.
    """
    refuse_no_file(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows begins files with a byte-order mark
        return json.loads(text, object_pairs_hook=_said_once)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (OSError, ValueError, RecursionError) as error:  # endless nesting; integers of thousands of digits
        raise UserError(f"{path}: not readable as JSON ({error})") from error


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands twice in an object, the JSON module would take the last, and others the first."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in it")
    return content


def inside(folder: Path, name: object, where: str) -> Path:
    """The path that a file in ``folder`` means by ``name``: below ``folder``, with forward slashes or Windows' own.

    What a file names is somebody else's choice; it never leads elsewhere. Links below the folder are its owner's.

    Raises:
        UserError: no text, or a path that leads outside; ``where`` is the file and the frame that say so.
    """
    long = isinstance(name, str) and any(len(part.encode("utf8", "replace")) > 255 for part in name.split("/"))
    if not isinstance(name, str) or not name or "\0" in name or long:
        raise UserError(f"{where}: {str(name)[:40]!r} is not the path of a file; correct it")
    path = Path(os.path.normpath(folder / name.replace("\\", "/")))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise UserError(f"{where}: {name} lies outside {folder}; use a path relative to that folder")
    return path


def refuse_links_out(folder: Path) -> None:
    """Before results are written below ``folder``, which may be somebody else's: no link in it leads their files
    elsewhere. The folder itself may be one.

    Raises:
        UserError: one does.
    """
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if place.is_symlink() and place.is_dir() and not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{place}: is a link out of {folder}, where results are written; remove it")


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        UserError: it is no file.
    """
    refuse_no_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(path: Path | str, pattern: str = "*") -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder that match, in hexadecimal."""
    path = Path(path)
    if path.is_file():
        return file_hash(path)
    files = sorted(file for file in path.rglob(pattern) if file.is_file())
    lines = [f"{file_hash(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (with its "format") and the SHA-256 of itself, atomically; the same content, the same bytes."""
    text = _text(content)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def read_sealed(path: Path, form: str) -> dict[str, Any]:
    """What :func:`write_sealed` wrote, without the checksum.

    Raises:
        UserError: missing, damaged (a single byte is enough) or of another format version.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != form:
        found = content.get("format") if isinstance(content, dict) else None
        raise UserError(f"{path}: of format {found}, not of format {form}; run `reliev3r label` again")
    content.pop("sha256", None)
    if path.read_text(encoding="utf8") != _text(content):
        raise UserError(f"{path}: damaged (its checksum does not fit); run `reliev3r label` again")
    return content


def _text(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1) + "\n"
