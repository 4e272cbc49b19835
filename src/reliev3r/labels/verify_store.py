"""Finding every damaged file of a folder of labels or of a whole store."""

from __future__ import annotations

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_sealed
from reliev3r.core.progress import Progress
from reliev3r.labels.many.index import FAILED, capture_state, label_folders, read_index
from reliev3r.labels.many.index import FORMAT as STORE_FORMAT
from reliev3r.labels.quality.assess import FILE as QUALITY_FILE
from reliev3r.labels.quality.assess import FORMAT as QUALITY_FORMAT
from reliev3r.labels.quality.pictures import FILE as SHEET
from reliev3r.labels.store import FORMAT, read_key, read_manifest

REPORTS = frozenset({QUALITY_FILE, SHEET, "labels.json", "labels.html"})
"""Files that may lie beside labels and say something about them; they can be made again at any time."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One file that is not as it should be."""

    path: Path
    problem: str
    """In a few words."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at and what is wrong with it."""

    captures: int
    failed: int
    """Captures without labels for a known reason: no damage."""
    files: int
    size: int
    """Bytes read."""
    damaged: tuple[Damage, ...]
    """By path."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        damaged = [{"path": str(damage.path), "problem": damage.problem} for damage in self.damaged]
        return {**dataclasses.asdict(self), "damaged": damaged}


def verify(root: Path | str, *, progress: Progress | None = None) -> Verification:
    """Compare every file of a store, or of one folder of labels, with what manifests and index say.

    Found and named: truncated, changed, missing and foreign files, other format versions, unfinished captures, and an
    index that does not fit. Every byte is read, in several threads.

    Raises:
        UserError: ``root`` holds no labels at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give a folder of labels or a store")
    single = any((root / name).exists() for name in ("manifest.json", "tracks.npz")) and not _is_store(root)
    folders = {"": root} if single else label_folders(root)
    if not folders and not _is_store(root):
        raise UserError(f"{root}: holds no labels; give a folder of labels or a store")
    checks = [check for folder in folders.values() for check in _folder_checks(folder)]
    if not single:
        checks += [(root / "store.json", partial(_index_damage, root, folders)), *_strangers(root, folders)]
    damaged: list[Damage] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for done, found in enumerate(threads.map(_run, checks), start=1):
            damaged += found
            if progress:
                progress(done, len(checks), "files")
    paths = {path for path, _ in checks if path.is_file()}
    return Verification(
        captures=len(folders),
        failed=sum(capture_state(folder)["state"] == "failed" for folder in folders.values()),
        files=len(paths),
        size=sum(path.stat().st_size for path in paths),
        damaged=tuple(sorted(damaged, key=lambda damage: str(damage.path))),
    )


Check = tuple[Path, Callable[[], str | None]]
"""A file, and what finds out its problem."""


def _run(check: Check) -> list[Damage]:
    path, look = check
    try:
        problem = look()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    return [] if problem is None else [Damage(path=path, problem=problem)]


def _is_store(root: Path) -> bool:
    return (root / "store.json").is_file()


def _folder_checks(folder: Path) -> Iterator[Check]:
    """One check for every file of a folder of labels and for every one that should be there."""
    manifest_path, failed = folder / "manifest.json", folder / "failed.json"
    if failed.is_file():
        yield failed, partial(_sealed_damage, failed, FAILED)
    if not manifest_path.is_file():
        if not failed.is_file():
            yield manifest_path, lambda: "missing: these labels are unfinished"
        return  # without a manifest nothing can be said about the parts, and the next run looks at each
    yield manifest_path, partial(_manifest_damage, manifest_path)
    try:
        files = read_manifest(folder)["files"]
    except UserError:
        # What it says cannot be trusted; the parts still know their own format and checksums.
        yield from ((path, partial(_part_damage, path)) for path in _files(folder) if path.suffix == ".npz")
        return
    for name, entry in files.items():
        yield folder / name, partial(_file_damage, folder / name, entry)
    yield from _quality_checks(folder)
    known = {folder / name for name in files} | {manifest_path, failed} | {folder / name for name in REPORTS}
    for path in _files(folder):
        if path not in known:
            yield path, lambda: "foreign: the manifest does not list it"


def _quality_checks(folder: Path) -> Iterator[Check]:
    """The verdict and its picture, where there are any: both can be made again from the labels."""
    path, picture = folder / QUALITY_FILE, folder / SHEET
    if not path.is_file():
        return
    yield path, partial(_quality_damage, path)
    try:
        expected = read_sealed(path, QUALITY_FORMAT).get("picture_sha256")
    except UserError:
        return
    if expected is not None:
        yield picture, partial(_picture_damage, picture, expected)


def _manifest_damage(path: Path) -> str | None:
    try:
        read_manifest(path.parent)
    except UserError as error:
        return _sealed_damage(path, FORMAT) or _said(error, path)
    return None


def _said(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _quality_damage(path: Path) -> str | None:
    problem = _sealed_damage(path, QUALITY_FORMAT)
    if problem is None and read_sealed(path, QUALITY_FORMAT).get("labels_sha256") != file_hash(
        path.parent / "manifest.json"
    ):
        problem = "out of date: the verdict of earlier labels"
    return problem


def _picture_damage(path: Path, expected: str) -> str | None:
    if not path.is_file():
        return "missing"
    return None if file_hash(path) == expected else "changed: its SHA-256 is not the one in quality.json"


def _strangers(root: Path, folders: dict[str, Path]) -> Iterator[Check]:
    """Files of a store that lie in no folder of labels."""
    inside = set(folders.values())
    for parent, below, names in os.walk(root):
        below[:] = [name for name in below if Path(parent) / name not in inside]
        for name in names:
            path = Path(parent) / name
            if path != root / "store.json" and not (path.parent == root and name in REPORTS):
                yield path, lambda: "foreign: it belongs to no capture"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _file_damage(path: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with a file that a manifest lists."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size == entry["bytes"] and file_hash(path) == entry["sha256"]:
        return None
    version = _other_version(path)
    if version is not None:
        return f"of format {version}, not of format {FORMAT}"
    if size < entry["bytes"]:
        return f"truncated: {size} of {entry['bytes']} bytes"
    return "changed: its SHA-256 is not the manifest's"


def _part_damage(path: Path) -> str | None:
    """What a part without a trustworthy manifest shows of itself."""
    try:
        read_key(path)
        with zipfile.ZipFile(path) as archive:
            readable = archive.testzip() is None
    except (UserError, zipfile.BadZipFile, RuntimeError, zlib.error):
        readable = False
    if not readable:
        return "changed or truncated: its checksums do not fit"
    version = _other_version(path)
    return None if version is None else f"of format {version}, not of format {FORMAT}"


def _other_version(path: Path) -> str | None:
    """The format that an intact part has, if it is not the present one."""
    if path.suffix != ".npz":
        return None
    try:
        found = str(read_key(path).get("format"))
    except UserError:
        return None
    return None if found == FORMAT else found


def _sealed_damage(path: Path, form: str) -> str | None:
    try:
        read_sealed(path, form)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ").split(";")[0]
    return None


def _index_damage(root: Path, folders: dict[str, Path]) -> str | None:
    """What is wrong with a store's index; captures whose own manifest is damaged are named there."""
    path = root / "store.json"
    if not path.is_file():
        return "missing: run `reliev3r label` again"
    try:
        index = read_index(root)
    except UserError as error:
        return _sealed_damage(path, STORE_FORMAT) or _said(error, path)
    states = {name: capture_state(folder) for name, folder in folders.items()}
    for name, entry in index.items():
        if entry["state"] != "unfinished" and name not in states:
            return f"lists {name}, which is missing"
    for name, state in states.items():
        if state["state"] != "unfinished" and state != index.get(name):
            return f"out of date about {name}: run `reliev3r label` again"
    return None
