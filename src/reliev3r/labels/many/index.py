"""What a store holds: its index, ``STORE/store.json`` (a pure function of the folders below it), and the verdicts."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.cameras_json import CAMERAS_JSON
from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_sealed, remove_leftovers, write_sealed
from reliev3r.core.progress import Progress
from reliev3r.labels.quality.assess import read_quality
from reliev3r.labels.quality.pictures import FILE as SHEET
from reliev3r.labels.store import read_manifest

FORMAT = "reliev3r-store/1"
FAILED = "reliev3r-failed/1"

_STATES = ("done", "failed", "unfinished")
_PARTS = {"manifest.json", "failed.json", "tracks.npz", "depth", "frames"}
_OF_CAPTURES = {CAMERAS_JSON, "images"}
"""A capture may have a depth/ of its own: its true depth is nobody's unfinished labels."""


def label_folders(store: Path) -> dict[str, Path]:
    """Every folder of labels in a store, finished or not, by the capture's name (its path in the store), sorted."""
    found = {}
    for folder, below, files in os.walk(store):
        path = Path(folder)
        here = {*below, *files}
        if path != store and _PARTS & here and not _OF_CAPTURES & here:
            found[path.relative_to(store).as_posix()] = path
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
    return dict(sorted(found.items()))


def capture_state(folder: Path) -> dict[str, Any]:
    """{"state": "done" | "failed" | "unfinished", ...} of one folder of labels, as the index lists it."""
    try:
        manifest = read_manifest(folder)
        frames = len(manifest["frames"])
        return {"state": "done", "frames": frames, "manifest_sha256": file_hash(folder / "manifest.json")}
    except UserError:
        pass
    try:
        return {"state": "failed", "reason": str(read_sealed(folder / "failed.json", FAILED).get("reason", ""))}
    except UserError:
        damaged = (folder / "manifest.json").is_file()
        return {"state": "unfinished", **({"reason": "manifest.json is damaged; label it again"} if damaged else {})}


def mark_failed(folder: Path, reason: str) -> None:
    """Say in a folder of labels that they could not be made; a manifest of earlier labels goes."""
    (folder / "manifest.json").unlink(missing_ok=True)
    write_sealed(folder / "failed.json", {"format": FAILED, "reason": reason})


def write_index(store: Path | str, expected: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Write ``store.json`` from what lies in the store and hand it back; ``expected`` captures without labels count as
    unfinished.
    """
    store = Path(store)
    remove_leftovers(store, {"store.json"})
    captures: dict[str, dict[str, Any]] = {name: {"state": "unfinished"} for name in expected}
    captures |= {name: capture_state(folder) for name, folder in label_folders(store).items()}
    captures = dict(sorted(captures.items()))
    write_sealed(store / "store.json", {"format": FORMAT, "captures": captures})
    return captures


def read_index(store: Path | str) -> dict[str, dict[str, Any]]:
    """What the index says about every capture, by name.

    Raises:
        UserError: missing, damaged or of another format version.
    """
    path = Path(store) / "store.json"
    if not path.is_file():
        raise UserError(f"{store}: is no store of labels (no store.json); run `reliev3r label` (again)")
    captures: Any = read_sealed(path, FORMAT).get("captures")
    entries = captures.values() if isinstance(captures, dict) else [None]
    if not all(isinstance(entry, dict) and entry.get("state") in _STATES for entry in entries):
        raise UserError(f'{path}: damaged (its "captures" are not what reliev3r writes); run `reliev3r label` again')
    return captures


@dataclass(frozen=True, kw_only=True)
class JudgedCapture:
    """One capture of a store, for the label report."""

    name: str
    verdict: str
    """good, weak, unusable; failed (no labels could be made), unfinished, or not judged."""
    reasons: tuple[str, ...]
    """In plain language, with the remedy."""
    figures: dict[str, Any] | None
    """As ``quality.json`` has them."""
    picture: Path | None
    """A JPEG of its labels."""
    look: Path | None = None
    """The page to look around in of the run that the labels lie in, where there is one."""


def gather_quality(root: Path | str, *, progress: Progress | None = None) -> list[JudgedCapture]:
    """All captures of a store, or the one whose labels ``root`` holds, by name; nothing is computed again.

    Raises:
        UserError: no labels in ``root``.
    """
    root = Path(root)
    single = (root / "manifest.json").is_file()
    folders = {root.resolve().name: root} if single else label_folders(root) if root.is_dir() else {}
    if not folders:
        raise UserError(f"{root}: holds no labels; give a folder of labels or a store that `reliev3r label` made")
    captures = []
    for done, (name, folder) in enumerate(folders.items(), start=1):
        captures.append(_judged(name, folder))
        if progress:
            progress(done, len(folders), name)
    return captures


def _judged(name: str, folder: Path) -> JudgedCapture:
    state = capture_state(folder)
    quality = read_quality(folder) if state["state"] == "done" else None
    picture, page = folder / SHEET, folder.resolve().parent / "view.html"
    look = page if folder.resolve().name == "labels" and page.is_file() else None
    if quality is not None:
        return JudgedCapture(
            name=name, verdict=quality.verdict, reasons=quality.sentences, figures=quality.figures,
            picture=picture if picture.is_file() else None, look=look,
        )  # fmt: skip
    verdict, reason = {
        "failed": ("failed", state.get("reason", "")),
        "unfinished": ("unfinished", state.get("reason", "the run was interrupted; `reliev3r label` goes on")),
        "done": ("not judged", "labelled without a verdict; `reliev3r label` adds it"),
    }[state["state"]]
    return JudgedCapture(name=name, verdict=verdict, reasons=(reason,), figures=None, picture=None)
